# SPDX-License-Identifier: Apache-2.0
"""Starts ROS in a process and reports errors in one line.

ROS itself spreads its messages over a log and an exception, with source locations.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import rclpy
import rclpy.logging
import rclpy.utilities
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos_overriding_options import InvalidQosOverridesError

from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of

LARGEST_DOMAIN = 232  # the last one with valid ports
_PLACE = re.compile(r", at \S+:\d+")  # source location of an error in rcl
# Exceptions of creating nodes, publishers and subscriptions for invalid names, values and QoS.
REFUSALS = (
    NameValidationException,
    ParameterException,
    InvalidQosOverridesError,
    RuntimeError,
    ValueError,
    AssertionError,
)
_WHILE = re.compile(r"^(failed to [a-z ]+|Failed to parse ROS arguments): ")


def middleware_name() -> str:
    """The middleware of nodes in this environment, for example ``rmw_fastrtps_cpp``."""
    return str(rclpy.utilities.get_rmw_implementation_identifier())


def start_ros(args: Sequence[str] | None) -> None:
    """rclpy.init with arguments (None: the process's own).

    Raises UsageError for invalid arguments or environment, RoiCodecError for any other failure.
    """
    _check_domain(os.environ.get("ROS_DOMAIN_ID", ""))
    _check_keystore(os.environ)
    _check_arguments(args)
    try:
        rclpy.init(args=None if args is None else list(args))
    except Exception as error:
        raise RoiCodecError(f"expected ROS to start, found: {ros_sentence(error)}") from error


def refusal(what: str, error: Exception) -> RoiCodecError:
    """Convert one of REFUSALS to our error; UsageError unless the middleware is the cause.

    what: the entity, for example "topic /front/persons".
    """
    sentence = f"{what}: expected what ROS can make, found: {ros_sentence(error)}"
    if isinstance(error, rclpy_implementation.RCLError):
        return RoiCodecError(sentence)
    return UsageError(sentence)


def ros_sentence(error: Exception) -> str:
    """The message of a ROS error in one line, without source locations."""
    return _WHILE.sub("", _PLACE.sub("", reason_of(error))).rstrip(" .")


def _check_arguments(args: Sequence[str] | None) -> None:
    """Have ROS parse the arguments separately, to tell argument errors from later ones."""
    given = list(sys.argv if args is None else args)
    _check_files(given)
    # rcl logs only half of the message; the exception has all of it.
    rclpy.logging.set_logger_level("rcl", rclpy.logging.LoggingSeverity.FATAL)
    try:
        rest = rclpy.utilities.remove_ros_args(given)
    except rclpy_implementation.UnknownROSArgsError as error:
        raise UsageError(f"expected arguments that ROS knows, found {error}") from error
    except Exception as error:
        raise UsageError(
            f"expected arguments that ROS can read, found: {ros_sentence(error)}"
        ) from error
    finally:
        rclpy.logging.set_logger_level("rcl", rclpy.logging.LoggingSeverity.UNSET)
    own = given[1 if args is None else 0 :]  # without the program name
    before = own[: own.index("--ros-args")] if "--ros-args" in own else own
    if strangers := before or rest[len(given) - len(own) :]:
        raise UsageError(
            f"expected --ros-args and then arguments for ROS, found {' '.join(strangers)}"
        )


def _check_files(given: Sequence[str]) -> None:
    for option, path in itertools.pairwise(given):
        if option == "--params-file" and not Path(path).is_file():
            raise UsageError(f"--params-file: expected a file, found none at {path}")


def _check_domain(domain: str) -> None:
    domain = domain.strip()
    if domain and not (domain.isdecimal() and int(domain) <= LARGEST_DOMAIN):
        raise UsageError(
            f"ROS_DOMAIN_ID: expected a whole number up to {LARGEST_DOMAIN}, found {domain!r}"
        )


def _check_keystore(environment: os._Environ[str]) -> None:
    keystore = environment.get("ROS_SECURITY_KEYSTORE", "")
    if environment.get("ROS_SECURITY_ENABLE") != "true" or environment.get(
        "ROS_SECURITY_ENCLAVE_OVERRIDE"
    ):
        return
    if not keystore:
        raise UsageError("ROS_SECURITY_KEYSTORE: expected a keystore, found none named")
    if not (Path(keystore) / "enclaves").is_dir():
        raise UsageError(f"ROS_SECURITY_KEYSTORE: expected a keystore, found none in {keystore}")
