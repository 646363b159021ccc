# SPDX-License-Identifier: Apache-2.0
"""The launch files as plain data: which arguments each takes, and which nodes these make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config import site
from roi_codec_ros.config.bringup import (
    ENCODER,
    LOG_LEVELS,
    SERVER_EXECUTABLES,
    TRACKER,
    WATCHDOG,
    NodeSpec,
    ProcessOptions,
    encoder_spec,
    flag,
    for_node,
    node_spec,
    server_specs,
    watchdog_graph,
)
from roi_codec_ros.config.parameter_values import Parameter, Value, yaml_value
from roi_codec_ros.config.parameters import NODE_PARAMETERS, check_camera_names


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
    "true: decoder and detector in a process each, for bags of images and other publishers; "
    "false: both in one process, so that no image crosses DDS between them.",
    "false",
)


def camera_arguments() -> list[LaunchArgument]:
    """The arguments of camera.launch.py."""
    own = [
        LaunchArgument("name", "Name of the camera: the namespace of its topics.", "camera"),
        *_process_arguments(),
    ]
    return own + _parameter_arguments([ENCODER])


def server_arguments() -> list[LaunchArgument]:
    """The arguments of server.launch.py; `cameras:=front,back` takes names with commas."""
    own = [
        LaunchArgument(
            "server_name",
            "Name of this server, if there are several: its nodes are then named "
            "decoder_<server_name>, detector_<server_name>, tracker_<server_name>.",
        ),
        LaunchArgument(
            "tracker",
            "false: no tracker, for when one tracker (tracker.launch.py) follows the cameras of "
            "several servers.",
            "true",
        ),
        SEPARATE,
        *_process_arguments(),
    ]
    return own + _parameter_arguments(SERVER_EXECUTABLES)


def tracker_arguments() -> list[LaunchArgument]:
    """The arguments of tracker.launch.py: one map of the cameras of several servers."""
    return [*_process_arguments(), *_parameter_arguments([TRACKER])]


def watchdog_arguments() -> list[LaunchArgument]:
    """The arguments of watchdog.launch.py, which stops a robot when its cameras fail."""
    return [*_process_arguments(), *_parameter_arguments([WATCHDOG])]


def demo_arguments() -> list[LaunchArgument]:
    """The arguments of demo.launch.py: one camera and the server on one machine."""
    own = [
        LaunchArgument("name", "Name of the camera: the namespace of its topics.", "camera"),
        SEPARATE,
        *_process_arguments(),
    ]
    left_out = {"cameras", "models"}  # they follow from name and model
    arguments = _parameter_arguments([ENCODER, *SERVER_EXECUTABLES])
    return own + [argument for argument in arguments if argument.name not in left_out]


def cameras_arguments() -> list[LaunchArgument]:
    """The arguments of cameras.launch.py: the cameras of a site, described in one file."""
    return [
        LaunchArgument("config", "File that describes the site's cameras (YAML): docs/site.md."),
        LaunchArgument(
            "start",
            "Which part of this host's share to start: cameras, server or both.",
            "both",
        ),
        LaunchArgument(
            "host", "Name of this host in the file's `host` keys; empty: its host name."
        ),
        *_process_arguments(),
    ]


def camera_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the arguments of camera.launch.py, as text; empty text means not given."""
    values = _given(given, camera_arguments())
    return [encoder_spec(str(values.pop("name", "camera")), values)]


def server_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the arguments of server.launch.py; what is not given stays the nodes' own."""
    values = _with_good_cameras(_given(given, server_arguments()))
    specs = server_specs(values, given.get("server_name", ""))
    with_tracker = flag(given, "tracker", default=True)
    return [spec for spec in specs if with_tracker or spec.executable != TRACKER]


def tracker_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The node for the arguments of tracker.launch.py."""
    values = _with_good_cameras(_given(given, tracker_arguments()))
    return [node_spec(TRACKER, "tracker", "/", values)]


def watchdog_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The node for the arguments of watchdog.launch.py."""
    return watchdog_graph(**_given(given, watchdog_arguments()))


def demo_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the arguments of demo.launch.py."""
    values = _given(given, demo_arguments())
    name = str(values.pop("name", "camera"))
    server: dict[str, Any] = {**values, "cameras": [name]}
    if "model" in values:
        server["models"] = [values["model"]]
    return [encoder_spec(name, for_node(ENCODER, values)), *server_specs(server)]


def cameras_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes of a site that belong on this host, for the arguments of cameras.launch.py."""
    if not given.get("config"):
        raise UsageError("config: expected the file of the site's cameras, found none given")
    found = site.read_site(given["config"])
    return site.site_graph(found, given.get("start") or site.BOTH, given.get("host", ""))


LAUNCHES = {
    "camera": (camera_arguments, camera_launch),
    "cameras": (cameras_arguments, cameras_launch),
    "server": (server_arguments, server_launch),
    "tracker": (tracker_arguments, tracker_launch),
    "watchdog": (watchdog_arguments, watchdog_launch),
    "demo": (demo_arguments, demo_launch),
}


def _process_arguments() -> list[LaunchArgument]:
    """What all launch files take: the fields of ProcessOptions, and how processes are run."""
    return [
        LaunchArgument(
            "params_file",
            "Parameters file (YAML) for all nodes of this launch file; empty: none.",
        ),
        LaunchArgument(
            "log_level",
            f"Minimum severity to log: {', '.join(LOG_LEVELS)}; empty: ROS's default (info).",
            of_machine=True,
        ),
        LaunchArgument(
            "keystore",
            "SROS2 keystore, as made by scripts/security_keystore: nodes then refuse to run "
            "without their enclave. Empty: the environment (ROS_SECURITY_…) decides.",
            of_machine=True,
        ),
        LaunchArgument(
            "use_sim_time",
            "true: use the time on /clock, for simulations and bags. Empty: the value of the "
            "parameters file, else false.",
            of_machine=True,
        ),
        LaunchArgument(
            "namespace",
            "Namespace of everything that is started, relative to one pushed by PushRosNamespace "
            "unless it begins with a slash.",
            of_machine=True,
        ),
        LaunchArgument(
            "use_respawn",
            "true: restart a process that exited, unless with status 2 (incorrect use).",
            "false",
            of_machine=True,
        ),
        LaunchArgument(
            "respawn_delay", "Seconds before a process is restarted.", "2.0", of_machine=True
        ),
        LaunchArgument(
            "python",
            "Python interpreter of the nodes; empty: the one that the package was built with.",
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
            f"If not given: from the parameters file, else {yaml_value(parameter.default)}."
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
