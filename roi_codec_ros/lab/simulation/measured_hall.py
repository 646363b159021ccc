# SPDX-License-Identifier: Apache-2.0
"""A simulated hall as measurements: walking people, overlapping cameras, and all their errors.

Cameras miss people, hide them behind one another, see some who are not there, drop frames, set
their clocks wrong and send late. The truth is known, so a tracker can be measured against it.
What is not simulated: errors of a camera's pose, and errors that stay the same over many frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.simulation.walking import Floor, Walk, walk
from roi_codec_ros.perception.coverage import ViewWedge
from roi_codec_ros.perception.track_bank import Measurements


def corner_cameras(floor: Floor) -> dict[str, ViewWedge]:
    """A camera in each corner that looks at the middle; most places are seen by three or four."""
    half, depth = floor.width_m / 2, floor.depth_m
    corners = [(-half, 0.0), (half, 0.0), (half, depth), (-half, depth)]
    return {
        f"cam{index}": ViewWedge(
            x, y, math.atan2(depth / 2 - y, -x), math.radians(80.0), range_m=16.0
        )
        for index, (x, y) in enumerate(corners)
    }


@dataclass(frozen=True)
class HallSettings:
    """What the hall is like and what goes wrong in it.

    persons: so many at a time. rate_hz: frames per second of each camera. missed: share of
    persons in sight that a frame misses. false_per_frame: mean count of new false detections a
    frame. false_stays: share of false detections that are there in the next frame too. dropped:
    share of frames that never arrive. clock_offset_s: each clock is wrong by up to this.
    jitter_s: standard deviation of when a frame is taken. latency_s: from taking to arrival at
    least; latency_tail_s: mean of the exponential time that comes on top.
    """

    floor: Floor = field(default_factory=Floor)
    persons: int = 20
    rate_hz: float = 10.0
    missed: float = 0.1
    false_per_frame: float = 0.1
    false_stays: float = 0.5
    dropped: float = 0.05
    clock_offset_s: float = 0.05
    jitter_s: float = 0.005
    latency_s: float = 0.06
    latency_tail_s: float = 0.04

    def __post_init__(self) -> None:
        if self.persons < 1 or not self.rate_hz > 0:
            raise RoiCodecError(
                "expected persons and frames per second above 0, "
                f"found {self.persons} and {self.rate_hz:g}"
            )


@dataclass(frozen=True, eq=False)
class SimulatedFrame:
    """Measurements under their camera's own stamp, and when they arrive in true time, seconds."""

    arrival: float
    measurements: Measurements


@dataclass(frozen=True, eq=False)
class Hall:
    """A simulated hall. frames: all that arrive, in order of arrival; times count from 0."""

    settings: HallSettings
    cameras: dict[str, ViewWedge]
    walk: Walk
    frames: tuple[SimulatedFrame, ...]
    seconds: float

    def persons_in_view(self, at: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids [N] and places [N, 2] of the persons in any camera's wedge, hidden ones too."""
        ids, xy = self.walk.at(at)
        inside = np.any([wedge.covers(xy) for wedge in self.cameras.values()], axis=0)
        return ids[inside], xy[inside]


def simulate_hall(seed: int, seconds: float, settings: HallSettings | None = None) -> Hall:
    """Simulate for a time; the same seed gives the same hall."""
    settings = settings or HallSettings()
    if not (math.isfinite(seconds) and seconds >= 1):
        raise RoiCodecError(f"expected a second or more to simulate, found {seconds:g} s")
    random = np.random.default_rng(seed)
    cameras = corner_cameras(settings.floor)
    people = walk(settings.floor, settings.persons, seconds, random)
    frames = [
        frame
        for name, wedge in cameras.items()
        for frame in _frames(name, wedge, people, seconds, settings, random)
    ]
    frames.sort(key=lambda frame: (frame.arrival, frame.measurements.camera))
    return Hall(settings, cameras, people, tuple(frames), seconds)


def _frames(
    name: str,
    wedge: ViewWedge,
    people: Walk,
    seconds: float,
    settings: HallSettings,
    random: np.random.Generator,
) -> list[SimulatedFrame]:
    offset = random.uniform(-settings.clock_offset_s, settings.clock_offset_s)
    phase = random.uniform(0, 1 / settings.rate_hz)
    ghosts = np.zeros((0, 2))
    frames = []
    for index in range(int((seconds - phase) * settings.rate_hz)):
        taken = max(phase + index / settings.rate_hz + random.normal(0, settings.jitter_s), 0.0)
        ghosts = _next_ghosts(ghosts, wedge, settings, random)
        _, xy = people.at(taken)
        found = xy[visible(wedge, xy)]
        found = found[random.random(len(found)) >= settings.missed]
        places = np.concatenate([found, ghosts])
        covariance = measurement_covariance(wedge, places)
        noise = np.linalg.cholesky(covariance) @ random.standard_normal((len(places), 2, 1))
        latency = settings.latency_s + random.exponential(settings.latency_tail_s)
        if random.random() >= settings.dropped:
            frame = Measurements(name, taken + offset, places + noise[:, :, 0], covariance)
            frames.append(SimulatedFrame(taken + latency, frame))
    return frames


def _next_ghosts(
    ghosts: NDArray[np.float64],
    wedge: ViewWedge,
    settings: HallSettings,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """False detections of the next frame, [N, 2]: some stay, some come."""
    stay = ghosts[random.random(len(ghosts)) < settings.false_stays]
    new = [settings.floor.place(random) for _ in range(random.poisson(settings.false_per_frame))]
    places = np.array(new).reshape(-1, 2)
    return np.concatenate([stay, places[wedge.covers(places)]])


HALF_WIDTH_M = 0.25  # of a person who hides another
BEHIND_M = 0.4  # who is nearer to the one in front than this is not hidden


def visible(wedge: ViewWedge, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool [N]: in the wedge, and not occluded by a nearer person."""
    return wedge.covers(xy) & ~wedge.hidden(xy, HALF_WIDTH_M, BEHIND_M)


def measurement_covariance(wedge: ViewWedge, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [N, 2, 2], m²: how well a camera 3 m above the floor tells places [N, 2].

    A foot point that is off by some pixels moves along the ray with the square of the range
    (0.3 m at 13 m) and across it with the range (0.12 m at 13 m).
    """
    distance, bearing = wedge.polar(xy)
    angle = bearing + wedge.heading_rad
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    along_m, across_m = 0.05 + 0.0015 * distance**2, 0.04 + 0.006 * distance
    return np.asarray(
        along_m[:, None, None] ** 2 * along[:, :, None] * along[:, None, :]
        + across_m[:, None, None] ** 2 * across[:, :, None] * across[:, None, :]
    )
