# SPDX-License-Identifier: Apache-2.0
"""One camera of the decoder: its topics, counters and statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from roi_codec_ros.codec import DecodedFrame, StreamState
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.msg import DecodedFrame as DecodedFrameMessage
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.camera_info import scaled_camera_info
from roi_codec_ros.nodes.conversions import byte_array, image_from_rgb, jpeg_from_rgb
from roi_codec_ros.nodes.diagnostics import Figure, rejects
from roi_codec_ros.nodes.guarded import GuardedNode
from roi_codec_ros.stream.freshness import CAUSES, FreshnessGuard
from roi_codec_ros.stream.health import CameraHealth, Words
from roi_codec_ros.stream.statistics import SlidingWindow

LATENTS = Words("no latent", "payloads refused", "latents arrive, none decoded")
UNKNOWN_MODEL, BAD_PAYLOAD = "unknown_model", "bad_payload"


class DecodedCamera:
    """One camera's publishers, counters and statistics."""

    def __init__(self, node: GuardedNode, name: str) -> None:
        self.name = name
        picture = f"{name}/anonymized/image"
        self.images = node.publisher(Image, picture, qos.images())
        self.jpegs = node.publisher(CompressedImage, f"{picture}/compressed", qos.images())
        self.infos = node.publisher(CameraInfo, f"{name}/anonymized/camera_info", qos.images())
        self.info: CameraInfo | None = None
        self.frames = node.publisher(DecodedFrameMessage, f"{name}/decoded_frame")
        self.health = CameraHealth(LATENTS)  # arrivals: in bits
        self.lost = SlidingWindow()
        self.bits_per_pixel = SlidingWindow()
        self.decode_ms = SlidingWindow()
        self.decoded = 0
        self.guard = FreshnessGuard()
        self.state = StreamState()
        self.known_share = 1.0  # share known of the last image
        self.late = 0
        self.late_moments = SlidingWindow()
        self.model = ""
        self.model_identity = ""

    @property
    def subscribed(self) -> bool:
        """Whether anyone subscribes to its images."""
        return self.images.get_subscription_count() > 0 or self.jpegs.get_subscription_count() > 0

    def publish_info(self, latent: CompressedLatent, decoded: DecodedFrame) -> None:
        """Publish the CameraInfo of a decoded image, if it is known and subscribed to."""
        if self.info is not None and self.infos.get_subscription_count():
            height, width = decoded.coded_size
            info = scaled_camera_info(self.info, width, height)
            info.header = latent.header
            self.infos.publish(info)

    def publish(
        self,
        latent: CompressedLatent,
        decoded: DecodedFrame,
        decode_ms: float,
        jpeg_quality: int,
    ) -> None:
        """Publish a decoded image in every format that has subscribers."""
        # The frame data go first, so that they are there when the image arrives.
        if self.frames.get_subscription_count():
            self.frames.publish(_frame_message(latent, decoded, decode_ms))
        if self.images.get_subscription_count():
            self.images.publish(image_from_rgb(decoded.image, latent.header))
        if self.jpegs.get_subscription_count():
            self.jpegs.publish(jpeg_from_rgb(decoded.image, latent.header, jpeg_quality))

    def count(self, latent: CompressedLatent, decoded: DecodedFrame, decode_ms: float) -> None:
        """Count a decoded image in the statistics."""
        self.model, self.model_identity = decoded.model.name, decoded.model.identity.hex()
        height, width = decoded.coded_size
        self.bits_per_pixel.add(8.0 * len(latent.data) / (height * width))
        self.decoded += 1
        self.known_share = decoded.known_share
        self.decode_ms.add(decode_ms)

    def figures(self) -> dict[str, Figure]:
        """Diagnostic values of the camera."""
        return {
            "model": self.model,
            "model_identity": self.model_identity,
            "received_fps": self.health.arrivals.rate_hz,
            "kbit_s": self.health.arrivals.total_per_s / 1e3,
            "fps": self.decode_ms.rate_hz,
            "bpp": self.bits_per_pixel.mean,
            "known_share": self.known_share,
            "age_ms_p50": self.health.age_ms.percentile(50),
            "age_ms_p95": self.health.age_ms.percentile(95),
            "decode_ms_p50": self.decode_ms.percentile(50),
            "decode_ms_p95": self.decode_ms.percentile(95),
            "frames": self.decoded,
            "dropped": self.health.replaced,
            "late": self.late,
            "lost": self.guard.lost,
            "lost_fps": self.lost.total_per_s,
            "restarts": self.guard.restarts,
            "last_restart": self.guard.last_restart,
            **{f"rejected.{cause}": 0 for cause in (UNKNOWN_MODEL, BAD_PAYLOAD, *CAUSES)},
            **rejects(self.health.refusals),
            "last_reject": self.health.last_refusal,
        }


def _frame_message(latent: CompressedLatent, decoded: DecodedFrame, decode_ms: float) -> Any:
    message = DecodedFrameMessage(header=latent.header, model=decoded.model.name)
    message.model_id = np.frombuffer(decoded.model.id, np.uint8)
    message.original_height, message.original_width = decoded.original_size
    message.coded_height, message.coded_width = decoded.coded_size
    message.sequence = latent.sequence
    message.source_position = latent.source_position
    message.payload_bytes = len(latent.data)
    message.decode_ms = decode_ms
    message.known_share = decoded.known_share
    if not decoded.known.all():
        message.unknown_columns = decoded.known.shape[1]
        message.unknown = byte_array((~decoded.known).tobytes())
    return message
