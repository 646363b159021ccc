# SPDX-License-Identifier: Apache-2.0
"""The graph as plain data: which nodes, with which names and parameters.

    /<camera>/encoder ─ /<camera>/latent ─► /decoder ─ /<camera>/anonymized/image ─► /detector
    /detector ─ /<camera>/persons ─► /tracker ─► /persons/{tracks,poses,cloud,coverage,markers}

A graph lists nodes, each as a process of its own; `joined` puts decoder and detector into one.
The launch files, the demo and the tests start what these functions return. A spec holds only the
parameters that were given; any other keeps the value of a parameters file, else its default.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config import security
from roi_codec_ros.config.parameter_values import Value, meant, yaml_value
from roi_codec_ros.config.parameters import check_camera_name, check_camera_names, parameters_of

PACKAGE = "roi_codec_ros"
ENCODER, DECODER, DETECTOR, TRACKER, SERVER, WATCHDOG = (
    "encoder_node",
    "decoder_node",
    "detector_node",
    "tracker_node",
    "server_node",
    "watchdog_node",
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
        return arguments

    def told(self, spec: NodeSpec) -> NodeSpec:
        """The same nodes with the parameters among these options, which every node has."""
        if not self.use_sim_time:
            return spec
        if spec.nodes:
            return replace(spec, nodes=tuple(map(self.told, spec.nodes)))
        simulated: Value = flag(vars(self), "use_sim_time")
        return replace(spec, parameters={**spec.parameters, "use_sim_time": simulated})

    def environment(self) -> dict[str, str]:
        """Environment variables to add."""
        return security.environment(self.keystore)


def camera_graph(
    name: str = "camera", source: str = "0", model: str = "fast", **encoder_parameters: Any
) -> list[NodeSpec]:
    """What runs on one camera: its encoder, in the camera's namespace.

    Raises UsageError for a name that is no ROS name, an unknown parameter or a wrong value.
    """
    return [encoder_spec(name, {"source": source, "model": model, **encoder_parameters})]


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
    return server_specs(given, server_name)


def watchdog_graph(**parameters: Any) -> list[NodeSpec]:
    """What runs on a robot: the watchdog that stops it. Raises UsageError as camera_graph does."""
    return [node_spec(WATCHDOG, "person_watchdog", "/", parameters)]


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
    spec = spec if options is None else options.told(spec)
    argv = [sys.executable, "-m", f"{PACKAGE}.nodes.{spec.executable}", "--ros-args"]
    argv += name_arguments(spec)
    if options is not None:
        params_file = params_file or options.params_file or None
    if params_file is not None:
        argv += ["--params-file", str(params_file)]
    if options is not None:
        argv += options.ros_arguments(spec)
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
        # alone; rules do not support namespaces.
        prefix = f"{node.name}:" if node.namespace == "/" else ""
        for name, value in node.parameters.items():
            argv += ["-p", f"{prefix}{name}:={yaml_value(value)}"]
    return argv


def encoder_spec(name: str, given: Mapping[str, Any]) -> NodeSpec:
    """A camera's encoder with the given parameters alone. Raises UsageError as camera_graph."""
    check_camera_name(name)
    return node_spec(ENCODER, "encoder", "/" + name, given)


def server_specs(given: Mapping[str, Any], server_name: str = "") -> list[NodeSpec]:
    """The server's nodes; each gets those of the given parameters that it has, and no others."""
    if not _SERVER_NAME.match(server_name):
        raise UsageError(
            f"server_name: expected letters, digits and underscores, found {server_name!r}"
        )
    suffix = f"_{server_name}" if server_name else ""
    return [
        node_spec(
            executable,
            executable.removesuffix("_node") + suffix,
            "/",
            for_node(executable, given),
        )
        for executable in SERVER_EXECUTABLES
    ]


def node_spec(executable: str, name: str, namespace: str, given: Mapping[str, Any]) -> NodeSpec:
    """One node with the given parameters. Raises UsageError for unknown ones and wrong values."""
    known = parameters_of(executable)
    _refuse_unknown(given, known)
    return NodeSpec(
        executable,
        name,
        namespace,
        {key: known[key].coerce(value) for key, value in given.items()},
    )


def for_node(executable: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given parameters that a node has."""
    known = parameters_of(executable)
    return {name: value for name, value in given.items() if name in known}


def _refuse_unknown(given: Mapping[str, Any], known: Any) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UsageError(
            f"expected parameters among {', '.join(sorted(known))}, found "
            + ", ".join(f"{name}{meant(name, known)}" for name in unknown)
        )


def flag(given: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """An argument that is true or false; raises UsageError for anything else."""
    text = given.get(name, "")
    if text.lower() not in ("", "true", "false"):
        raise UsageError(f"{name}: expected true or false, found {text!r}")
    return text.lower() == "true" if text else default
