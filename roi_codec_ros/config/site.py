# SPDX-License-Identifier: Apache-2.0
"""All cameras of a site in one file: what each is, and where what runs.

    cameras.yaml ─► read_site ─► Site ─► site_graph ─► the nodes that belong on one host

Every complaint is one line that names the file and the key.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import UsageError, reason_of
from roi_codec_ros.common.files import YAML_FAULTS
from roi_codec_ros.config.bringup import (
    ENCODER,
    SERVER_EXECUTABLES,
    TRACKER,
    NodeSpec,
    encoder_spec,
    joined,
    server_specs,
)
from roi_codec_ros.config.parameter_values import Value, meant
from roi_codec_ros.config.parameters import check_camera_name, parameters_of

CAMERAS, SERVER, BOTH = PARTS = ("cameras", "server", "both")
# Key of a camera → the encoder's parameter that it stands for.
SHORT = {
    "source": "source",
    "lens": "camera_info_file",
    "model": "model",
    "quality": "quality",
    "kbit_s": "target_kbit_s",
}
CAMERA_KEYS = (*SHORT, "pose", "host", "enabled", "parameters")
SHARED_KEYS = tuple(key for key in CAMERA_KEYS if key not in ("source", "pose"))
SERVER_KEYS = ("host", "name", "tracker", "separate", "parameters")
DERIVED = {"cameras": "the file's cameras are", "camera_poses": "`pose` of each camera is"}
POSE_LENGTH = 6


@dataclass(frozen=True)
class SiteCamera:
    """One camera. parameters: of its encoder. pose: as `camera_poses` takes it, or empty."""

    name: str
    parameters: dict[str, Value]
    pose: str = ""
    host: str = ""
    enabled: bool = True


@dataclass(frozen=True)
class SiteServer:
    """The server. parameters: each goes to every node of it that has one of that name."""

    parameters: dict[str, Value] = field(default_factory=dict)
    host: str = ""
    name: str = ""
    tracker: bool = True
    separate: bool = False


@dataclass(frozen=True)
class Site:
    """What a file says, in its order."""

    path: Path
    cameras: tuple[SiteCamera, ...]
    server: SiteServer

    def cameras_of(self, host: str) -> list[SiteCamera]:
        """The enabled cameras that belong on a host; those without one belong on each."""
        return [c for c in self.cameras if c.enabled and c.host in ("", host)]


def read_site(path: str | Path) -> Site:
    """Read a file of cameras. Raises UsageError, which names the key, for what cannot be.

    Paths of lenses, poses, models and sources are relative to the file's folder.
    """
    file = Path(path).expanduser()
    try:
        content = _load(file)
        _check_keys(content, "", ("cameras", "defaults", "server"))
        shared = _mapping(content, "", "defaults")
        _check_keys(shared, "defaults", SHARED_KEYS)
        entries = _mapping(content, "", "cameras")
        if not entries:
            raise UsageError("cameras: expected at least one camera, found none")
        cameras = tuple(
            _camera(name, entry, shared, file.parent) for name, entry in entries.items()
        )
        if not any(camera.enabled for camera in cameras):
            raise UsageError("cameras: expected one that is enabled, found none")
        return Site(file, cameras, _server(_mapping(content, "", "server"), file.parent))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def this_host() -> str:
    """The name of this host, as `host` of a camera has it."""
    return socket.gethostname()


def site_graph(site: Site, part: str = BOTH, host: str = "") -> list[NodeSpec]:
    """The nodes that belong on a host.

    part: one of PARTS; host: empty for this one. Raises UsageError if there are none.
    """
    if part not in PARTS:
        raise UsageError(f"start: expected one of {', '.join(PARTS)}, found {part!r}")
    host = host or this_host()
    specs: list[NodeSpec] = []
    if part != SERVER:
        specs += [encoder_spec(c.name, c.parameters) for c in site.cameras_of(host)]
    if part != CAMERAS and site.server.host in ("", host):
        specs += _server_nodes(site)
    if not specs:
        hosts = sorted({c.host for c in site.cameras} | {site.server.host} - {""})
        raise UsageError(
            f"{site.path}: expected something to start on host {host}, found hosts "
            f"{', '.join(hosts)}"
        )
    return specs


def _server_nodes(site: Site) -> list[NodeSpec]:
    server, cameras = site.server, [camera for camera in site.cameras if camera.enabled]
    values: dict[str, Any] = {"cameras": [camera.name for camera in cameras]}
    models = dict.fromkeys(str(c.parameters.get("model", "")) for c in cameras)
    if any(models):
        default = parameters_of(ENCODER)["model"].default
        values["models"] = list(dict.fromkeys(model or default for model in models))
    if poses := [f"{camera.name}: {camera.pose}" for camera in cameras if camera.pose]:
        values["camera_poses"] = poses
    specs = server_specs({**values, **server.parameters}, server.name)
    specs = [spec for spec in specs if server.tracker or spec.executable != TRACKER]
    return specs if server.separate else joined(specs)


# Reading


def _load(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise UsageError("PyYAML, which is part of ROS 2, is not installed") from None
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
        _refuse_doubles(tree, "")
        content = None if tree is None else yaml.SafeLoader("").construct_document(tree)
    except (*YAML_FAULTS, yaml.YAMLError) as error:
        raise UsageError(
            f"expected a file of cameras (YAML), found: {reason_of(error)}"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"expected the keys cameras, defaults and server, found {content!r}")
    return content


def _refuse_doubles(node: Any, where: str) -> None:
    """Raise UsageError for a duplicate key: YAML would silently keep the last one."""
    for item in node.value if node is not None and node.id != "scalar" else ():
        if node.id == "sequence":
            _refuse_doubles(item, where)
            continue
        key, value = item
        name = _join(where, str(key.value))
        if sum(other.value == key.value for other, _ in node.value) > 1:
            raise UsageError(f"{name}: expected it once, found it twice")
        _refuse_doubles(value, name)


def _camera(name: Any, entry: Any, shared: Mapping[str, Any], folder: Path) -> SiteCamera:
    where = f"cameras.{name}"
    if not isinstance(name, str):
        raise UsageError(f"cameras: expected a name (in quotes?), found {name!r}")
    try:
        check_camera_name(name)
    except UsageError as error:
        raise UsageError(f"cameras: {error}") from error
    own = {} if entry is None else entry
    _check_keys(own, where, CAMERA_KEYS)
    merged = {**shared, **own}
    given = {
        **_mapping(shared, "defaults", "parameters"),
        **_mapping(own, where, "parameters"),
    }
    for key, parameter in SHORT.items():
        if parameter in given and key in merged:
            raise UsageError(f"{where}: expected {key} or parameters.{parameter}, found both")
    known = parameters_of(ENCODER)
    parameters: dict[str, Value] = {}
    for key, value in given.items():
        label = f"{where}.parameters.{key}"
        if key not in known:
            raise UsageError(
                f"{label}: expected a parameter of {ENCODER}, found none of that name"
                f"{meant(key, known)}"
            )
        parameters[key] = _value(known[key], value, label)
    for key, parameter in SHORT.items():
        if merged.get(key) is not None:
            parameters[parameter] = _value(known[parameter], merged[key], f"{where}.{key}")
    for parameter in ("camera_info_file", "source", "model", "regions"):
        if parameter in parameters:
            parameters[parameter] = _placed(
                str(parameters[parameter]), folder, always=parameter == "camera_info_file"
            )
    return SiteCamera(
        name,
        parameters,
        pose=_pose(merged.get("pose"), f"{where}.pose", folder),
        host=_text(merged, where, "host"),
        enabled=_flag(merged, where, "enabled", default=True),
    )


def _server(entry: Mapping[str, Any], folder: Path) -> SiteServer:
    _check_keys(entry, "server", SERVER_KEYS)
    parameters: dict[str, Value] = {}
    for name, value in _mapping(entry, "server", "parameters").items():
        label = f"server.parameters.{name}"
        if name in DERIVED:
            raise UsageError(f"{label}: expected none ({DERIVED[name]} taken), found {value!r}")
        users = [n for n in SERVER_EXECUTABLES if name in parameters_of(n)]
        if not users:
            known = {name for node in SERVER_EXECUTABLES for name in parameters_of(node)}
            raise UsageError(
                f"{label}: expected a parameter of {', '.join(SERVER_EXECUTABLES)}, found none "
                f"of that name{meant(name, known)}"
            )
        for node in users:
            parameters[name] = _value(parameters_of(node)[name], value, label)
    if "weights" in parameters:
        parameters["weights"] = _placed(str(parameters["weights"]), folder)
    server = SiteServer(
        parameters,
        host=_text(entry, "server", "host"),
        name=_text(entry, "server", "name"),
        tracker=_flag(entry, "server", "tracker", default=True),
        separate=_flag(entry, "server", "separate", default=False),
    )
    try:
        server_specs({}, server.name)
    except UsageError as error:
        raise UsageError(f"server.name: {error}") from error
    return server


def _value(parameter: Any, value: Any, label: str) -> Value:
    try:
        converted: Value = parameter.coerce(value)
    except UsageError as error:
        sentence = str(error).removeprefix(f"parameter {parameter.name}: ")
        raise UsageError(f"{label}: {sentence}") from error
    return converted


def _pose(value: Any, label: str, folder: Path) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        return _placed(value, folder, always=True)
    words = value.split() if isinstance(value, str) else value
    try:
        numbers = [float(word) for word in words]
        if len(numbers) == POSE_LENGTH and all(abs(n) < float("inf") for n in numbers):
            return " ".join(repr(number) for number in numbers)
    except (TypeError, ValueError):
        pass
    raise UsageError(
        f"{label}: expected [x, y, z, roll, pitch, yaw] in metres and radians, or a .yaml file, "
        f"found {value!r}"
    )


def _placed(text: str, folder: Path, *, always: bool = False) -> str:
    """Make a path absolute that is relative to a folder; other values are unchanged.

    always: the value is a path or an address; else only if the file exists.
    """
    if text.isdigit() or "://" in text or Path(text).expanduser().is_absolute() or not text:
        return text
    placed = folder.absolute() / text
    return str(placed) if always or placed.is_file() or placed.is_dir() else text


def _mapping(content: Mapping[str, Any], where: str, key: str) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{_join(where, key)}: expected keys and values, found {value!r}")
    return value


def _text(content: Mapping[str, Any], where: str, key: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise UsageError(f"{_join(where, key)}: expected a name, found {value!r}")
    return value


def _flag(content: Mapping[str, Any], where: str, key: str, *, default: bool) -> bool:
    value = content.get(key, default)
    if not isinstance(value, bool):
        raise UsageError(f"{_join(where, key)}: expected true or false, found {value!r}")
    return value


def _check_keys(content: Any, where: str, known: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected keys among {', '.join(known)}, found {content!r}")
    for key in content:
        if key not in known:
            raise UsageError(
                f"{_join(where, str(key))}: expected keys among {', '.join(known)}, found {key!r}"
                f"{meant(str(key), known)}"
            )


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
