# SPDX-License-Identifier: Apache-2.0
"""A ROS node of the demo, in a thread and with a ROS context of its own."""

from __future__ import annotations

import threading
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

_Node = TypeVar("_Node", bound="BackgroundNode")


class BackgroundNode:
    """Base class: creates a node, and spins it from `start` until `close`. A context manager.

    Signals are left to the caller.
    """

    def __init__(self, name: str) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)

    def start(self) -> None:
        """Start spinning, once publishers and subscriptions exist."""
        self._executor.add_node(self._node)
        self._thread.start()

    def close(self) -> None:
        """Stop spinning and leave the graph."""
        self._executor.shutdown(timeout_sec=1.0)
        self._context.try_shutdown()
        self._thread.join(timeout=2.0)

    def __enter__(self: _Node) -> _Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return
