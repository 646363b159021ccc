# SPDX-License-Identifier: Apache-2.0
"""decoder_node: latents of one or many cameras in, anonymized images out.

    <camera>/latent ─► state ─► newest per camera ─► decode thread ─► <camera>/decoded_frame
    <camera>/latent/camera_info ──────────────────────────┤  <camera>/anonymized/camera_info
                                                          │  <camera>/anonymized/image[/compressed]
                                                          └► a detector in the same process

No image is made while nobody subscribes and no detector asks; but each payload of a stream brings
its state up to date, so that what later ones leave out is known. A payload of an unknown model, a
damaged one, and a frame that does not follow the last one (freshness.py) are counted and named;
nothing is published for them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from roi_codec_ros.codec import (
    BitstreamError,
    DecodedFrame,
    Decoder,
    Payload,
    ReadFrame,
    StreamState,
    UnknownModelError,
    kernel_complaint,
    load_model,
)
from roi_codec_ros.common.devices import batch_limit
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.config.parameters import DecoderParameters, check_camera_names
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.msg import DecodedFrame as DecodedFrameMessage
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.camera_info import scaled_camera_info
from roi_codec_ros.nodes.conversions import byte_array, image_from_rgb, jpeg_from_rgb, stamp_ns
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status, rejects
from roi_codec_ros.nodes.handover import AnonymizedFrame, FrameTaker
from roi_codec_ros.stream.deadline import Expectation, in_time
from roi_codec_ros.stream.freshness import CAUSES, FreshnessGuard
from roi_codec_ros.stream.health import CameraHealth, Words
from roi_codec_ros.stream.newest import NewestByKey
from roi_codec_ros.stream.statistics import SlidingWindow

TAKE_TIMEOUT_S = 0.2
LATENTS = Words("no latent", "payloads refused", "latents arrive, none decoded")
LATENT_TYPE = "roi_codec_ros/msg/CompressedLatent"
UNKNOWN_MODEL, BAD_PAYLOAD = "unknown_model", "bad_payload"
LOSS_TO_NAME = 0.02  # of the frames that came; now and then one is lost anywhere


class _Camera:
    """One camera's publishers, counters and figures."""

    def __init__(self, node: ManagedNode, name: str) -> None:
        self.name = name
        picture = f"{name}/anonymized/image"
        self.images = node.publisher(Image, picture, qos.images())
        self.jpegs = node.publisher(CompressedImage, f"{picture}/compressed", qos.images())
        self.infos = node.publisher(CameraInfo, f"{name}/anonymized/camera_info", qos.images())
        self.info: CameraInfo | None = None
        self.snapshots_due = 0
        self.frames = node.publisher(DecodedFrameMessage, f"{name}/decoded_frame")
        self.health = CameraHealth(LATENTS)  # arrivals: in bits
        self.lost = SlidingWindow()
        self.bits_per_pixel = SlidingWindow()
        self.decode_ms = SlidingWindow()
        self.decoded = 0
        self.guard = FreshnessGuard()
        self.state = StreamState()
        self.known_share = 1.0  # of the last image
        self.late = 0
        self.late_moments = SlidingWindow()
        self.model = ""
        self.model_identity = ""

    @property
    def subscribed(self) -> bool:
        return self.images.get_subscription_count() > 0 or self.jpegs.get_subscription_count() > 0


@dataclass(frozen=True)
class _Waiting:
    """A latent that waits.

    frame: what was read of it, or the payload if that stands alone. since_s: `time.monotonic`.
    """

    message: CompressedLatent
    frame: ReadFrame | Payload
    since_s: float


class DecoderNode(ManagedNode):
    """Publishes what is under `<camera>/anonymized`, and `<camera>/decoded_frame`."""

    executable = "decoder_node"
    settings: DecoderParameters

    def __init__(self) -> None:
        super().__init__("decoder")
        self._cameras: dict[str, _Camera] = {}
        self._taker: FrameTaker | None = None

    def hand_to(self, taker: FrameTaker) -> None:
        """Hand every frame that it wants to a node of the same process. Call before it spins."""
        self._taker = taker

    def configure(self) -> None:
        """Load what the parameters name and create publishers and subscriptions."""
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
        self._cameras = {name: _Camera(self, name) for name in names}
        for name in names:
            self.subscription(
                CompressedLatent,
                f"{name}/latent",
                partial(self._on_latent, self._cameras[name]),
                qos.latents(),
            )
            self.lasting_subscription(
                CameraInfo,
                f"{name}/latent/camera_info",
                partial(self._on_camera_info, self._cameras[name]),
            )
        self._snapshots = self._snapshot_folder()
        self.service(Trigger, "~/snapshot", self._on_snapshot)
        self._backends = ", ".join(
            f"{name} by {backend}" for name, backend in self._decoder.backends.items()
        )
        if complaint := kernel_complaint():
            self.get_logger().warning(complaint)
        self.get_logger().info(
            f"cameras {', '.join(names)}; models {self._known}; {self._backends}"
        )

    def activate(self) -> None:
        """Start working."""
        self._waiting: NewestByKey[_Waiting] = NewestByKey()
        self._expected = Expectation()
        for camera in self._cameras.values():
            camera.health.restart()
        self.start_worker("decode", self._decode_next)

    def interrupt(self) -> None:
        """Wake whatever waits, so that workers can end."""
        self._waiting.close()

    # Latents come in

    def _on_camera_info(self, camera: _Camera, message: CameraInfo) -> None:
        camera.info = message if message.width and message.height else None

    def _on_latent(self, camera: _Camera, message: CompressedLatent) -> None:
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
                f"{camera.name}: a stream begins anew: {verdict.restart}",
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

    # Images go out

    def _decode_next(self) -> None:
        """In the decode thread."""
        if not self._worth_decoding():
            return
        limit = batch_limit(self.settings.max_batch, self.settings.device)
        wanted: list[tuple[_Camera, _Waiting]] = []
        for name, waiting in self._waiting.take_all(TAKE_TIMEOUT_S, limit):
            camera = self._cameras[name]
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
        """Whether its persons, or without a detector beside us its image, can be there in time."""
        waited_ms = 1e3 * (time.monotonic() - waiting.since_s)
        detect_ms = self._taker.expected_ms() if self._taker is not None else 0.0
        return in_time(waited_ms, self._expected.ms + detect_ms, self.settings.deadline_ms)

    def _worth_decoding(self) -> bool:
        """False while the detector beside us has enough to do and nobody else looks.

        The latents that wait meanwhile are replaced by newer ones, at no cost but their bytes.
        """
        if self._taker is None or any(camera.subscribed for camera in self._cameras.values()):
            return True
        return self._taker.wait_for_room(TAKE_TIMEOUT_S)

    def _wanted(self, camera: _Camera) -> bool:
        if camera.subscribed or camera.snapshots_due:
            return True
        return self._taker is not None and self._taker.wants(camera.name)

    def _finish(
        self,
        camera: _Camera,
        message: CompressedLatent,
        outcome: DecodedFrame | BitstreamError,
        decode_ms: float,
    ) -> None:
        if isinstance(outcome, BitstreamError):
            self._refuse(camera, BAD_PAYLOAD, str(outcome))
            return
        if camera.info is not None and camera.infos.get_subscription_count():
            height, width = outcome.coded_size
            info = scaled_camera_info(camera.info, width, height)
            info.header = message.header
            camera.infos.publish(info)  # before the persons who are placed by it
        if self._taker is not None and self._taker.wants(camera.name):
            unknown = None if outcome.known.all() else ~outcome.known
            self._taker.put(
                camera.name,
                AnonymizedFrame(message.header, outcome.planes, outcome.original_size, unknown),
            )
        payload_bytes = len(message.data)
        self._publish(camera, message, outcome, payload_bytes, decode_ms)
        if camera.snapshots_due:
            self._write_snapshot(camera, message.header, outcome.image)
        camera.model, camera.model_identity = outcome.model.name, outcome.model.identity.hex()
        height, width = outcome.coded_size
        camera.bits_per_pixel.add(8.0 * payload_bytes / (height * width))
        camera.decoded += 1
        camera.known_share = outcome.known_share
        camera.decode_ms.add(decode_ms)
        camera.health.used(self.age_s(message.header))

    def _refuse(self, camera: _Camera, cause: str, reason: str) -> None:
        count = camera.health.refuse(cause, reason)
        self.warn(
            f"{camera.name} {cause}",
            f"{camera.name}: payload refused ({cause}, {count} so far): {reason}",
        )

    def _publish(
        self,
        camera: _Camera,
        latent: CompressedLatent,
        decoded: DecodedFrame,
        payload_bytes: int,
        decode_ms: float,
    ) -> None:
        # The frame's data go first: whoever gets the image finds them there already.
        if camera.frames.get_subscription_count():
            camera.frames.publish(_frame_message(latent, decoded, payload_bytes, decode_ms))
        if camera.images.get_subscription_count():
            camera.images.publish(image_from_rgb(decoded.image, latent.header))
        if camera.jpegs.get_subscription_count():
            quality = self.settings.jpeg_quality
            camera.jpegs.publish(jpeg_from_rgb(decoded.image, latent.header, quality))

    # Snapshots

    def _snapshot_folder(self) -> Path | None:
        folder = self.settings.snapshot_folder
        if folder and not Path(folder).expanduser().is_dir():
            raise UsageError(f"snapshot_folder: expected a folder, found none at {folder}")
        return Path(folder).expanduser() if folder else None

    def _on_snapshot(self, request: Any, response: Any) -> Any:
        if self._snapshots is None:
            response.message = "expected a snapshot_folder to be set, found none"
        elif not self.active:
            response.message = "expected an active node, found an inactive one"
        else:
            for camera in self._cameras.values():
                camera.snapshots_due = 1
            response.success = True
            response.message = (
                f"the next anonymized image of {', '.join(self._cameras)} goes into "
                f"{self._snapshots}"
            )
        return response

    def _write_snapshot(self, camera: _Camera, header: Header, pixels: Any) -> None:
        camera.snapshots_due = 0
        jpeg = jpeg_from_rgb(pixels, header, self.settings.jpeg_quality)
        name = f"{camera.name.replace('/', '_')}_{stamp_ns(header)}.jpg"
        assert self._snapshots is not None
        try:
            write_whole(self._snapshots / name, jpeg.data.tobytes())
        except (OSError, RoiCodecError) as error:
            self.warn(f"{camera.name} snapshot", f"{camera.name}: no snapshot: {error}")

    # Diagnostics

    def statuses(self) -> list[Status]:
        """What /diagnostics shows of this node now."""
        return [self._status(camera) for camera in self._cameras.values()]

    def _status(self, camera: _Camera) -> Status:
        values: dict[str, Figure] = {
            "models": self._known,
            "backend": self._backends,
            "model": camera.model,
            "model_identity": camera.model_identity,
            "received_fps": camera.health.arrivals.rate_hz,
            "kbit_s": camera.health.arrivals.total_per_s / 1e3,
            "fps": camera.decode_ms.rate_hz,
            "bpp": camera.bits_per_pixel.mean,
            "known_share": camera.known_share,
            "age_ms_p50": camera.health.age_ms.percentile(50),
            "age_ms_p95": camera.health.age_ms.percentile(95),
            "decode_ms_p50": camera.decode_ms.percentile(50),
            "decode_ms_p95": camera.decode_ms.percentile(95),
            "frames": camera.decoded,
            "dropped": camera.health.replaced,
            "late": camera.late,
            "lost": camera.guard.lost,
            "lost_fps": camera.lost.total_per_s,
            "restarts": camera.guard.restarts,
            "last_restart": camera.guard.last_restart,
            **{f"rejected.{cause}": 0 for cause in (UNKNOWN_MODEL, BAD_PAYLOAD, *CAUSES)},
            **rejects(camera.health.refusals),
            "last_reject": camera.health.last_refusal,
        }
        level, message = self._judge(camera)
        return Status(camera.name, level, message, values, camera.name)

    def _judge(self, camera: _Camera) -> tuple[Level, str]:
        judgement = camera.health.judge(self.settings.stale_after_s)
        if judgement.level is Level.STALE:
            return Level.STALE, f"{judgement.message}{self._whereabouts(camera)}"
        if judgement.level is not Level.OK:
            return judgement.level, judgement.message
        if not self._wanted(camera):
            return Level.OK, "latents arrive; nobody subscribes to the images"
        level, decoding = Level.OK, f"decoding {camera.decode_ms.rate_hz:.1f} frames/s"
        lost_fps = camera.lost.total_per_s
        if lost_fps > LOSS_TO_NAME * camera.health.arrivals.rate_hz:
            decoding += f"; {lost_fps:.1f} frames/s are lost on the way"
            level = Level.WARN
        if late := camera.late_moments.count:
            decoding += f"; {late} came too late for deadline_ms"
            level = Level.WARN
        if camera.known_share < 1.0:
            decoding += f"; {camera.known_share:.0%} of the picture is there"
            level = Level.WARN
        return level, decoding

    def _whereabouts(self, camera: _Camera) -> str:
        """Where a silent camera's encoder may be looked for; empty while there is one."""
        if self.count_publishers(f"{camera.name}/latent"):
            return ""
        own = {self.resolve_topic_name(f"{name}/latent") for name in self._cameras}
        others = sorted(
            topic
            for topic, types in self.get_topic_names_and_types()
            if LATENT_TYPE in types and topic not in own and self.count_publishers(topic)
        )
        nobody = f": nobody publishes {self.resolve_topic_name(f'{camera.name}/latent')}"
        return f"{nobody}, but there is {', '.join(others[:3])}" if others else nobody


def _frame_message(
    latent: CompressedLatent, decoded: DecodedFrame, payload_bytes: int, decode_ms: float
) -> Any:
    message = DecodedFrameMessage(header=latent.header, model=decoded.model.name)
    message.model_id = np.frombuffer(decoded.model.id, np.uint8)
    message.original_height, message.original_width = decoded.original_size
    message.coded_height, message.coded_width = decoded.coded_size
    message.sequence = latent.sequence
    message.dropped = latent.dropped
    message.source_position = latent.source_position
    message.payload_bytes = payload_bytes
    message.encode_ms = latent.encode_ms
    message.decode_ms = decode_ms
    message.known_share = decoded.known_share
    if not decoded.known.all():
        message.unknown_columns = decoded.known.shape[1]
        message.unknown = byte_array((~decoded.known).tobytes())
    return message
