# SPDX-License-Identifier: Apache-2.0
"""decoder_node: latents of one or many cameras in, anonymized images out.

    <camera>/latent ─► state ─► newest per camera ─► decode thread ─► <camera>/decoded_frame
    <camera>/latent/camera_info ──────────────────────────┤  <camera>/anonymized/camera_info
                                                          │  <camera>/anonymized/image[/compressed]
                                                          └► a detector in the same process

Images are only reconstructed for subscribers or a detector; but each payload updates the state of
its stream, which later payloads build on. A payload of an unknown model, a damaged one, and a
frame that does not follow the last one (freshness.py) are counted and reported; nothing is
published for them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from sensor_msgs.msg import CameraInfo

from roi_codec_ros.codec import (
    BitstreamError,
    DecodedFrame,
    Decoder,
    Payload,
    ReadFrame,
    UnknownModelError,
    kernel_complaint,
    load_model,
)
from roi_codec_ros.common.devices import batch_limit
from roi_codec_ros.config.parameter_values import Value
from roi_codec_ros.config.parameters import (
    DecoderParameters,
    NodeParameters,
    check_camera_names,
)
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.camera_set import CameraSet
from roi_codec_ros.nodes.conversions import stamp_ns
from roi_codec_ros.nodes.decoded_camera import BAD_PAYLOAD, UNKNOWN_MODEL, DecodedCamera
from roi_codec_ros.nodes.diagnostics import Level, Status, coder_statuses
from roi_codec_ros.nodes.handover import AnonymizedFrame, FrameTaker
from roi_codec_ros.nodes.snapshots import Snapshots
from roi_codec_ros.stream.newest import NewestByKey
from roi_codec_ros.stream.statistics import Expectation, in_time

TAKE_TIMEOUT_S = 0.2
LATENT_TYPE = "roi_codec_ros/msg/CompressedLatent"
LOSS_TO_NAME = 0.02  # of the received frames; an occasional loss is normal


@dataclass(frozen=True)
class _Waiting:
    """A waiting latent.

    frame: its decoded symbols, or the payload if it is standalone. since_s: `time.monotonic`.
    """

    message: CompressedLatent
    frame: ReadFrame | Payload
    since_s: float


class DecoderNode(ManagedNode):
    """Publishes `<camera>/anonymized/…` and `<camera>/decoded_frame`."""

    executable = "decoder_node"
    settings: DecoderParameters

    def __init__(self) -> None:
        super().__init__("decoder")
        self._cameras = CameraSet(self, self._make_camera)
        self._taker: FrameTaker | None = None

    def hand_to(self, taker: FrameTaker) -> None:
        """Hand over frames to a node of the same process. Call before the node spins."""
        self._taker = taker

    def configure(self) -> None:
        """Load the models and create publishers and subscriptions."""
        names = self.settings.cameras
        check_camera_names(names)
        models = [load_model(name) for name in self.settings.models]
        self._decoder = Decoder(
            models,
            backend=self.settings.backend,
            device=self.settings.device,
            threads=self.settings.threads or None,
            max_pixels=self.settings.max_pixels,
        )
        self._known = ", ".join(f"{model.name} ({model.id.hex()})" for model in models)
        self._cameras = CameraSet(self, self._make_camera)
        self._cameras.become(names)
        self._snapshots = Snapshots(self, self.settings.snapshot_folder, self._cameras)
        self._backends = ", ".join(
            f"{name} by {backend}" for name, backend in self._decoder.backends.items()
        )
        if complaint := kernel_complaint():
            self.get_logger().warning(complaint)
        self.get_logger().info(
            f"cameras {', '.join(names)}; models {self._known}; {self._backends}"
        )

    def _make_camera(self, name: str) -> DecodedCamera:
        camera = DecodedCamera(self, name)
        self.subscription(
            CompressedLatent, f"{name}/latent", partial(self._on_latent, camera), qos.latents()
        )
        self.lasting_subscription(
            CameraInfo, f"{name}/latent/camera_info", partial(self._on_camera_info, camera)
        )
        return camera

    def check_settings(self, settings: NodeParameters) -> None:
        """As `ManagedNode.check_settings`."""
        assert isinstance(settings, DecoderParameters)
        check_camera_names(settings.cameras)

    def setting_changed(self, name: str, value: Value) -> None:
        """Apply a changed live parameter."""
        if name == "cameras" and self.configured:
            self._cameras.become(self.settings.cameras)

    def activate(self) -> None:
        """Start working."""
        self._waiting: NewestByKey[_Waiting] = NewestByKey()
        self._expected = Expectation()
        for camera in self._cameras.values():
            camera.health.restart()
        self.start_worker("decode", self._decode_next)

    def interrupt(self) -> None:
        """Wake waiting workers, so that they can end."""
        self._waiting.close()

    # Input: latents

    def _on_camera_info(self, camera: DecodedCamera, message: CameraInfo) -> None:
        camera.info = message if message.width and message.height else None

    def _on_latent(self, camera: DecodedCamera, message: CompressedLatent) -> None:
        if self._cameras.get(camera.name) is not camera:
            return  # the camera was removed
        heard_s = camera.health.heard(8.0 * len(message.data))
        try:
            payload = self._decoder.parse(message.data)
        except UnknownModelError as error:
            self._refuse(camera, UNKNOWN_MODEL, f"{error}, named {message.model[:64]!r}")
            return
        except BitstreamError as error:
            self._refuse(camera, BAD_PAYLOAD, str(error))
            return
        verdict = camera.guard.check(
            stamp_ns(message.header),
            message.sequence,
            heard_s=heard_s,
            age_s=self.age_s(message.header),
            restart_after_s=self.settings.restart_after_s,
            max_age_s=self.settings.max_age_s,
        )
        if verdict.lost:
            camera.lost.add(verdict.lost)
        if verdict.refusal is not None:
            self._refuse(camera, verdict.refusal.cause, verdict.refusal.reason)
            return
        if verdict.restart:
            self.warn(
                f"{camera.name} restart",
                f"{camera.name}: the stream restarts: {verdict.restart}",
            )
        frame: ReadFrame | Payload = payload
        if payload.stream:
            try:
                frame = self._decoder.read(payload, camera.state)
            except BitstreamError as error:
                self._refuse(camera, BAD_PAYLOAD, str(error))
                return
        if self._waiting.put(camera.name, _Waiting(message, frame, time.monotonic())):
            camera.health.replaced += 1

    # Output: images

    def _decode_next(self) -> None:
        """Decode waiting latents (decode thread)."""
        if not self._worth_decoding():
            return
        limit = batch_limit(self.settings.max_batch, self.settings.device)
        wanted: list[tuple[DecodedCamera, _Waiting]] = []
        for name, waiting in self._waiting.take_all(TAKE_TIMEOUT_S, limit):
            camera = self._cameras.get(name)
            if camera is None:
                continue
            if not self._wanted(camera):
                camera.health.used()
            elif self._in_time(waiting):
                wanted.append((camera, waiting))
            else:
                camera.late += 1
                camera.late_moments.add(1)
        if not wanted:
            return
        started = time.perf_counter()
        outcomes = self._decoder.decode_batch([waiting.frame for _, waiting in wanted])
        decode_ms = 1e3 * (time.perf_counter() - started)
        self._expected.add(decode_ms)
        self.each(
            lambda frame: self._finish(frame[0][0], frame[0][1].message, frame[1], decode_ms),
            zip(wanted, outcomes, strict=True),
        )

    def _in_time(self, waiting: _Waiting) -> bool:
        """Whether its persons (without a detector in this process: its image) can meet the
        deadline.
        """
        waited_ms = 1e3 * (time.monotonic() - waiting.since_s)
        detect_ms = self._taker.expected_ms() if self._taker is not None else 0.0
        return in_time(waited_ms, self._expected.ms + detect_ms, self.settings.deadline_ms)

    def _worth_decoding(self) -> bool:
        """False while the detector in this process is busy and there are no subscribers.

        Waiting latents are meanwhile replaced by newer ones, which costs only bandwidth.
        """
        if self._taker is None or any(camera.subscribed for camera in self._cameras.values()):
            return True
        return self._taker.wait_for_room(TAKE_TIMEOUT_S)

    def _wanted(self, camera: DecodedCamera) -> bool:
        if camera.subscribed or self._snapshots.due(camera.name):
            return True
        return self._taker is not None and self._taker.wants(camera.name)

    def _finish(
        self,
        camera: DecodedCamera,
        message: CompressedLatent,
        outcome: DecodedFrame | BitstreamError,
        decode_ms: float,
    ) -> None:
        if isinstance(outcome, BitstreamError):
            self._refuse(camera, BAD_PAYLOAD, str(outcome))
            return
        camera.publish_info(message, outcome)  # before the persons that depend on it
        if self._taker is not None and self._taker.wants(camera.name):
            unknown = None if outcome.known.all() else ~outcome.known
            self._taker.put(
                camera.name,
                AnonymizedFrame(message.header, outcome.planes, outcome.original_size, unknown),
            )
        jpeg_quality = self.settings.jpeg_quality
        camera.publish(message, outcome, decode_ms, jpeg_quality)
        if self._snapshots.due(camera.name):
            self._snapshots.take(camera.name, message.header, outcome.image, jpeg_quality)
        camera.count(message, outcome, decode_ms)
        camera.health.used(self.age_s(message.header))

    def _refuse(self, camera: DecodedCamera, cause: str, reason: str) -> None:
        count = camera.health.refuse(cause, reason)
        self.warn(
            f"{camera.name} {cause}",
            f"{camera.name}: payload refused ({cause}, {count} so far): {reason}",
        )

    # Diagnostics

    def statuses(self) -> list[Status]:
        """Diagnostics of this node."""
        own = {"models": self._known, "backend": self._backends}
        statuses = []
        for camera in self._cameras.values():
            level, message = self._judge(camera)
            values = {**own, **camera.figures()}
            statuses.append(Status(camera.name, level, message, values, camera.name))
        return [*statuses, *coder_statuses()]

    def _judge(self, camera: DecodedCamera) -> tuple[Level, str]:
        judgement = camera.health.judge(self.settings.stale_after_s)
        if judgement.level is Level.STALE:
            return Level.STALE, f"{judgement.message}{self._whereabouts(camera)}"
        if judgement.level is not Level.OK:
            return judgement.level, judgement.message
        if not self._wanted(camera):
            return Level.OK, "latents arrive; no subscribers to the images"
        level, decoding = Level.OK, f"decoding {camera.decode_ms.rate_hz:.1f} frames/s"
        lost_fps = camera.lost.total_per_s
        if lost_fps > LOSS_TO_NAME * camera.health.arrivals.rate_hz:
            decoding += f"; {lost_fps:.1f} frames/s are lost on the way"
            level = Level.WARN
        if late := camera.late_moments.count:
            decoding += f"; {late} came too late for deadline_ms"
            level = Level.WARN
        if camera.known_share < 1.0:
            decoding += f"; {camera.known_share:.0%} of the picture is known"
            level = Level.WARN
        return level, decoding

    def _whereabouts(self, camera: DecodedCamera) -> str:
        """A hint to where a silent camera's encoder may be; empty if there is a publisher."""
        if self.count_publishers(f"{camera.name}/latent"):
            return ""
        own = {self.resolve_topic_name(f"{name}/latent") for name in self._cameras}
        others = sorted(
            topic
            for topic, types in self.get_topic_names_and_types()
            if LATENT_TYPE in types and topic not in own and self.count_publishers(topic)
        )
        nobody = f": no publisher on {self.resolve_topic_name(f'{camera.name}/latent')}"
        return f"{nobody}, but there is {', '.join(others[:3])}" if others else nobody
