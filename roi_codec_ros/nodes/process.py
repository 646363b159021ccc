# SPDX-License-Identifier: Apache-2.0
"""Runs nodes as a process: starts and spins them, and ends at once on SIGINT and SIGTERM.

Heavy imports come after the signal handlers, so that Ctrl-C during the import of torch ends as
cleanly as later.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roi_codec_ros.nodes.base import ManagedNode


FAILED, WRONG_USE = 1, 2  # exit statuses, as in roi-codec
PROFILE = "fastdds.xml"
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


class _StopSignals:
    """Handles SIGINT and SIGTERM. While the node spins, rclpy's own handler ends the spinning."""

    def __init__(self) -> None:
        self.starting = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self)

    def __call__(self, number: int, frame: object) -> None:
        if self.starting:
            # An exception could be swallowed inside an import; there is nothing to clean up yet.
            os._exit(0)


def run(
    module: str,
    maker: str,
    args: Sequence[str] | None = None,
    *,
    publishes_images: bool = False,
) -> int:
    """Run a node, or several, until SIGINT or SIGTERM; the exit status.

    If a node with autostart cannot start, the status is 2 for wrong use (arguments, parameters,
    environment) and 1 otherwise: a supervisor then knows whether a restart is useful.
    maker: name of the function or class in the module that creates the node or nodes.
    args: None for the process's own; the process then exits instead of returning.
    publishes_images: configure Fast DDS with the shared memory that images need
        (config/fastdds.xml).
    """
    signals = _StopSignals()
    missing = _missing_ros()
    if missing:
        sys.stderr.write(f"{Path(sys.argv[0]).stem}: {missing}\n")
        return FAILED
    if publishes_images:
        make_room_for_images()
    status, ended = _run(module, maker, args, signals)
    if args is None:
        _leave(status, ended)
    return status


def _run(
    module: str, maker: str, args: Sequence[str] | None, signals: _StopSignals
) -> tuple[int, bool]:
    """The exit status, and whether all threads have ended."""
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    from roi_codec_ros.common.errors import RoiCodecError, UsageError
    from roi_codec_ros.common.plugins import import_complaint
    from roi_codec_ros.nodes.ros_start import start_ros

    nodes: list[ManagedNode] = []
    status = 0
    try:
        start_ros(args)
        nodes = _made(getattr(importlib.import_module(module), maker))
        status = next(filter(None, map(_start, nodes)), 0)
        if status == 0:
            executor = SingleThreadedExecutor()
            for node in nodes:
                executor.add_node(node)
            signals.starting = False
            executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RoiCodecError as error:
        rclpy.logging.get_logger(Path(sys.argv[0]).stem).fatal(str(error))
        status = WRONG_USE if isinstance(error, UsageError) else FAILED
    except ImportError as error:
        complaint = import_complaint(error)
        if complaint is None:
            raise
        rclpy.logging.get_logger(Path(sys.argv[0]).stem).fatal(complaint)
        status = FAILED
    except Exception:
        if rclpy.ok():  # else it is caused by the context that a signal has closed
            raise
    signals.starting = False
    hanging = [node for node in nodes if not node.halt()]
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()
    return status, not hanging


def _made(maker: Callable[[], ManagedNode | list[ManagedNode]]) -> list[ManagedNode]:
    """Create the nodes. Raises RoiCodecError if ROS refuses one, as without its enclave."""
    from roi_codec_ros.nodes.ros_start import REFUSALS, refusal

    try:
        made = maker()
    except REFUSALS as error:
        raise refusal("node", error) from error
    return made if isinstance(made, list) else [made]


def _missing_ros() -> str:
    """What is missing of ROS 2 in this Python, and what to do; empty if nothing is."""
    for name in ("rclpy", "roi_codec_ros.msg"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            return (
                f"expected ROS 2 with this package in a workspace, found no {name} ({error}); "
                "source ROS 2 and the workspace's install/setup.bash"
            )
    return ""


def make_room_for_images() -> None:
    """Set our Fast DDS profile, unless the user has set one."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return
    from roi_codec_ros.common.share import shared_file

    profile = shared_file("config", PROFILE)
    if profile is not None:
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(profile)))


def _start(node: ManagedNode) -> int:
    """Configure and activate with autostart; returns the exit status if that fails."""
    from rclpy.lifecycle import TransitionCallbackReturn

    if not node.settings.autostart:
        return 0
    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() != TransitionCallbackReturn.SUCCESS:
            node.publish_diagnostics()
            return WRONG_USE if node.misused else FAILED
    return 0


def _leave(status: int, ended: bool) -> None:
    """Exit the process at once: unloading torch may take seconds."""
    if ended:
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
