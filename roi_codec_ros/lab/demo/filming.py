# SPDX-License-Identifier: Apache-2.0
"""The process that films the demo's hall: publishes drawn pictures as cameras' drivers would.

`roi-codec demo` starts it with the command of `filming_command`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.demo.running import stop_event
from roi_codec_ros.lab.simulation.filmed_hall import HallClock, Stage

COVERED = "/hall/covered"
# A camera's name and a time of the system's clock, ns → its picture.
Film = Callable[[str, int], ImageArray]


def filming_command(clock: HallClock, cameras: Sequence[str], rate_hz: float) -> list[str]:
    """The argv that starts the process."""
    given = {**vars(clock), "cameras": list(cameras), "rate_hz": rate_hz}
    return [sys.executable, "-m", __name__, json.dumps(given)]


def main(text: str) -> None:
    """Film until SIGINT or SIGTERM. text: the argument that `filming_command` wrote."""
    given = json.loads(text)
    cameras, rate_hz = given.pop("cameras"), given.pop("rate_hz")
    clock = HallClock(**given)
    stage = Stage(cameras, seed=clock.seed)
    publish(cameras, lambda camera, stamp_ns: stage.film(camera, clock.seconds(stamp_ns)), rate_hz)


def publish(cameras: Sequence[str], film: Film, rate_hz: float) -> None:
    """Publish `<camera>/image_raw` of all cameras, one after another, until SIGINT or SIGTERM.

    A picture is drawn ahead of its time and sent at its stamp; when late, some are skipped. The
    lenses of cameras that COVERED names, in JSON, are covered: their pictures are black.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header, String

    from roi_codec_ros.nodes.conversions import image_from_rgb
    from roi_codec_ros.nodes.process import make_room_for_images
    from roi_codec_ros.nodes.qos import latched, newest

    stop = stop_event()
    make_room_for_images()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("hall")
    publishers = {
        camera: node.create_publisher(Image, f"/{camera}/image_raw", newest())
        for camera in cameras
    }
    covered: set[str] = set()

    def on_covered(message: String) -> None:
        covered.clear()
        covered.update(json.loads(message.data))

    node.create_subscription(String, COVERED, on_covered, latched())
    step_ns = round(1e9 / (rate_hz * len(cameras)))
    tick = time.time_ns() // step_ns
    while not stop.is_set():
        tick = max(tick + 1, time.time_ns() // step_ns)
        camera, stamp_ns = cameras[tick % len(cameras)], tick * step_ns
        rclpy.spin_once(node, timeout_sec=0.0)
        picture = None
        if publishers[camera].get_subscription_count():
            picture = film(camera, stamp_ns)
            if camera in covered:
                picture = np.zeros_like(picture)
        stop.wait(max(0.0, (stamp_ns - time.time_ns()) / 1e9))
        if picture is not None and not stop.is_set():
            header = Header(frame_id=f"{camera.replace('/', '_')}_optical_frame")
            header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
            publishers[camera].publish(image_from_rgb(picture, header))
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
