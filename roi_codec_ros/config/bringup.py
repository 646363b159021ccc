# SPDX-License-Identifier: Apache-2.0
"""The graph as plain data: which nodes, with which names and parameters.

    /<camera>/encoder ─ /<camera>/latent ─► /decoder ─ /<camera>/image_anonymized ─► /detector
    /detector ─ /<camera>/persons ─► /tracker ─► /persons/{tracks,poses,cloud,coverage,markers}

A graph lists nodes, each as a process of its own; `joined` puts decoder and detector into one.
The launch files, the demo and the tests start what these functions return. A spec holds only the
parameters that were given; any other keeps the value of a parameters file, else its default.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config import security
from roi_codec_ros.config.parameters import (
    NODE_PARAMETERS,
    Parameter,
    Value,
    check_camera_name,
    check_camera_names,
    parameters_of,
    yaml_value,
)

PACKAGE = "roi_codec_ros"
ENCODER, DECODER, DETECTOR, TRACKER, SERVER = (
    "encoder_node",
    "decoder_node",
    "detector_node",
    "tracker_node",
    "server_node",
)
SERVER_EXECUTABLES = (DECODER, DETECTOR, TRACKER)
JOINED_EXECUTABLES = (DECODER, DETECTOR)  # what a server_node holds
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
_NAMESPACE = re.compile(r"/?([A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*)?/?\Z")
_SERVER_NAME = re.compile(r"[A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class NodeSpec:
    """One process, of one node or of several.

    executable: as installed, for example "encoder_node". namespace: absolute, "/" or "/camera1".
    parameters: the given ones only, by name. remappings: pairs of (from, to). nodes: those of a
    process that holds several; it then has a name, for its enclave, and nothing else of its own.
    """

    executable: str
    name: str
    namespace: str
    parameters: dict[str, Value]
    remappings: tuple[tuple[str, str], ...] = ()
    nodes: tuple[NodeSpec, ...] = ()

    @property
    def full_name(self) -> str:
        """Absolute node name, for example "/camera1/encoder"."""
        return f"{self.namespace.rstrip('/')}/{self.name}"


@dataclass(frozen=True)
class ProcessOptions:
    """What goes with a process, whichever node it runs.

    params_file: path, log_level: one of LOG_LEVELS, keystore: SROS2 keystore that the process is
    to run secured with, use_sim_time: "true" or "false"; each may be empty. Raises UsageError for
    other values, and for a params_file that is not there, which ROS's launch passes over with a
    warning.
    """

    params_file: str = ""
    log_level: str = ""
    keystore: str = ""
    use_sim_time: str = ""

    def __post_init__(self) -> None:
        if self.log_level and self.log_level not in LOG_LEVELS:
            raise UsageError(
                f"log_level: expected one of {', '.join(LOG_LEVELS)}, found {self.log_level!r}"
            )
        flag({"use_sim_time": self.use_sim_time}, "use_sim_time")
        if self.params_file and not Path(self.params_file).is_file():
            raise UsageError(f"params_file: expected a file, found none at {self.params_file}")

    def ros_arguments(self, spec: NodeSpec) -> list[str]:
        """What follows --ros-args for a node. Raises UsageError if its enclave is not there."""
        arguments = ["--log-level", self.log_level] if self.log_level else []
        if self.keystore:
            security.check_enclave(self.keystore, spec.full_name)
            arguments += ["--enclave", spec.full_name]
        if self.use_sim_time:
            arguments += ["-p", f"use_sim_time:={self.use_sim_time.lower()}"]
        return arguments

    def environment(self) -> dict[str, str]:
        """Environment variables to add."""
        return security.environment(self.keystore)


def camera_graph(
    name: str = "camera", source: str = "0", model: str = "fast", **encoder_parameters: Any
) -> list[NodeSpec]:
    """What runs on one camera: its encoder, in the camera's namespace.

    Raises UsageError for a name that is no ROS name, an unknown parameter or a wrong value.
    """
    return [_camera(name, {"source": source, "model": model, **encoder_parameters})]


def server_graph(
    cameras: Sequence[str],
    *,
    models: Sequence[str] = ("fast",),
    detector: str = "",
    server_name: str = "",
    **parameters: Any,
) -> list[NodeSpec]:
    """What runs on the server: decoder, detector and tracker for all cameras.

    detector: path of YOLO weights; empty lets the node search. server_name: where there are
    several servers; its nodes are then called decoder_<server_name> and so on. Every other keyword
    goes to each of the three nodes that has a parameter of that name. Raises UsageError as
    camera_graph does.
    """
    check_camera_names(cameras)
    given = {"cameras": list(cameras), "models": list(models), **parameters}
    if detector:
        given["weights"] = detector
    known = {parameter for node in SERVER_EXECUTABLES for parameter in parameters_of(node)}
    _refuse_unknown(given, known)
    return _server(given, server_name)


def joined(specs: Sequence[NodeSpec]) -> list[NodeSpec]:
    """The same nodes with decoder and detector in one process, where both are among them.

    No image then crosses DDS from one to the other.
    """
    held = tuple(spec for spec in specs if spec.executable in JOINED_EXECUTABLES)
    if tuple(spec.executable for spec in held) != JOINED_EXECUTABLES:
        return list(specs)
    name = held[0].name.replace("decoder", "server", 1)
    process = NodeSpec(SERVER, name, held[0].namespace, {}, nodes=held)
    return [process if spec is held[0] else spec for spec in specs if spec not in held[1:]]


def demo_graph(
    cameras: Mapping[str, str],
    *,
    model: str = "fast",
    detector: str = "",
    camera_parameters: Mapping[str, Any] | None = None,
    server_parameters: Mapping[str, Any] | None = None,
) -> list[NodeSpec]:
    """Cameras and server on one machine. cameras: name → source."""
    specs = [
        spec
        for name, source in cameras.items()
        for spec in camera_graph(name, source, model, **dict(camera_parameters or {}))
    ]
    return specs + server_graph(
        list(cameras), models=[model], detector=detector, **dict(server_parameters or {})
    )


def moved(specs: Sequence[NodeSpec], namespace: str) -> list[NodeSpec]:
    """The same nodes under a namespace. Raises UsageError for one that ROS does not take."""
    if not _NAMESPACE.match(namespace):
        raise UsageError(f"namespace: expected names between slashes, found {namespace!r}")
    base = "/" + namespace.strip("/")
    return [
        replace(
            spec,
            namespace=f"{base.rstrip('/')}{spec.namespace}".rstrip("/") or "/",
            nodes=tuple(moved(spec.nodes, namespace)),
        )
        for spec in specs
    ]


def command(
    spec: NodeSpec,
    params_file: str | Path | None = None,
    options: ProcessOptions | None = None,
) -> list[str]:
    """The argv that starts a spec as a process of this Python, no launch system needed.

    options: their environment is for the caller to add.

    The spec's parameters win over the params_file, except over a section that the file writes
    under the full name of a node in a namespace (ROS reads those last).
    """
    argv = [sys.executable, "-m", f"{PACKAGE}.nodes.{spec.executable}", "--ros-args"]
    argv += name_arguments(spec)
    if options is not None:
        argv += options.ros_arguments(spec)
        params_file = params_file or options.params_file or None
    if params_file is not None:
        argv += ["--params-file", str(params_file)]
    return argv + parameter_arguments(spec)


def name_arguments(spec: NodeSpec) -> list[str]:
    """Arguments that give a process's nodes their names and remappings."""
    argv = []
    for node in spec.nodes or (spec,):
        # A rule for one node of several begins with its name: for this one, as the code has it.
        made = f"{node.executable.removesuffix('_node')}:" if spec.nodes else ""
        called = f"{node.name}:" if spec.nodes else ""
        argv += ["-r", f"{made}__node:={node.name}", "-r", f"{made}__ns:={node.namespace}"]
        for source, target in node.remappings:
            argv += ["-r", f"{called}{source}:={target}"]
    return argv


def parameter_arguments(spec: NodeSpec) -> list[str]:
    """Arguments that give a process's nodes their parameters."""
    argv = []
    for node in spec.nodes or (spec,):
        # A rule that names the node wins over a file's section of that name, and is for that node
        # alone; rules know no namespaces.
        prefix = f"{node.name}:" if node.namespace == "/" else ""
        for name, value in node.parameters.items():
            argv += ["-p", f"{prefix}{name}:={yaml_value(value)}"]
    return argv


def _camera(name: str, given: Mapping[str, Any]) -> NodeSpec:
    check_camera_name(name)
    return _node(ENCODER, "encoder", "/" + name, given)


def _server(given: Mapping[str, Any], server_name: str = "") -> list[NodeSpec]:
    if not _SERVER_NAME.match(server_name):
        raise UsageError(
            f"server_name: expected letters, digits and underscores, found {server_name!r}"
        )
    suffix = f"_{server_name}" if server_name else ""
    return [
        _node(
            executable,
            executable.removesuffix("_node") + suffix,
            "/",
            _for_node(executable, given),
        )
        for executable in SERVER_EXECUTABLES
    ]


def _node(executable: str, name: str, namespace: str, given: Mapping[str, Any]) -> NodeSpec:
    known = parameters_of(executable)
    _refuse_unknown(given, known)
    return NodeSpec(
        executable,
        name,
        namespace,
        {key: known[key].coerce(value) for key, value in given.items()},
    )


def _for_node(executable: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = parameters_of(executable)
    return {name: value for name, value in given.items() if name in known}


def _refuse_unknown(given: Mapping[str, Any], known: Any) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UsageError(
            f"expected parameters among {', '.join(sorted(known))}, found {', '.join(unknown)}"
        )


# --------------------------------------------------------------------------------- launch files


@dataclass(frozen=True)
class LaunchArgument:
    """An argument of a launch file; an empty default means that the node's own value stands.

    of_machine: it holds for whatever is launched there, and not for one camera or server.
    """

    name: str
    description: str
    default: str = ""
    of_machine: bool = False
    parameters: tuple[Parameter, ...] = field(default=(), repr=False)


SEPARATE = LaunchArgument(
    "separate",
    "true: decoder and detector as a process each, for bags of images and other publishers; "
    "false: both in one, so that no image crosses DDS between them.",
    "false",
)


def camera_arguments() -> list[LaunchArgument]:
    """The arguments of camera.launch.py."""
    own = [
        LaunchArgument(
            "name", "Name of the camera: the namespace that its topics live in.", "camera"
        ),
        *_process_arguments(),
    ]
    return own + _parameter_arguments([ENCODER])


def server_arguments() -> list[LaunchArgument]:
    """The arguments of server.launch.py; `cameras:=front,back` takes names with commas."""
    own = [
        LaunchArgument(
            "server_name",
            "Name of this server, where there are several: its nodes are then called "
            "decoder_<server_name>, detector_<server_name>, tracker_<server_name>.",
        ),
        LaunchArgument(
            "tracker",
            "false: without a tracker, where one follows the cameras of several servers "
            "(tracker.launch.py).",
            "true",
        ),
        SEPARATE,
        *_process_arguments(),
    ]
    return own + _parameter_arguments(SERVER_EXECUTABLES)


def tracker_arguments() -> list[LaunchArgument]:
    """The arguments of tracker.launch.py: one map of the cameras of several servers."""
    return [*_process_arguments(), *_parameter_arguments([TRACKER])]


def demo_arguments() -> list[LaunchArgument]:
    """The arguments of demo.launch.py: one camera and the server on one machine."""
    own = [
        LaunchArgument(
            "name", "Name of the camera: the namespace that its topics live in.", "camera"
        ),
        SEPARATE,
        *_process_arguments(),
    ]
    left_out = {"cameras", "models"}  # they follow from name and model
    arguments = _parameter_arguments([ENCODER, *SERVER_EXECUTABLES])
    return own + [argument for argument in arguments if argument.name not in left_out]


def camera_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the arguments of camera.launch.py, as text; empty text means not given."""
    values = _given(given, camera_arguments())
    return [_camera(str(values.pop("name", "camera")), values)]


def server_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the arguments of server.launch.py; what is not given stays the nodes' own."""
    values = _with_good_cameras(_given(given, server_arguments()))
    specs = _server(values, given.get("server_name", ""))
    with_tracker = flag(given, "tracker", default=True)
    return [spec for spec in specs if with_tracker or spec.executable != TRACKER]


def tracker_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The node for the arguments of tracker.launch.py."""
    values = _with_good_cameras(_given(given, tracker_arguments()))
    return [_node(TRACKER, "tracker", "/", values)]


def demo_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the arguments of demo.launch.py."""
    values = _given(given, demo_arguments())
    name = str(values.pop("name", "camera"))
    server: dict[str, Any] = {**values, "cameras": [name]}
    if "model" in values:
        server["models"] = [values["model"]]
    return [_camera(name, _for_node(ENCODER, values)), *_server(server)]


LAUNCHES = {
    "camera": (camera_arguments, camera_launch),
    "server": (server_arguments, server_launch),
    "tracker": (tracker_arguments, tracker_launch),
    "demo": (demo_arguments, demo_launch),
}


def _process_arguments() -> list[LaunchArgument]:
    """What all launch files take: the fields of ProcessOptions, and how processes are run."""
    return [
        LaunchArgument(
            "params_file",
            "Parameters file (YAML) that all nodes of this launch file read; empty: none.",
        ),
        LaunchArgument(
            "log_level",
            f"Least severity to log: {', '.join(LOG_LEVELS)}; empty: ROS's own (info).",
            of_machine=True,
        ),
        LaunchArgument(
            "keystore",
            "SROS2 keystore to run secured with, as scripts/security_keystore makes it: nodes "
            "then refuse to run without their enclave. Empty: whatever ROS_SECURITY_… say.",
            of_machine=True,
        ),
        LaunchArgument(
            "use_sim_time",
            "true: the time of /clock, for simulations and bags. Empty: the parameters file's, "
            "else false.",
            of_machine=True,
        ),
        LaunchArgument(
            "namespace",
            "Namespace to put everything into, under one that PushRosNamespace pushed unless it "
            "begins with a slash.",
            of_machine=True,
        ),
        LaunchArgument(
            "use_respawn",
            "true: a process that ended is started again, unless it was used wrongly.",
            "false",
            of_machine=True,
        ),
        LaunchArgument(
            "respawn_delay", "Seconds until a process is started again.", "2.0", of_machine=True
        ),
        LaunchArgument(
            "python",
            "Python to run the nodes with; empty: the one that the package was built with.",
            of_machine=True,
        ),
    ]


def process_options(given: Mapping[str, str]) -> ProcessOptions:
    """The options of processes among the arguments of a launch file. Raises UsageError."""
    names = [option.name for option in fields(ProcessOptions)]
    return ProcessOptions(**{name: given.get(name, "") for name in names})


def _parameter_arguments(executables: Sequence[str]) -> list[LaunchArgument]:
    """One argument for each parameter name; nodes that share a name share the argument."""
    by_name: dict[str, list[tuple[str, Parameter]]] = {}
    for executable in executables:
        for parameter in NODE_PARAMETERS[executable]:
            by_name.setdefault(parameter.name, []).append((executable, parameter))
    arguments = []
    for name, users in by_name.items():
        parameter = users[0][1]
        who = ", ".join(executable for executable, _ in users)
        description = (
            f"[{who}, {parameter.type}] {parameter.description} "
            f"Not given: the parameters file's, else {yaml_value(parameter.default)}."
        )
        arguments.append(
            LaunchArgument(
                name,
                description,
                of_machine=name == "autostart",
                parameters=tuple(user[1] for user in users),
            )
        )
    return arguments


def _given(texts: Mapping[str, str], arguments: Sequence[LaunchArgument]) -> dict[str, Value]:
    """The arguments that were given, in their parameters' types."""
    values: dict[str, Value] = {}
    others = {argument.name for argument in _process_arguments()}
    others |= {"server_name", "tracker", "separate"}
    for argument in arguments:
        text = texts.get(argument.name, "")
        if text == "" or argument.name in others:
            continue
        values[argument.name] = (
            argument.parameters[0].coerce(text) if argument.parameters else text
        )
    return values


def _with_good_cameras(values: dict[str, Value]) -> dict[str, Value]:
    """The same values; raises UsageError for `cameras` that no node would take."""
    if isinstance(names := values.get("cameras"), list):
        check_camera_names(names)
    return values


def flag(given: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """An argument that is true or false; raises UsageError for anything else."""
    text = given.get(name, "")
    if text.lower() not in ("", "true", "false"):
        raise UsageError(f"{name}: expected true or false, found {text!r}")
    return text.lower() == "true" if text else default
