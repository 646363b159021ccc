# SPDX-License-Identifier: Apache-2.0
"""How many frames a second the cameras of a running graph take, set while they run."""

from __future__ import annotations

import time
from collections.abc import Sequence

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from roi_codec_ros.common.errors import RoiCodecError

PATIENCE_S = 10.0


class CameraRates:
    """Sets `rate_hz` of encoders. Use as a context manager; leaves signals to the caller."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("camera_rates", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._clients = {
            camera: self._node.create_client(SetParameters, f"/{camera}/encoder/set_parameters")
            for camera in cameras
        }

    def set(self, rate_hz: float) -> None:
        """Of all cameras. Raises RoiCodecError where an encoder refuses, or none answers."""
        value = Parameter("rate_hz", Parameter.Type.DOUBLE, rate_hz).to_parameter_msg()
        end_s = time.monotonic() + PATIENCE_S
        request = SetParameters.Request(parameters=[value])
        pending = {}
        for camera, client in self._clients.items():
            if client.wait_for_service(max(0.0, end_s - time.monotonic())):
                pending[camera] = client.call_async(request)
        for camera in self._clients:
            answer = pending.get(camera)
            while answer is not None and not answer.done() and time.monotonic() < end_s:
                self._executor.spin_once(timeout_sec=0.1)
            if answer is None or not answer.done():
                raise RoiCodecError(
                    f"expected the encoder of {camera} to take rate_hz {rate_hz:g}, "
                    f"found no answer within {PATIENCE_S:g} s"
                )
            (outcome,) = answer.result().results
            if not outcome.successful:
                raise RoiCodecError(
                    f"expected the encoder of {camera} to take rate_hz {rate_hz:g}, "
                    f"found: {outcome.reason}"
                )

    def __enter__(self) -> CameraRates:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._context.try_shutdown()
