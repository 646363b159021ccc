# SPDX-License-Identifier: Apache-2.0
"""How many frames a second the cameras of a running graph take, set while they run."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.demo.background_node import BackgroundNode

PATIENCE_S = 10.0


POLL_S = 0.02


class CameraRates(BackgroundNode):
    """Sets `rate_hz` of encoders. A context manager."""

    def __init__(self, cameras: Sequence[str]) -> None:
        super().__init__("camera_rates")
        self._clients = {
            camera: self._node.create_client(SetParameters, f"/{camera}/encoder/set_parameters")
            for camera in cameras
        }
        self.start()

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
                time.sleep(POLL_S)
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
