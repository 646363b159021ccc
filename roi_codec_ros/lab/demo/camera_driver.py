# SPDX-License-Identifier: Apache-2.0
"""Cameras that are not there: publishes drawn pictures as a camera's driver would."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from roi_codec_ros.nodes.conversions import image_from_rgb
from roi_codec_ros.nodes.process import make_room_for_images
from roi_codec_ros.nodes.qos import newest

# A camera's name and a time of the system's clock, ns → uint8 [H, W, 3] RGB.
Film = Callable[[str, int], NDArray[np.uint8]]


def run(cameras: Sequence[str], film: Film, rate_hz: float) -> None:
    """Publish `<camera>/image_raw` of all cameras, one after another, until SIGINT or SIGTERM.

    A picture is drawn ahead of its time and sent at its stamp; who is late leaves pictures out.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    make_room_for_images()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("hall")
    publishers = {
        camera: node.create_publisher(Image, f"/{camera}/image_raw", newest())
        for camera in cameras
    }
    step_ns = round(1e9 / (rate_hz * len(cameras)))
    tick = time.time_ns() // step_ns
    while not stop.is_set():
        tick = max(tick + 1, time.time_ns() // step_ns)
        camera, stamp_ns = cameras[tick % len(cameras)], tick * step_ns
        picture = None
        if publishers[camera].get_subscription_count():
            picture = film(camera, stamp_ns)
        stop.wait(max(0.0, (stamp_ns - time.time_ns()) / 1e9))
        if picture is not None and not stop.is_set():
            header = Header(frame_id=f"{camera.replace('/', '_')}_optical_frame")
            header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
            publishers[camera].publish(image_from_rgb(picture, header))
    node.destroy_node()
    rclpy.try_shutdown()
