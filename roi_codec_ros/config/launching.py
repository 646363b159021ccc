# SPDX-License-Identifier: Apache-2.0
"""The launch files: their arguments, and the nodes that these make (bringup.py).

What is not given leaves a parameters file's value, else the node's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config.bringup import (
    ENCODER,
    LOG_LEVELS,
    PACKAGE,
    SERVER_EXECUTABLES,
    TRACKER,
    NodeSpec,
    ProcessOptions,
    for_node,
    joined,
    name_arguments,
    node_spec,
    parameter_arguments,
    server_specs,
)
from roi_codec_ros.config.parameters import (
    NODE_PARAMETERS,
    Parameter,
    Value,
    check_camera_name,
    check_camera_names,
    yaml_value,
)


@dataclass(frozen=True)
class LaunchArgument:
    """An argument of a launch file; an empty default means that the node's own value stands."""

    name: str
    description: str
    default: str = ""
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
    name = _text(values.pop("name", "camera"))
    check_camera_name(name)
    return [node_spec(ENCODER, "encoder", "/" + name, values)]


def server_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the arguments of server.launch.py; what is not given stays the nodes' own."""
    values = _with_good_cameras(_given(given, server_arguments()))
    specs = server_specs(values, given.get("server_name", ""))
    with_tracker = _flag(given, "tracker", default=True)
    return [spec for spec in specs if with_tracker or spec.executable != TRACKER]


def tracker_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The node for the arguments of tracker.launch.py."""
    values = _with_good_cameras(_given(given, tracker_arguments()))
    return [node_spec(TRACKER, "tracker", "/", values)]


def demo_launch(given: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the arguments of demo.launch.py."""
    values = _given(given, demo_arguments())
    name = _text(values.pop("name", "camera"))
    check_camera_name(name)
    server: dict[str, Any] = {**values, "cameras": [name]}
    if "model" in values:
        server["models"] = [values["model"]]
    return [
        node_spec(ENCODER, "encoder", "/" + name, for_node(ENCODER, values)),
        *server_specs(server),
    ]


LAUNCHES = {
    "camera": (camera_arguments, camera_launch),
    "server": (server_arguments, server_launch),
    "tracker": (tracker_arguments, tracker_launch),
    "demo": (demo_arguments, demo_launch),
}


def launch_description(kind: str) -> Any:
    """The launch.LaunchDescription of one of LAUNCHES (needs ROS's launch)."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch_ros.actions import Node

    from launch import LaunchDescription

    arguments, build = LAUNCHES[kind]

    def nodes(context: Any) -> list[Any]:
        given = {
            argument.name: context.launch_configurations[argument.name] for argument in arguments()
        }
        options = _process_options(given)
        files = [options.params_file] if options.params_file else []
        specs = build(given)
        return [
            Node(
                package=PACKAGE,
                executable=spec.executable,
                # Names of several nodes in one process are arguments.
                name=None if spec.nodes else spec.name,
                namespace=None if spec.nodes else spec.namespace,
                parameters=[*files, *([spec.parameters] if spec.parameters else [])],
                remappings=list(spec.remappings),
                ros_arguments=[
                    *options.ros_arguments(spec),
                    *([*name_arguments(spec), *parameter_arguments(spec)] if spec.nodes else []),
                ],
                additional_env=options.environment(),
                output="screen",
            )
            for spec in (specs if _flag(given, "separate") else joined(specs))
        ]

    declared = [
        DeclareLaunchArgument(
            argument.name, default_value=argument.default, description=argument.description
        )
        for argument in arguments()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])


def _process_arguments() -> list[LaunchArgument]:
    """One for each field of ProcessOptions."""
    return [
        LaunchArgument(
            "params_file",
            "Parameters file (YAML) that all nodes of this launch file read; empty: none.",
        ),
        LaunchArgument(
            "log_level",
            f"Least severity to log: {', '.join(LOG_LEVELS)}; empty: ROS's own (info).",
        ),
        LaunchArgument(
            "keystore",
            "SROS2 keystore to run secured with, as scripts/security_keystore makes it: nodes "
            "then refuse to run without their enclave. Empty: whatever ROS_SECURITY_… say.",
        ),
    ]


def _process_options(given: Mapping[str, str]) -> ProcessOptions:
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
            LaunchArgument(name, description, parameters=tuple(user[1] for user in users))
        )
    return arguments


def _given(texts: Mapping[str, str], arguments: Sequence[LaunchArgument]) -> dict[str, Value]:
    """The arguments that were given, in their parameters' types."""
    values: dict[str, Value] = {}
    of_processes = {option.name for option in fields(ProcessOptions)}
    for argument in arguments:
        text = texts.get(argument.name, "")
        if text == "" or argument.name in of_processes | {"server_name", "tracker", "separate"}:
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


def _flag(given: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """An argument that is true or false; raises UsageError for anything else."""
    text = given.get(name, "")
    if text.lower() not in ("", "true", "false"):
        raise UsageError(f"{name}: expected true or false, found {text!r}")
    return text.lower() == "true" if text else default


def _text(value: Value) -> str:
    return value if isinstance(value, str) else str(value)
