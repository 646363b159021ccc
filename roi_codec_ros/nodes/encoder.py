# SPDX-License-Identifier: Apache-2.0
"""encoder_node: a camera's frames in, latents out. Raw pixels are never published.

    source ─► capture thread ─► newest frame ─► encode thread ─► latent, latent/camera_info

Without a working model or camera it publishes nothing but diagnostics: it never falls back to raw
or ordinarily compressed pixels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from roi_codec_ros.codec import (
    FORMAT,
    EncodedFrame,
    Model,
    RoiCodecError,
    UsageError,
    available_implementations,
    kernel_complaint,
    load_encoder,
)
from roi_codec_ros.common.image_messages import ImageMessageError, unscaled
from roi_codec_ros.common.opencv import check_pipeline
from roi_codec_ros.config.parameters import EncoderParameters
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.base import STOP_TIMEOUT_S, ManagedNode
from roi_codec_ros.nodes.coded_camera_info import CodedCameraInfo, is_rectified
from roi_codec_ros.nodes.conversions import byte_array, moved_stamp, rgb_from_message
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status, coder_statuses
from roi_codec_ros.nodes.following import FollowingSubscription
from roi_codec_ros.stream.capture import Capture, RateLimiter
from roi_codec_ros.stream.frame_readers import Frame
from roi_codec_ros.stream.health import CameraHealth, Words
from roi_codec_ros.stream.newest import NewestByKey
from roi_codec_ros.stream.sources import (
    ANY_FORMAT,
    LIVE,
    CaptureFormat,
    Source,
    SourceKind,
    parse_source,
)
from roi_codec_ros.stream.statistics import SlidingWindow

TAKE_TIMEOUT_S = 0.2
STALE_AFTER_S = 2.0
LOSS_TO_NAME = 0.1  # images per second; an occasional loss is normal
CODED = Words("no frame encoded", "frames refused", "frames arrive, none encoded")
READ = Words("no image", "images arrive, refused", "images arrive, none taken")
SEEN_LIVE = (SourceKind.DEVICE, SourceKind.STREAM, SourceKind.TOPIC)
MANY_FACES = 0.1  # share of faces left; a model that leaves more does not anonymize


@dataclass(frozen=True)
class _Waiting:
    """A frame waiting for the encoder: captured pixels, or an unconverted message."""

    header: Header
    content: Frame | Image | CompressedImage


class EncoderNode(ManagedNode):
    """Publishes `latent` and `latent/camera_info` in the camera's namespace."""

    executable = "encoder_node"
    settings: EncoderParameters

    def __init__(self) -> None:
        super().__init__("encoder")
        self._capture: Capture | None = None
        self._images: FollowingSubscription | None = None
        self._published = 0
        self._coded = CameraHealth(CODED)
        self._read = CameraHealth(READ)  # format check for images of a topic
        self._few_levels = False
        self._last_frame: EncodedFrame | None = None
        self._encode_ms = SlidingWindow()
        self._payload_bits = SlidingWindow()
        self._bits_per_pixel = SlidingWindow()
        self._skipped = SlidingWindow()

    @property
    def camera(self) -> str:
        """The camera's name: the namespace, or "camera" without one."""
        return self.get_namespace().strip("/") or "camera"

    def _own(self, topic: str) -> str:
        """A topic of the camera; without a namespace the name that the decoder expects."""
        return topic if self.get_namespace() != "/" else f"{self.camera}/{topic}"

    def configure(self) -> None:
        """Load the model, open the source and create publishers and subscriptions."""
        self._source: Source = parse_source(self.settings.source)
        if self._source.kind is SourceKind.STREAM:
            check_pipeline(self._source.target)
        self._asked = self._capture_format()
        rectified = self.settings.rectified == "yes" or (
            self.settings.rectified == "auto"
            and self._source.kind is SourceKind.TOPIC
            and is_rectified(self._source.target)
        )
        self._info = CodedCameraInfo(
            self,
            self._own("latent/camera_info"),
            camera=self.camera,
            rectified=rectified,
            calibration_file=self.settings.camera_info_file,
            calibration_topic=self.settings.camera_info_topic,
        )
        self._encoder = load_encoder(
            self.settings.model,
            backend=self.settings.backend,
            device=self.settings.device,
            threads=self.settings.threads or None,
            regions=self.settings.regions,
            quality=self.settings.quality,
            hide_memory_s=self.settings.hide_memory_s,
            skip=self._skips(),
            predict=self.settings.predict,
            persons_every=self.settings.persons_every if self._is_live() else 1,
            target_kbit_s=self.settings.target_kbit_s,
        )
        model = self._encoder.model
        # Publishing copies a message, so that one is reused for all frames.
        self._latent_message = CompressedLatent(format=FORMAT, model=model.name)
        self._latent_message.model_id = np.frombuffer(model.id, np.uint8)
        self._frame_id = self.settings.frame_id or self.camera.replace("/", "_") + "_optical_frame"
        self._latents = self.publisher(CompressedLatent, self._own("latent"), qos.latents())
        self._images = None
        if self._source.kind is SourceKind.TOPIC:
            self._images = self.follow(
                {Image: self._on_image, CompressedImage: self._on_image}, self._source.target
            )
        self.get_logger().info(
            f"{self.camera}: source {self._source.text} ({self._source.kind.value}), "
            f"model {model.name} ({model.id.hex()}), backend {self._encoder.backend_name}"
        )
        for complaint in filter(None, (_privacy_complaint(model), kernel_complaint())):
            self.get_logger().warning(f"{self.camera}: {complaint}")

    def activate(self) -> None:
        """Start working."""
        self._waiting: NewestByKey[_Waiting] = NewestByKey()
        self._limiter = RateLimiter()
        self._coded.restart()
        self._read.restart()
        self.start_worker("encode", self._encode_next)
        if self._source.kind is not SourceKind.TOPIC:
            self._capture = Capture(
                self._source,
                self._on_frame,
                rate_hz=self.settings.rate_hz,
                loop=self.settings.loop,
                asked=self._asked,
                lost=lambda reason: self.get_logger().warning(
                    f"{self.camera}: {reason}; trying again until frames come"
                ),
            )
            self._capture.start()

    def interrupt(self) -> None:
        """Wake waiting workers, so that they can end."""
        self._waiting.close()

    def deactivate(self) -> None:
        """Stop working; models stay loaded."""
        if self._capture is not None and not self._capture.stop(STOP_TIMEOUT_S):
            self.hung = True
        self._capture = None

    def setting_changed(self, name: str, value: object) -> None:
        """Apply a changed live parameter."""
        if self._capture is not None and name in ("rate_hz", "loop"):
            setattr(self._capture, name, value)
        if name in ("quality", "target_kbit_s"):
            setattr(self._encoder, name, float(value))  # type: ignore[arg-type]

    # Input: frames

    def _on_frame(self, frame: Frame) -> None:
        """Receive a frame (capture thread)."""
        ago_s = max(0.0, time.monotonic() - frame.taken.taken_s)
        now = self.get_clock().now().to_msg()
        stamp = moved_stamp(now, self.settings.stamp_offset_s - ago_s)
        self._wait(_Waiting(Header(stamp=stamp, frame_id=self._frame_id), frame))

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._read.heard()
        if self._limiter.allows(time.monotonic(), self.settings.rate_hz):
            header, offset_s = message.header, self.settings.stamp_offset_s
            if offset_s:
                stamp = moved_stamp(header.stamp, offset_s)
                header = Header(stamp=stamp, frame_id=header.frame_id)
            self._wait(_Waiting(header, message))

    def _wait(self, waiting: _Waiting) -> None:
        if self._waiting.put(self.camera, waiting):
            self._coded.replaced += 1

    # Output: latents

    def _encode_next(self) -> None:
        """Encode waiting frames (encode thread)."""
        taken = self._waiting.take(TAKE_TIMEOUT_S)
        if taken is None:
            return
        header, content = taken[1].header, taken[1].content
        started = time.perf_counter()
        try:
            image = self._pixels(content)
            self._coded.heard()
            encoded = self._encoder.encode(
                image,
                max_width=self.settings.max_width or None,
                stamp_s=header.stamp.sec + 1e-9 * header.stamp.nanosec,
            )
        except ImageMessageError as error:
            self._refuse(self._read, "encoding", error)
            return
        except RoiCodecError as error:
            self._refuse(self._coded, "frame", error)
            return
        encode_ms = 1e3 * (time.perf_counter() - started)
        self._published += 1
        position = content.position if isinstance(content, Frame) else LIVE
        self._info.publish(header, encoded)  # before the frame that it describes
        self._latents.publish(self._latent(header, encoded, position))
        self._last_frame = encoded
        self._coded.used()
        self._encode_ms.add(encode_ms)
        self._payload_bits.add(8.0 * len(encoded.data))
        self._bits_per_pixel.add(encoded.bits_per_pixel)
        self._skipped.add(encoded.skipped_share)

    def _pixels(self, content: Frame | Image | CompressedImage) -> NDArray[np.uint8]:
        """The pixels, uint8 [H, W, 3] RGB. Raises ImageMessageError for an unreadable message."""
        if isinstance(content, Frame):
            return content.image
        image = rgb_from_message(content)
        self._few_levels = isinstance(content, Image) and unscaled(content.encoding, image)
        self._read.used()
        return image

    def _refuse(self, health: CameraHealth, cause: str, error: RoiCodecError) -> None:
        health.refuse(cause, str(error))
        self.warn(cause, f"{self.camera}: frame refused: {error}")

    def _latent(self, header: Header, encoded: EncodedFrame, position: int) -> CompressedLatent:
        message = self._latent_message
        message.header = header
        message.original_height, message.original_width = encoded.original_size
        message.coded_height, message.coded_width = encoded.coded_size
        message.sequence = self._published
        message.source_position = position
        message.data = byte_array(encoded.data)
        return message

    # Diagnostics

    def statuses(self) -> list[Status]:
        """Diagnostics of this node."""
        return [self._codec_status(), self._source_status(), *coder_statuses()]

    def _codec_status(self) -> Status:
        model = self._encoder.model
        values: dict[str, Figure] = {
            "model": model.name,
            "model_identity": model.identity.hex(),
            "faces_left": "unknown" if model.faces_left is None else f"{model.faces_left:.3f}",
            "backend": self._encoder.backend_name,
            "entropy_coder": available_implementations()[0],
            "fps": self._encode_ms.rate_hz,
            "bpp": self._bits_per_pixel.mean,
            "kbit_s": self._payload_bits.total_per_s / 1e3,
            "quality": self._encoder.quality,
            "target_kbit_s": self._encoder.target_kbit_s,
            "skipped": self._skipped.mean,
            "hidden": 0.0 if self._last_frame is None else self._last_frame.hidden_share,
            "encode_ms_p50": self._encode_ms.percentile(50),
            "encode_ms_p95": self._encode_ms.percentile(95),
            "frames": self._published,
            "dropped": self._coded.replaced,
            "rejected.encoding": self._read.refusals["encoding"],
            "rejected.frame": self._coded.refusals["frame"],
        }
        for name in ("original_size", "coded_size"):
            height, width = getattr(self._last_frame, name, (0, 0))
            values[name] = f"{width}x{height}"
        capture = self._capture
        if capture is not None and capture.state.state == "ended":
            return Status("codec", Level.OK, "the source has ended", values, self.camera)
        judgement = self._coded.judge(self._patience_s())
        message = judgement.message or f"encoding {self._encode_ms.rate_hz:.1f} frames/s"
        if judgement.level is Level.OK and not self._latents.get_subscription_count():
            message += f"; no subscribers on {self.resolve_topic_name(self._own('latent'))}"
        return Status("codec", judgement.level, message, values, self.camera)

    def _source_status(self) -> Status:
        values: dict[str, Figure] = {
            "source": self._source.text,
            "kind": self._source.kind.value,
            "timed_by": "driver" if self._images is not None else "",
            "calibrated": self._info.calibrated,
        }
        images = self._images
        values.update(
            publishers=len(images.offers) if images else 0,
            reliability=images.reliability if images else "",
            lost=images.lost if images else 0,
            losses=0,
            unreadable=0,
            last_unreadable="",
        )
        if images is not None:
            level, message = self._judge_topic(images)
        elif self._capture is None:
            level, message = Level.STALE, "not opened"
        else:
            state = self._capture.state
            values.update(
                losses=state.losses,
                unreadable=state.unreadable,
                last_unreadable=state.last_unreadable,
                timed_by=state.timed_by,
            )
            level = {"running": Level.OK, "ended": Level.OK, "opening": Level.STALE}.get(
                state.state, Level.ERROR
            )
            message = f"{state.state}: {state.detail}" if state.detail else state.state
            if state.complaint and level is Level.OK:
                level, message = Level.WARN, f"{message}; {state.complaint}"
        if self._info.fault and level is Level.OK:
            level, message = Level.WARN, f"{message}; no camera_info: {self._info.fault}"
        return Status("source", level, message, values, self.camera)

    def _judge_topic(self, images: FollowingSubscription) -> tuple[Level, str]:
        """Level and message for a source that is a topic."""
        judgement = self._read.judge(self._patience_s())
        if judgement.level is Level.STALE and images.complaint:
            return Level.ERROR, f"{judgement.message}: {images.complaint}"
        if judgement.level is Level.STALE and not images.offers:
            return Level.STALE, f"{judgement.message}: no publisher on {images.topic}"
        if judgement.level is not Level.OK:
            return judgement.level, judgement.message
        if images.complaint:
            return Level.WARN, f"images arrive; {images.complaint}"
        lost_fps = images.lost_recently.total_per_s
        if lost_fps > LOSS_TO_NAME:
            return Level.WARN, f"images arrive; {lost_fps:.1f} images/s are lost on the way"
        if self._few_levels:
            return (
                Level.WARN,
                "images arrive; expected their 16 bits to be in use, found hardly any contrast: "
                "scale them in the driver",
            )
        return Level.OK, "images arrive"

    def _patience_s(self) -> float:
        rate_hz = self.settings.rate_hz
        return max(STALE_AFTER_S, 3.0 / rate_hz if rate_hz else 0.0)

    def _skips(self) -> bool | None:
        """The `skip` argument of `load_encoder`; None: if the model supports it."""
        if self.settings.skip != "auto":
            return self.settings.skip == "on"
        return None if self._is_live() else False

    def _is_live(self) -> bool:
        return self._source.kind in SEEN_LIVE

    def _capture_format(self) -> CaptureFormat:
        """Settings to request from a device. Raises UsageError if the source is not one."""
        given = self.settings
        asked = CaptureFormat(
            given.capture_width, given.capture_height, given.capture_fps, given.pixel_format
        )
        if asked != ANY_FORMAT and self._source.kind is not SourceKind.DEVICE:
            raise UsageError(
                "capture_width, capture_height, capture_fps and pixel_format: expected a device "
                f"as source, found {self._source.text}"
            )
        if len(asked.pixel_format) not in (0, 3, 4) or not asked.pixel_format.isascii():
            raise UsageError(
                f"pixel_format: expected its four letters, as MJPG or YUYV, found "
                f"{asked.pixel_format!r}"
            )
        return asked


def _privacy_complaint(model: Model) -> str:
    """A warning for models that leave faces visible; empty for one that hides them."""
    if model.faces_left is None:
        return (
            f"how many faces model {model.name} leaves was never measured: use roi-codec evaluate"
        )
    if model.faces_left > MANY_FACES:
        return (
            f"model {model.name} leaves {model.faces_left:.0%} of faces to a face detector, by "
            "its card: it does not anonymize"
        )
    return ""
