# SPDX-License-Identifier: Apache-2.0
"""Replays payloads from files as the latents of many cameras.

    python -m roi_codec_ros.lab.tools.replaying FOLDER RATE_HZ REPORT CAMERA…

FOLDER holds payloads (*.roic), which every camera shows in turn, each beginning with another one.
Stamps are the time of sending. At its end, on SIGINT or SIGTERM, REPORT gets the stamps that each
camera sent, as JSON: {camera: [ns, …]}.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions

from roi_codec_ros.codec.bitstream import Payload
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.lab.demo.running import stop_event
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.nodes.conversions import byte_array
from roi_codec_ros.nodes.qos import newest


def latent_of(data: bytes, camera: str) -> CompressedLatent:
    """The message for a payload, but for its stamp and sequence. Raises BitstreamError."""
    payload = Payload.from_bytes(data)
    message = CompressedLatent(model="replayed", data=byte_array(data), source_position=-1)
    message.header.frame_id = f"{camera.replace('/', '_')}_optical_frame"
    message.model_id = np.frombuffer(payload.model_id, np.uint8)
    message.original_height, message.original_width = (
        payload.original_height,
        payload.original_width,
    )
    message.coded_height, message.coded_width = payload.coded_height, payload.coded_width
    return message


def replay(
    payloads: Sequence[bytes], rate_hz: float, cameras: Sequence[str], stop: threading.Event
) -> dict[str, list[int]]:
    """Publish `<camera>/latent` of all cameras until stopped; returns the sent stamps, ns.

    Cameras take turns, evenly over a period. When late, frames are skipped.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("replaying")
    messages = {camera: [latent_of(data, camera) for data in payloads] for camera in cameras}
    publishers = {
        camera: node.create_publisher(CompressedLatent, f"/{camera}/latent", newest())
        for camera in cameras
    }
    sent: dict[str, list[int]] = {camera: [] for camera in cameras}
    step_ns = round(1e9 / (rate_hz * len(cameras)))
    tick = time.time_ns() // step_ns
    while not stop.is_set():
        tick = max(tick + 1, time.time_ns() // step_ns)
        if stop.wait(max(0.0, (tick * step_ns - time.time_ns()) / 1e9)):
            break
        index = tick % len(cameras)
        camera = cameras[index]
        stamps = sent[camera]
        message = messages[camera][(index + len(stamps)) % len(payloads)]
        stamps.append(time.time_ns())
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamps[-1], 10**9)
        message.sequence = len(stamps)
        publishers[camera].publish(message)
    node.destroy_node()
    rclpy.try_shutdown()
    return sent


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay until SIGINT or SIGTERM; arguments as the module says."""
    folder, rate_hz, report, *cameras = sys.argv[1:] if arguments is None else arguments
    stop = stop_event()
    payloads = [path.read_bytes() for path in sorted(Path(folder).glob("*.roic"))]
    sent = replay(payloads, float(rate_hz), cameras, stop)
    write_whole(Path(report), json.dumps(sent).encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
