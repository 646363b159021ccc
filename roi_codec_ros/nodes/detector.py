# SPDX-License-Identifier: Apache-2.0
"""detector_node: anonymized images in, persons out; boxes in pixels of these and of the camera's.

    <camera>/anonymized/image ─► newest per camera ─► detect thread ─► <camera>/persons
    <camera>/decoded_frame ─► original size by stamp ──┘               <camera>/image_persons
    or a decoder of the same process ──────────────────┘               <camera>/detections

An image without persons gives an empty array. Without an image, or for an image without contrast
(a covered lens), nothing is published.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TypeAlias

from sensor_msgs.msg import CompressedImage, Image

from roi_codec_ros.codec.models import model_directories
from roi_codec_ros.common.devices import batch_limit
from roi_codec_ros.common.image_messages import ImageMessageError
from roi_codec_ros.config.parameter_values import Value
from roi_codec_ros.config.parameters import (
    DetectorParameters,
    NodeParameters,
    check_camera_names,
)
from roi_codec_ros.msg import DecodedFrame, PersonArray
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.camera_set import CameraSet
from roi_codec_ros.nodes.conversions import (
    image_from_rgb,
    persons_from_detections,
    rgb_from_message,
    stamp_ns,
    unknown_of,
)
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status, rejects
from roi_codec_ros.nodes.following import FollowingSubscription
from roi_codec_ros.nodes.handover import AnonymizedFrame
from roi_codec_ros.nodes.vision import Detection2DArray, detection_array
from roi_codec_ros.perception.contrast import shows_nothing
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.drawing import draw_detections
from roi_codec_ros.perception.graph_detector import open_detector, weights_identity
from roi_codec_ros.perception.person_detector import find_weights
from roi_codec_ros.stream.health import CameraHealth, Words
from roi_codec_ros.stream.newest import NewestByKey
from roi_codec_ros.stream.original_sizes import OriginalSizes
from roi_codec_ros.stream.statistics import Expectation, SlidingWindow

TAKE_TIMEOUT_S = 0.2
SIZE_TIMEOUT_S = 0.1
IMAGES = Words("no anonymized image", "images skipped", "images arrive, none searched")
UNKNOWN_SIZE, BAD_IMAGE, NOTHING_SHOWN = "unknown_size", "bad_image", "nothing_shown"
NOTHING = "expected a picture of something, found one of one brightness: is the lens covered?"
_Waiting: TypeAlias = Image | CompressedImage | AnonymizedFrame


class _Camera:
    """One camera's publishers, counters and statistics."""

    def __init__(self, node: ManagedNode, name: str) -> None:
        self.name = name
        self.persons = node.publisher(PersonArray, f"{name}/persons", qos.reliable())
        self.images = node.publisher(Image, f"{name}/image_persons")
        self.detections = None
        if Detection2DArray is not None:
            self.detections = node.publisher(
                Detection2DArray, f"{name}/detections", qos.reliable()
            )
        self.followed: FollowingSubscription | None = None  # None: frames are handed over
        self.sizes = OriginalSizes()
        self.health = CameraHealth(IMAGES)
        self.detect_ms = SlidingWindow()
        self.persons_seen = SlidingWindow()
        self.detected = 0


class DetectorNode(ManagedNode):
    """Publishes `<camera>/persons`, an annotated image and, where installed, vision_msgs."""

    executable = "detector_node"
    settings: DetectorParameters

    def __init__(self, *, subscribes: bool = True) -> None:
        """``subscribes``: to the decoder's topics; else frames come from a decoder in this
        process.
        """
        super().__init__("detector")
        self._subscribes = subscribes
        self._cameras = CameraSet(self, self._make_camera)
        self._waiting: NewestByKey[_Waiting] = NewestByKey()
        self._expected = Expectation()

    def configure(self) -> None:
        """Load the detector and create publishers and subscriptions."""
        names = self.settings.cameras
        check_camera_names(names)
        weights = find_weights(self.settings.weights, model_directories())
        self._detector = open_detector(
            weights,
            self.settings.backend,
            device=self.settings.device,
            threads=self.settings.threads or None,
            image_size=self.settings.image_size,
        )
        self._identity = weights_identity(self._detector.weights)
        self._cameras = CameraSet(self, self._make_camera)
        self._cameras.become(names)
        self.get_logger().info(
            f"cameras {', '.join(names)}; weights {weights} by {self._detector.name}"
        )

    def _make_camera(self, name: str) -> _Camera:
        camera = _Camera(self, name)
        if self._subscribes:
            self.subscription(
                DecodedFrame, f"{name}/decoded_frame", partial(self._on_frame, camera)
            )
            take = partial(self._leave, camera)
            camera.followed = self.follow(
                {Image: take, CompressedImage: take}, f"{name}/anonymized/image"
            )
        return camera

    def check_settings(self, settings: NodeParameters) -> None:
        """As `ManagedNode.check_settings`."""
        assert isinstance(settings, DetectorParameters)
        check_camera_names(settings.cameras)

    def setting_changed(self, name: str, value: Value) -> None:
        """Apply a changed live parameter."""
        if name == "cameras" and self.configured:
            self._cameras.become(self.settings.cameras)

    def activate(self) -> None:
        """Start working."""
        self._waiting = NewestByKey()
        for camera in self._cameras.values():
            camera.health.restart()
        self.start_worker("detect", self._detect_next)

    def interrupt(self) -> None:
        """Wake waiting workers, so that they can end."""
        self._waiting.close()

    # Input: images from the decoder in this process (handover.FrameTaker)

    def wants(self, camera: str) -> bool:
        """As `FrameTaker.wants`."""
        return self.active and camera in self._cameras

    def wait_for_room(self, timeout_s: float) -> bool:
        """As `FrameTaker.wait_for_room`."""
        return not self.active or self._waiting.wait_for_room(self._batch_limit, timeout_s)

    def expected_ms(self) -> float:
        """As `FrameTaker.expected_ms`."""
        return self._expected.ms

    def put(self, camera: str, frame: AnonymizedFrame) -> None:
        """As `FrameTaker.put`."""
        if known := self._cameras.get(camera):
            self._leave(known, frame)

    # Input: images from topics

    def _on_frame(self, camera: _Camera, message: DecodedFrame) -> None:
        camera.sizes.add(
            stamp_ns(message.header),
            (message.coded_height, message.coded_width),
            (message.original_height, message.original_width),
            unknown_of(message),
        )

    def _leave(self, camera: _Camera, image: _Waiting) -> None:
        camera.health.heard()
        if self._waiting.put(camera.name, image):
            camera.health.replaced += 1

    # Output: persons

    @property
    def _batch_limit(self) -> int:
        return batch_limit(self.settings.max_batch, self.settings.device)

    def _detect_next(self) -> None:
        """Search waiting images (detect thread)."""
        frames = []
        for name, item in self._waiting.take_all(TAKE_TIMEOUT_S, self._batch_limit):
            camera = self._cameras.get(name)
            if camera is None:
                continue
            frame = item if isinstance(item, AnonymizedFrame) else self._read(camera, item)
            if frame is None:
                continue
            if shows_nothing(frame.picture):
                self._skip(camera, NOTHING_SHOWN, NOTHING)
                continue
            frames.append((camera, frame))
        started = time.perf_counter()
        found = self._detector.detect_batch(
            [frame.picture for _, frame in frames],
            confidence=self.settings.confidence,
            iou=self.settings.iou,
            image_size=self.settings.image_size,
        )
        detect_ms = 1e3 * (time.perf_counter() - started)
        if frames:
            self._expected.add(detect_ms)
        self.each(
            lambda seen: self._finish(*seen[0], seen[1], detect_ms),
            zip(frames, found, strict=True),
        )

    def _read(self, camera: _Camera, message: Image | CompressedImage) -> AnonymizedFrame | None:
        """The frame of an image message; None, counted and reported, if it is invalid."""
        try:
            pixels = rgb_from_message(message)
        except ImageMessageError as error:
            self._skip(camera, BAD_IMAGE, str(error))
            return None
        size = (pixels.shape[0], pixels.shape[1])
        original = camera.sizes.find(stamp_ns(message.header), size, SIZE_TIMEOUT_S)
        if original is None and not self.count_publishers(f"{camera.name}/decoded_frame"):
            original = size  # no decoder of this package: the image is the camera's
        if original is None:
            self._skip(camera, UNKNOWN_SIZE, "the size of the camera's image is unknown")
            return None
        unknown = camera.sizes.unknown(stamp_ns(message.header))
        return AnonymizedFrame(message.header, pixels, original, unknown)

    def _finish(
        self, camera: _Camera, frame: AnonymizedFrame, found: Detections, detect_ms: float
    ) -> None:
        header = frame.header
        camera.persons.publish(
            persons_from_detections(
                found, frame.original_size, header, camera.name, detect_ms, frame.unknown
            )
        )
        if camera.detections is not None and camera.detections.get_subscription_count():
            camera.detections.publish(detection_array(found, header))
        if camera.images.get_subscription_count():
            camera.images.publish(image_from_rgb(draw_detections(frame.image, found), header))
        camera.detected += 1
        camera.detect_ms.add(detect_ms)
        camera.persons_seen.add(len(found))
        camera.health.used(self.age_s(header))

    def _skip(self, camera: _Camera, cause: str, reason: str) -> None:
        camera.health.refuse(cause, reason)
        self.warn(f"{camera.name} {cause}", f"{camera.name}: image skipped: {reason}")

    # Diagnostics

    def statuses(self) -> list[Status]:
        """Diagnostics of this node."""
        return [self._status(camera) for camera in self._cameras.values()]

    def _status(self, camera: _Camera) -> Status:
        values: dict[str, Figure] = {
            "weights": self._detector.weights.name,
            "backend": self._detector.name,
            "weights_identity": self._identity,
            "received_fps": camera.health.arrivals.rate_hz,
            "fps": camera.detect_ms.rate_hz,
            "detect_ms_p50": camera.detect_ms.percentile(50),
            "detect_ms_p95": camera.detect_ms.percentile(95),
            "age_ms_p50": camera.health.age_ms.percentile(50),
            "age_ms_p95": camera.health.age_ms.percentile(95),
            "persons_mean": camera.persons_seen.mean,
            "frames": camera.detected,
            "dropped": camera.health.replaced,
            "lost": camera.followed.lost if camera.followed else 0,
            f"rejected.{UNKNOWN_SIZE}": 0,
            f"rejected.{BAD_IMAGE}": 0,
            f"rejected.{NOTHING_SHOWN}": 0,
            **rejects(camera.health.refusals),
        }
        judgement = camera.health.judge(self.settings.stale_after_s)
        level = judgement.level
        message = judgement.message or f"detecting in {camera.detect_ms.rate_hz:.1f} frames/s"
        if level is Level.STALE:
            level, message = self._judge_silence(camera, message)
        return Status(camera.name, level, message, values, camera.name)

    def _judge_silence(self, camera: _Camera, silence: str) -> tuple[Level, str]:
        followed = camera.followed
        if followed is not None and followed.complaint:
            return Level.ERROR, f"{silence}: {followed.complaint}"
        if followed is not None and not followed.offers:
            return Level.STALE, f"{silence}: no publisher on {followed.topic}"
        return Level.STALE, silence
