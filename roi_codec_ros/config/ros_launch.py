# SPDX-License-Identifier: Apache-2.0
"""What launches.py makes of a launch file's arguments, as ROS's launch system takes it.

Imports nothing but the standard library and, in functions, that system: `ros2 launch` may run
under another Python than the nodes.
"""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.config import params_file
from roi_codec_ros.config.bringup import (
    PACKAGE,
    NodeSpec,
    ProcessOptions,
    flag,
    joined,
    moved,
    name_arguments,
    parameter_arguments,
)
from roi_codec_ros.config.launches import LAUNCHES, LaunchArgument, process_options
from roi_codec_ros.config.parameter_values import meant

WRONG_USE = 2  # exit status of a node that no other try helps
_NAMESPACE = "ros_namespace"  # where launch_ros keeps what PushRosNamespace pushed


class _SpentValue(str):
    """A value that a launch file of this package has been given: it is not for the next one.

    Arguments of an include stay with whoever includes, so that without this a second camera got
    the lens of the first. It is a plain text for anybody else.
    """

    __slots__ = ()


def launch_description(kind: str) -> Any:
    """The launch.LaunchDescription of one of LAUNCHES (needs ROS's launch).

    A process that ends with a status above 0 by itself ends all of the launch, whose status is
    then 1; with use_respawn only if its status is WRONG_USE.
    """
    from launch.actions import (
        DeclareLaunchArgument,
        OpaqueFunction,
        PopLaunchConfigurations,
        PushLaunchConfigurations,
    )

    from launch import LaunchDescription

    make_arguments, build = LAUNCHES[kind]
    arguments = make_arguments()

    def begin(context: Any) -> None:
        _forget_spent(context, kind, arguments)
        _check_names(context, kind, arguments)

    def nodes(context: Any) -> list[Any]:
        configurations = context.launch_configurations
        given = {argument.name: configurations[argument.name] for argument in arguments}
        options = process_options(given)
        specs = build(given)
        if "separate" in given and not flag(given, "separate"):
            specs = joined(specs)
        namespace = _under(configurations.get(_NAMESPACE, ""), given["namespace"])
        specs = moved(specs, namespace)
        names = [node.full_name for spec in specs for node in spec.nodes or (spec,)]
        if options.params_file and (complaint := params_file.unread(options.params_file, names)):
            _log().warning(complaint)
        return [entity for spec in specs for entity in _process(spec, options, given)]

    def end(context: Any) -> None:
        _spend(context, arguments)

    declared = [
        DeclareLaunchArgument(
            argument.name, default_value=argument.default, description=argument.description
        )
        for argument in arguments
    ]
    return LaunchDescription(
        [
            PushLaunchConfigurations(),
            OpaqueFunction(function=begin),
            *declared,
            OpaqueFunction(function=nodes),
            PopLaunchConfigurations(),
            OpaqueFunction(function=end),
        ]
    )


def _process(spec: NodeSpec, options: ProcessOptions, given: dict[str, str]) -> list[Any]:
    """A process, and what watches over its end. Raises UsageError."""
    from launch.actions import RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch_ros.actions import Node

    respawn, spec = flag(given, "use_respawn"), options.told(spec)
    node = Node(
        package=PACKAGE,
        executable=spec.executable,
        # Names of several nodes in one process are arguments.
        name=None if spec.nodes else spec.name,
        namespace=None if spec.nodes else spec.namespace,
        parameters=[
            *([options.params_file] if options.params_file and not spec.nodes else []),
            *([spec.parameters] if spec.parameters else []),
        ],
        remappings=list(spec.remappings),
        ros_arguments=[*_of_several(spec, options.params_file), *options.ros_arguments(spec)],
        additional_env=options.environment(),
        prefix=_prefix(given["python"]),
        respawn=respawn,
        respawn_delay=_seconds("respawn_delay", given["respawn_delay"]),
        output="screen",
    )

    def ended(event: Any, context: Any) -> None:
        status = event.returncode
        if context.is_shutdown or status <= 0 or (respawn and status != WRONG_USE):
            return
        raise RoiCodecError(
            f"expected {spec.full_name} to run, found that it ended with status {status}; "
            "its last line says why"
        )

    return [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended)), node]


def _of_several(spec: NodeSpec, file: str) -> list[str]:
    """ROS arguments of a process that holds several nodes; none for one of a single node.

    The last that is read wins, and launch_ros puts the files among its `parameters` last: the
    file comes here, before what was given.
    """
    if not spec.nodes:
        return []
    given = ["--params-file", file] if file else []
    return [*given, *name_arguments(spec), *parameter_arguments(spec)]


def _forget_spent(context: Any, kind: str, arguments: list[LaunchArgument]) -> None:
    """Leave out what an earlier include was given; what the command line gave holds for all."""
    configurations, command_line = context.launch_configurations, _command_line(context)
    forgotten = []
    for name in (argument.name for argument in arguments):
        if not isinstance(configurations.get(name), _SpentValue):
            continue
        del configurations[name]
        if name in command_line:
            configurations[name] = command_line[name]
        else:
            forgotten.append(name)
    if forgotten:
        _log().info(f"{kind}.launch.py: not taken from an earlier one: {', '.join(forgotten)}")


def _spend(context: Any, arguments: list[LaunchArgument]) -> None:
    configurations = context.launch_configurations
    for argument in arguments:
        if not argument.of_machine and argument.name in configurations:
            configurations[argument.name] = _SpentValue(configurations[argument.name])


def _check_names(context: Any, kind: str, arguments: list[LaunchArgument]) -> None:
    """Name arguments that this launch file does not have: launch drops them in silence.

    Raises UsageError where it is what `ros2 launch` was given. One that is included is told its
    own arguments among everything that those who include it have: of these, a warning for what is
    nearly the name of one.
    """
    known = [argument.name for argument in arguments]
    unknown = [name for name in _command_line(context) if name not in known]
    file = f"{kind}.launch.py"
    if unknown and any(Path(word).name == file for word in sys.argv):
        raise UsageError(
            f"{file}: expected its own arguments (--show-args lists them), found "
            + ", ".join(f"{name!r}{meant(name, known)}" for name in unknown)
        )
    every = {a.name for make_arguments, _ in LAUNCHES.values() for a in make_arguments()}
    for name in sorted({*unknown, *context.launch_configurations} - every - {_NAMESPACE}):
        if question := meant(name, known):
            _log().warning(f"{file} has no argument {name!r}{question}")


def _command_line(context: Any) -> dict[str, str]:
    """The arguments of `ros2 launch`."""
    pairs = (str(text).partition(":=") for text in context.argv)
    return {name: value for name, mark, value in pairs if mark}


def _log() -> Any:
    import launch.logging

    return launch.logging.get_logger(PACKAGE)


def _under(pushed: str, namespace: str) -> str:
    """A namespace under one that was pushed; one that begins with a slash stands by itself.

    A pushed namespace that is also given as the argument is applied once.
    """
    if pushed.strip("/") == namespace.strip("/"):
        return pushed
    return namespace if namespace.startswith("/") else f"{pushed.rstrip('/')}/{namespace}"


def _prefix(python: str) -> str | None:
    """What runs an installed executable with another Python than it names itself."""
    if not python:
        return None
    if shutil.which(python) is None:
        raise UsageError(f"python: expected a Python that can be run, found none at {python}")
    return shlex.quote(python)


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise UsageError(f"{name}: expected seconds, found {text!r}")
    return seconds
