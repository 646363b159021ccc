# SPDX-License-Identifier: Apache-2.0
"""Collects what the demo's graph publishes: silent stages, figures and complete frames per camera.

It takes objects that have the fields of msg/DecodedFrame.msg and msg/PersonArray.msg, and what
the encoders' diagnostics say.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from roi_codec_ros.lab.demo.map_book import MapBook, MapMoment, WatchedFloor, stamp_of
from roi_codec_ros.lab.demo.moments import FrameFacts, Moment, MomentStore
from roi_codec_ros.lab.demo.panels import PersonMark
from roi_codec_ros.lab.demo.report import (
    CameraRecord,
    Coding,
    Decoded,
    Detected,
    Latency,
    Summary,
)

STAGES = ("encoder", "decoder", "detector", "tracker")
_WAITING = 20  # detections whose tracks have not come yet


class DemoLedger:
    """Collects the messages of several cameras; every method may be called from any thread.

    A frame has come through when the tracker has passed it on; its end-to-end latency is the time
    of that minus its stamp. Where the tracker joins all cameras (tracks that name no camera), it
    has when the detector's persons arrive.
    """

    def __init__(self, cameras: Sequence[str]) -> None:
        self.model = ""
        self._records = {camera: CameraRecord(camera) for camera in cameras}
        self._stores = {camera: MomentStore() for camera in cameras}
        self._seen: dict[str, set[str]] = {camera: set() for camera in cameras}
        self._fields_of_view: dict[str, float] = {}
        self._found: dict[str, OrderedDict[int, Any]] = {
            camera: OrderedDict() for camera in cameras
        }
        self._tracks_by_camera = False
        self._map = MapBook()
        self._lock = threading.Lock()

    def silent_stage(self) -> tuple[str, str] | None:
        """The first stage that has sent nothing, and for which camera; None once all have."""
        with self._lock:
            for stage in STAGES:
                for camera, seen in self._seen.items():
                    if stage not in seen:
                        return stage, camera
        return None

    def restart(self) -> float:
        """Forget the frames so far and count from now on; the time, on the monotonic clock."""
        with self._lock:
            for camera, record in self._records.items():
                del record.coding[:-1]  # the last is what the next one's counters begin at
                record.decoded.clear()
                record.detected.clear()
                self._stores[camera].clear()
            self._map.clear()
        return time.monotonic()

    def summaries(self, start_s: float, end_s: float) -> list[Summary]:
        """Every camera's figures over some time of the monotonic clock."""
        with self._lock:
            return [record.summary(start_s, end_s) for record in self._records.values()]

    def moments(self) -> dict[str, list[Moment]]:
        """Every camera's complete frames by time."""
        with self._lock:
            return {camera: store.moments() for camera, store in self._stores.items()}

    def map_moments(self) -> tuple[list[MapMoment], list[WatchedFloor]]:
        """Who was where in the map of all cameras, and which floor was watched, by time."""
        with self._lock:
            return self._map.moments(), self._map.watched()

    def fields_of_view(self) -> dict[str, float]:
        """Horizontal field of view in degrees of each calibrated camera."""
        with self._lock:
            return dict(self._fields_of_view)

    def on_latent(self, camera: str) -> None:
        """A latent has arrived."""
        with self._lock:
            self._seen[camera].add("encoder")

    def on_coding(self, camera: str, values: Mapping[str, str]) -> None:
        """What an encoder's diagnostics say of its coding has arrived."""
        coding = Coding(
            arrival_s=time.monotonic(),
            dropped=int(values["dropped"]),
            encode_ms=Latency.of_text(values["encode_ms_p50"], values["encode_ms_p95"]),
        )
        with self._lock:
            self._records[camera].coding.append(coding)

    def on_field_of_view(self, camera: str, degrees: float) -> None:
        """A camera's horizontal field of view is known."""
        with self._lock:
            self._fields_of_view[camera] = degrees

    def on_decoded(self, camera: str, message: Any) -> None:
        """A frame was decoded (fields of DecodedFrame)."""
        original = (message.original_height, message.original_width)
        coded = (message.coded_height, message.coded_width)
        decoded = Decoded(
            arrival_s=time.monotonic(),
            sequence=message.sequence,
            payload_bytes=message.payload_bytes,
            coded_pixels=coded[0] * coded[1],
            original_pixels=original[0] * original[1],
            decode_ms=message.decode_ms,
        )
        facts = FrameFacts(original, coded, message.source_position, message.payload_bytes)
        with self._lock:
            self.model = message.model
            self._seen[camera] |= {"encoder", "decoder"}
            self._records[camera].decoded.append(decoded)
            self._stores[camera].add_facts(stamp_of(message), facts)

    def on_image(self, camera: str, stamp_ns: int, image: np.ndarray) -> None:
        """A decoded image has arrived, uint8 [H, W, 3] RGB."""
        with self._lock:
            self._stores[camera].add_image(stamp_ns, image)

    def on_persons(self, camera: str, message: Any) -> None:
        """The persons of a frame have arrived (fields of PersonArray)."""
        with self._lock:
            self._seen[camera] |= {"encoder", "decoder", "detector"}
            if self._tracks_by_camera:
                found = self._found[camera]
                found[stamp_of(message)] = message
                while len(found) > _WAITING:
                    found.popitem(last=False)
            else:
                self._came_through(camera, message, message)

    def on_tracks(self, message: Any) -> None:
        """Tracks have arrived (fields of PersonArray)."""
        with self._lock:
            if message.camera not in self._records:  # one map of all cameras
                for seen in self._seen.values():
                    seen.add("tracker")
                self._map.add_tracks(message)
                return
            self._seen[message.camera].add("tracker")
            self._tracks_by_camera = True
            found = self._found[message.camera].pop(stamp_of(message), message)
            self._came_through(message.camera, found, message)

    def on_coverage(self, message: Any) -> None:
        """A coverage map has arrived (fields of OccupancyGrid)."""
        with self._lock:
            self._map.add_coverage(message)

    def _came_through(self, camera: str, found: Any, tracked: Any) -> None:
        stamp_ns = stamp_of(tracked)
        self._records[camera].detected.append(
            Detected(
                arrival_s=time.monotonic(),
                detect_ms=found.detect_ms,
                end_to_end_ms=(time.time_ns() - stamp_ns) / 1e6,
                persons=len(tracked.persons),
            )
        )
        self._stores[camera].add_persons(stamp_ns, tuple(map(_mark, tracked.persons)))


def _mark(person: Any) -> PersonMark:
    xx, xz, zx, zz = (float(value) for value in person.position_covariance)
    return PersonMark(
        box=(person.x, person.y, person.width, person.height),
        score=person.score,
        track_id=person.track_id,
        position=(person.position.x, person.position.z) if person.position_valid else None,
        velocity=(person.velocity.x, person.velocity.z) if person.position_valid else (0.0, 0.0),
        covariance=(xx, xz, zx, zz),
    )
