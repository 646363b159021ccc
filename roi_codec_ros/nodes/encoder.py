# SPDX-License-Identifier: Apache-2.0
"""encoder_node: a camera's frames in, latents out. Raw pixels leave this process on no topic.

    source ─► capture thread ─► newest frame ─► encode thread ─► latent, camera_info

Without a working model or camera it publishes nothing but diagnostics: it never falls back to raw
or ordinarily compressed pixels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from roi_codec_ros.codec import EncodedFrame, Model, RoiCodecError, UsageError, load_encoder
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.nodes.base import STOP_TIMEOUT_S, ManagedNode
from roi_codec_ros.nodes.camera_info import read_calibration, scaled_camera_info
from roi_codec_ros.nodes.conversions import (
    ImageMessageError,
    byte_array,
    rgb_from_message,
    unscaled,
)
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status, rejects
from roi_codec_ros.nodes.following import FollowingSubscription
from roi_codec_ros.stream.newest import NewestByKey
from roi_codec_ros.stream.sources import (
    LIVE,
    Capture,
    Frame,
    RateLimiter,
    Source,
    SourceKind,
    parse_source,
)
from roi_codec_ros.stream.statistics import SlidingWindow, Tally

TAKE_TIMEOUT_S = 0.2
STALE_AFTER_S = 2.0
LOSS_TO_NAME = 0.1  # images per second; now and then one is lost anywhere
MANY_FACES = 0.1  # of those in the photographs; a model that leaves more is none to hide behind


@dataclass(frozen=True)
class _Waiting:
    """A frame that waits for the encoder: pixels of our own capture, or a message not yet read."""

    header: Header
    content: Frame | Image | CompressedImage


class EncoderNode(ManagedNode):
    """Publishes `latent` and `camera_info` in the camera's namespace."""

    executable = "encoder_node"

    def __init__(self) -> None:
        super().__init__("encoder")
        self._capture: Capture | None = None
        self._images: FollowingSubscription | None = None
        self._published = 0
        self._dropped = 0
        self._rejects = Tally()
        self._last_frame_s: float | None = None
        self._last_image_s: float | None = None  # of a topic, as all until the rate limit
        self._last_refused_s: float | None = None
        self._last_refusal = ""
        self._few_levels = False
        self._last_frame: EncodedFrame | None = None
        self._info: tuple[CameraInfo | None, int, int, CameraInfo] | None = None
        self._encode_ms = SlidingWindow()
        self._payload_bits = SlidingWindow()
        self._bits_per_pixel = SlidingWindow()

    @property
    def camera(self) -> str:
        """The camera's name: the namespace, "camera" where there is none."""
        return self.get_namespace().strip("/") or "camera"

    def _own(self, topic: str) -> str:
        """A topic of the camera; a node without a namespace names it as its decoder does."""
        return topic if self.get_namespace() != "/" else f"{self.camera}/{topic}"

    def configure(self) -> None:
        """Load what the parameters name and create publishers and subscriptions."""
        self._source: Source = parse_source(self.setting("source"))
        self._calibration = self._read_calibration()
        self._encoder = load_encoder(
            self.setting("model"),
            backend=self.setting("backend"),
            device=self.setting("device"),
            threads=self.setting("threads") or None,
        )
        model = self._encoder.model
        # Publishing copies a message, so that one serves for all frames.
        self._latent_message = CompressedLatent(model=model.name)
        self._latent_message.model_id = np.frombuffer(model.id, np.uint8)
        self._info = None
        self._frame_id = (
            self.setting("frame_id") or self.camera.replace("/", "_") + "_optical_frame"
        )
        self._latents = self.publisher(CompressedLatent, self._own("latent"))
        self._infos = self.publisher(CameraInfo, self._own("camera_info"))
        self._images = None
        if self._source.kind is SourceKind.TOPIC:
            self._images = self.follow(
                {Image: self._on_image, CompressedImage: self._on_image}, self._source.target
            )
        if self.setting("camera_info_topic"):
            self.subscription(CameraInfo, self.setting("camera_info_topic"), self._on_camera_info)
        self.get_logger().info(
            f"{self.camera}: source {self._source.text} ({self._source.kind.value}), "
            f"model {model.name} ({model.id.hex()}), backend {self._encoder.backend.name}"
        )
        if complaint := _privacy_complaint(model):
            self.get_logger().warning(f"{self.camera}: {complaint}")

    def activate(self) -> None:
        """Start working."""
        self._waiting: NewestByKey[_Waiting] = NewestByKey()
        self._limiter = RateLimiter()
        self._last_frame_s = self._last_image_s = self._last_refused_s = None
        self.start_worker("encode", self._encode_next)
        if self._source.kind is not SourceKind.TOPIC:
            self._capture = Capture(
                self._source,
                self._on_frame,
                rate_hz=self.setting("rate_hz"),
                loop=self.setting("loop"),
                capture_size=(self.setting("capture_width"), self.setting("capture_height")),
            )
            self._capture.start()

    def interrupt(self) -> None:
        """Wake whatever waits, so that workers can end."""
        self._waiting.close()

    def deactivate(self) -> None:
        """Stop working; what was loaded stays."""
        if self._capture is not None and not self._capture.stop(STOP_TIMEOUT_S):
            self.hung = True
        self._capture = None

    def setting_changed(self, name: str, value: object) -> None:
        """A live parameter has another value."""
        if self._capture is not None and name in ("rate_hz", "loop"):
            setattr(self._capture, name, value)

    # Frames come in

    def _on_frame(self, frame: Frame) -> None:
        """In the capture thread."""
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        self._wait(_Waiting(header, frame))

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._last_image_s = time.monotonic()
        if self._limiter.allows(time.monotonic(), self.setting("rate_hz")):
            self._wait(_Waiting(message.header, message))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._calibration = message

    def _wait(self, waiting: _Waiting) -> None:
        if self._waiting.put(self.camera, waiting):
            self._dropped += 1

    # Latents go out

    def _encode_next(self) -> None:
        """In the encode thread."""
        taken = self._waiting.take(TAKE_TIMEOUT_S)
        if taken is None:
            return
        header, content = taken[1].header, taken[1].content
        started = time.perf_counter()
        try:
            image = content.image if isinstance(content, Frame) else self._read(content)
            encoded = self._encoder.encode(image, max_width=self.setting("max_width") or None)
        except RoiCodecError as error:
            cause = "encoding" if isinstance(error, ImageMessageError) else "frame"
            self._rejects.add(cause)
            self._last_refused_s, self._last_refusal = time.monotonic(), str(error)
            self.warn(cause, f"{self.camera}: frame refused: {error}")
            return
        encode_ms = 1e3 * (time.perf_counter() - started)
        self._published += 1
        position = content.position if isinstance(content, Frame) else LIVE
        self._latents.publish(self._latent(header, encoded, position, encode_ms))
        height, width = encoded.coded_size
        self._infos.publish(self._camera_info(header, width, height))
        self._last_frame, self._last_frame_s = encoded, time.monotonic()
        self._encode_ms.add(encode_ms)
        self._payload_bits.add(8.0 * len(encoded.data))
        self._bits_per_pixel.add(encoded.bits_per_pixel)

    def _read(self, message: Image | CompressedImage) -> NDArray[np.uint8]:
        """Raises ImageMessageError for what can not be read."""
        pixels = rgb_from_message(message)
        self._few_levels = isinstance(message, Image) and unscaled(message.encoding, pixels)
        return pixels

    def _latent(
        self, header: Header, encoded: EncodedFrame, position: int, encode_ms: float
    ) -> CompressedLatent:
        message = self._latent_message
        message.header = header
        message.encode_ms = encode_ms
        message.original_height, message.original_width = encoded.original_size
        message.coded_height, message.coded_width = encoded.coded_size
        message.sequence = self._published
        message.dropped = self._dropped
        message.source_position = position
        message.data = byte_array(encoded.data)
        return message

    def _camera_info(self, header: Header, width: int, height: int) -> CameraInfo:
        calibration = self._calibration
        made = self._info
        if made is None or made[0] is not calibration or made[1:3] != (width, height):
            info = scaled_camera_info(calibration or CameraInfo(), width, height)
            self._info = made = calibration, width, height, info
        made[3].header = header
        return made[3]

    # Diagnostics

    def statuses(self) -> list[Status]:
        """What /diagnostics shows of this node now."""
        return [self._codec_status(), self._source_status()]

    def _codec_status(self) -> Status:
        model = self._encoder.model
        values: dict[str, Figure] = {
            "model": model.name,
            "model_identity": model.identity.hex(),
            "faces_left": "unknown" if model.faces_left is None else f"{model.faces_left:.3f}",
            "backend": self._encoder.backend.name,
            "fps": self._encode_ms.rate_hz,
            "bpp": self._bits_per_pixel.mean,
            "kbit_s": self._payload_bits.total_per_s / 1e3,
            "encode_ms_p50": self._encode_ms.percentile(50),
            "encode_ms_p95": self._encode_ms.percentile(95),
            "frames": self._published,
            "dropped": self._dropped,
            "rejected.encoding": 0,
            "rejected.frame": 0,
            **rejects(self._rejects),
        }
        for name in ("original_size", "coded_size"):
            height, width = getattr(self._last_frame, name, (0, 0))
            values[name] = f"{width}x{height}"
        level, message = Level.OK, f"encoding {self._encode_ms.rate_hz:.1f} frames/s"
        capture = self._capture
        if capture is not None and capture.state.state == "ended":
            message = "the source has ended"
        elif self._last_frame_s is None:
            level, message = Level.STALE, "no frame encoded yet"
        elif (age_s := time.monotonic() - self._last_frame_s) > self._patience_s():
            level, message = Level.STALE, f"no frame encoded for {age_s:.1f} s"
        elif not self._latents.get_subscription_count():
            message += f"; nobody subscribes to {self.resolve_topic_name(self._own('latent'))}"
        return Status("codec", level, message, values, self.camera)

    def _source_status(self) -> Status:
        values: dict[str, Figure] = {
            "source": self._source.text,
            "kind": self._source.kind.value,
            "calibrated": bool(self._calibration is not None and self._calibration.k[0] > 0),
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
            return Status("source", *self._judge_topic(images), values, self.camera)
        if self._capture is None:
            return Status("source", Level.STALE, "not opened", values, self.camera)
        state = self._capture.state
        values.update(
            losses=state.losses,
            unreadable=state.unreadable,
            last_unreadable=state.last_unreadable,
        )
        level = {"running": Level.OK, "ended": Level.OK, "opening": Level.STALE}.get(
            state.state, Level.ERROR
        )
        message = f"{state.state}: {state.detail}" if state.detail else state.state
        return Status("source", level, message, values, self.camera)

    def _judge_topic(self, images: FollowingSubscription) -> tuple[Level, str]:
        """Level and message for a source that is a topic."""
        patience_s = self._patience_s()
        if not _within(self._last_image_s, patience_s):
            silence = "no image yet"
            if self._last_image_s is not None:
                silence = f"no image for {time.monotonic() - self._last_image_s:.1f} s"
            if images.complaint:
                return Level.ERROR, f"{silence}: {images.complaint}"
            if not images.offers:
                return Level.STALE, f"{silence}: nobody publishes {images.topic}"
            return Level.STALE, silence
        if _within(self._last_refused_s, patience_s):
            coded = _within(self._last_frame_s, patience_s)
            return (
                Level.WARN if coded else Level.ERROR,
                f"images arrive, refused: {self._last_refusal}",
            )
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
        rate_hz = self.setting("rate_hz")
        return max(STALE_AFTER_S, 3.0 / rate_hz if rate_hz else 0.0)

    def _read_calibration(self) -> CameraInfo | None:
        path, topic = self.setting("camera_info_file"), self.setting("camera_info_topic")
        if path and topic:
            raise UsageError("expected camera_info_file or camera_info_topic, found both")
        own = self.resolve_topic_name(self._own("camera_info"))
        if topic and self.resolve_topic_name(topic) == own:
            raise UsageError(
                "expected the driver's topic as camera_info_topic, found this node's own"
            )
        return read_calibration(path) if path else None


def _within(then_s: float | None, patience_s: float) -> bool:
    """Whether a time (monotonic) is no farther away than that."""
    return then_s is not None and time.monotonic() - then_s <= patience_s


def _privacy_complaint(model: Model) -> str:
    """What whoever starts a camera with this model should know; empty for one that hides faces."""
    if model.faces_left is None:
        return f"nobody has measured how many faces model {model.name} leaves: roi-codec evaluate"
    if model.faces_left > MANY_FACES:
        return (
            f"model {model.name} leaves {model.faces_left:.0%} of faces to a face detector, by "
            "its card: it does not anonymize"
        )
    return ""
