# SPDX-License-Identifier: Apache-2.0
"""Declares the parameters of `config.parameters` in a ROS node and applies live changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config.parameter_values import Parameter, Value, meant
from roi_codec_ros.config.parameters import NODE_PARAMETERS

_ROS_TYPES = {
    "string": ParameterType.PARAMETER_STRING,
    "integer": ParameterType.PARAMETER_INTEGER,
    "double": ParameterType.PARAMETER_DOUBLE,
    "bool": ParameterType.PARAMETER_BOOL,
    "string_array": ParameterType.PARAMETER_STRING_ARRAY,
}


def declare(node: Node, parameter: Parameter) -> Value:
    """Declare a parameter and return its value, as given or its default. Raises UsageError."""
    descriptor = _descriptor(parameter)
    try:
        declared = node.declare_parameter(parameter.name, parameter.default, descriptor)
        if declared.value is not None:
            return parameter.coerce(declared.value)
        node.undeclare_parameter(parameter.name)
    except (InvalidParameterTypeException, InvalidParameterValueException):
        pass
    # The value has another type (source:=0, rate_hz:=10): convert it if that is lossless.
    anything = ParameterDescriptor(dynamic_typing=True)
    given = node.declare_parameter(parameter.name, None, anything).value
    node.undeclare_parameter(parameter.name)
    # An empty list has no type, so that ROS passes it as an unset value.
    value = parameter.coerce([] if given is None else given)
    node.declare_parameter(parameter.name, value, descriptor, ignore_override=True)
    return value


def strangers(node: Node) -> list[str]:
    """Names that a node was given values for, and that no node of this package has.

    ROS drops them in silence. A file's `/**` is for all nodes: what others have is none.
    """
    given = getattr(node, "_parameter_overrides", {})  # rclpy shows them nowhere else
    known = {
        name for parameters in NODE_PARAMETERS.values() for name in [p.name for p in parameters]
    }
    return [
        f"parameter {name}: expected one that this node has, found none of that name"
        f"{meant(name, known)}"
        for name in given
        if name not in known
        and not node.has_parameter(name)
        and not name.startswith("qos_overrides.")
    ]


def whole_numbers_as_doubles(
    declared: Mapping[str, Parameter], changes: Sequence[RosParameter]
) -> list[RosParameter]:
    """Accept 10 for 10.0, as at start: ROS itself refuses another type."""
    return [
        RosParameter(change.name, value=float(change.value))
        if change.type_ == RosParameter.Type.INTEGER
        and change.name in declared
        and declared[change.name].type == "double"
        else change
        for change in changes
    ]


def accepted(
    declared: Mapping[str, Parameter], changes: Sequence[RosParameter], *, configured: bool
) -> dict[str, Value]:
    """The new values of declared parameters. Raises UsageError for an invalid one."""
    values = {}
    for change in changes:
        parameter = declared.get(change.name)
        if parameter is None:
            continue
        values[change.name] = parameter.coerce(change.value)
        if configured and not parameter.live:
            raise UsageError(
                f"parameter {change.name}: expected an unconfigured node to change it "
                "(ros2 lifecycle set NODE deactivate, cleanup), found a configured one"
            )
    return values


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        name=parameter.name, type=_ROS_TYPES[parameter.type], description=parameter.description
    )
    if parameter.choices:
        descriptor.additional_constraints = "one of " + ", ".join(parameter.choices)
    if not parameter.live:
        separator = "; " if descriptor.additional_constraints else ""
        descriptor.additional_constraints += f"{separator}only while unconfigured"
    if parameter.range is not None:
        low, high = parameter.range
        if parameter.type == "integer":
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return descriptor
