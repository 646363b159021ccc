# SPDX-License-Identifier: Apache-2.0
"""What a run of the demo leaves behind: a video and a contact sheet, made after the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import stamped, write
from roi_codec_ros.common.videos import write_video
from roi_codec_ros.lab.demo.camera_map import MapScale, nice_range_m
from roi_codec_ros.lab.demo.layout import (
    ANONYMIZED,
    NOT_ANONYMIZED,
    Captioned,
    Layout,
    TwinMap,
    camera_maps,
    contact_sheet,
    twin_sheet,
)
from roi_codec_ros.lab.demo.moments import Moment, moment_at, spread
from roi_codec_ros.lab.demo.panels import View
from roi_codec_ros.lab.demo.report import RAW_BITS_PER_PIXEL, Summary, bit_rate
from roi_codec_ros.lab.demo.twin import Twin

VIDEO_FRAMES_PER_SECOND = 10
SHEET_MOMENTS = 8
SHEET_ROWS = 3  # of a run in the map
_CODECS = ("mp4v", "avc1")  # avc1 is missing in most builds of OpenCV, and complains loudly
RawFrame = Callable[[int], "np.ndarray | None"]


@dataclass(frozen=True)
class Run:
    """A run that is over.

    moments: each camera's complete frames by time. raw_frames: for each camera whose source can be
    read again, what returns its frame of a position (RGB). stamped_frames: the same by stamp, for
    cameras that no file holds. fields_of_view_deg: where calibrated. twin: the map of all cameras,
    where their poses are known.
    """

    model: str
    seconds: float
    summaries: Sequence[Summary]
    moments: Mapping[str, list[Moment]]
    raw_frames: Mapping[str, RawFrame] = field(default_factory=dict)
    fields_of_view_deg: Mapping[str, float] = field(default_factory=dict)
    default_field_of_view_deg: float = 60.0
    trained: bool = True
    stamped_frames: Mapping[str, RawFrame] = field(default_factory=dict)
    twin: Twin | None = None

    @property
    def cameras(self) -> list[str]:
        """The cameras of which there is at least one complete frame."""
        return [camera for camera, moments in self.moments.items() if moments]


def _scale(run: Run, camera: str) -> MapScale:
    distances = [
        math.hypot(*person.position)
        for moment in run.moments[camera]
        for person in moment.persons
        if person.position is not None
    ]
    view = run.fields_of_view_deg.get(camera, run.default_field_of_view_deg)
    return MapScale(nice_range_m(distances), view)


def _kilobytes(count: float) -> str:
    return f"{count / 1000:.1f} kB" if count < 100_000 else f"{count / 1000:.0f} kB"


def persons_phrase(count: int) -> str:
    """``1 person``, ``3 persons``."""
    return f"{count} person" if count == 1 else f"{count} persons"


def _view(run: Run, camera: str, moment: Moment, captions: tuple[str, str] = ("", "")) -> View:
    size = moment.facts.original_size
    persons = moment.persons
    if run.twin is not None:
        persons = run.twin.named(camera, persons, moment.stamp_ns)
    return View(camera, raw_picture(run, camera, moment), moment.image(), size, persons, captions)


def raw_picture(run: Run, camera: str, moment: Moment) -> np.ndarray | None:
    """What the camera saw at a moment, uint8 [H, W, 3] RGB; None if it is not available."""
    if camera in run.stamped_frames:
        return run.stamped_frames[camera](moment.stamp_ns)
    raw_frame = run.raw_frames.get(camera)
    return raw_frame(moment.facts.source_position) if raw_frame is not None else None


def _has_raw(run: Run) -> bool:
    return any(camera in {*run.raw_frames, *run.stamped_frames} for camera in run.cameras)


def _video_captions(moment: Moment) -> tuple[str, str]:
    height, width = moment.facts.original_size
    raw_bytes = height * width * RAW_BITS_PER_PIXEL / 8
    return (
        f"{width} x {height}, {_kilobytes(raw_bytes)} a frame",
        f"{_kilobytes(moment.facts.payload_bytes)} a frame · {moment.facts.bits_per_pixel:.3f} bpp"
        f" · {persons_phrase(len(moment.persons))}",
    )


def video_frames(run: Run, layout: Layout) -> Iterator[np.ndarray]:
    """The video's frames, uint8 RGB, evenly over the time in which all cameras have pictures."""
    maps_at = _maps(run, layout)
    for now_ns, views in _views_over_time(run):
        yield layout.compose(views, maps_at(now_ns, views))


def _maps(run: Run, layout: Layout) -> Callable[[int, list[View]], list[Captioned]]:
    """What draws the maps of a time: one of all cameras where their poses are known."""
    if run.twin is None:
        scales = {camera: _scale(run, camera) for camera in run.cameras}
        return lambda now_ns, views: camera_maps(views, layout.map_size, scales)
    from_above = TwinMap(run.twin, layout.map_size)
    first_ns = next(_times(run))
    rates = bit_rate(sum(s.kbit_s for s in run.summaries))
    raw = bit_rate(sum(s.raw_kbit_s for s in run.summaries))
    caption = f"all cameras together {rates} instead of {raw} raw"

    def at(now_ns: int, views: list[View]) -> list[Captioned]:
        return [(from_above.at(now_ns, f"{(now_ns - first_ns) / 1e9:.1f} s · "), caption)]

    return at


def _views_over_time(run: Run) -> Iterator[tuple[int, list[View]]]:
    """A time in ns and what every camera shows then, VIDEO_FRAMES_PER_SECOND times a second."""
    cameras = run.cameras
    shown: dict[str, tuple[int, View]] = {}
    for now_ns in _times(run):
        for camera in cameras:
            moment = moment_at(run.moments[camera], now_ns)
            assert moment is not None  # no time is before any camera's first
            if camera not in shown or shown[camera][0] != moment.stamp_ns:
                view = _view(run, camera, moment, _video_captions(moment))
                shown[camera] = (moment.stamp_ns, view)
        yield now_ns, [shown[camera][1] for camera in cameras]


def _times(run: Run) -> Iterator[int]:
    """Times in ns, evenly from when all cameras have a picture to the last picture."""
    start_ns = max(run.moments[camera][0].stamp_ns for camera in run.cameras)
    end_ns = max(run.moments[camera][-1].stamp_ns for camera in run.cameras)
    ticks = int((end_ns - start_ns) / 1e9 * VIDEO_FRAMES_PER_SECOND) + 1
    for tick in range(ticks):
        yield start_ns + round(tick * 1e9 / VIDEO_FRAMES_PER_SECOND)


def layout_of(run: Run) -> Layout:
    """The video's layout for the cameras of this run."""
    count, size = len(run.cameras), _usual_size(run)
    title = ANONYMIZED if run.trained else NOT_ANONYMIZED
    area = None if run.twin is None else run.twin.area()
    return Layout.of(count, size, area, with_raw=_has_raw(run), decoded_title=title)


def _usual_size(run: Run) -> tuple[int, int]:
    """The most common picture size: a folder of photographs has many."""
    sizes = Counter(m.facts.original_size for moments in run.moments.values() for m in moments)
    return sizes.most_common(1)[0][0]


def write_side_by_side(run: Run, path: Path) -> int:
    """Write the side-by-side video (MP4) and return the number of its frames.

    The file appears whole or not at all. Raises RoiCodecError when no moment is complete or the
    file cannot be written.
    """
    if not run.cameras:
        raise RoiCodecError("expected pictures of the run, found none")
    layout = layout_of(run)
    height, width = layout.size
    frames = (cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in video_frames(run, layout))
    return write_video(path, lambda file: open_writer(file, (width, height)), frames)


def open_writer(path: Path, size: tuple[int, int]) -> cv2.VideoWriter:
    """A video of VIDEO_FRAMES_PER_SECOND pictures of (width, height). Raises RoiCodecError."""
    for codec in _CODECS:
        fourcc = cv2.VideoWriter.fourcc(*codec)
        writer = cv2.VideoWriter(str(path), fourcc, VIDEO_FRAMES_PER_SECOND, size)
        if writer.isOpened():
            return writer
        writer.release()
    raise RoiCodecError(
        f"cannot write a video with any of the codecs {', '.join(_CODECS)}: no room for it, "
        "or an OpenCV without them"
    )


def write_contact_sheet(run: Run, path: Path) -> None:
    """Write moments of the run, evenly over its time and cameras, as a PNG.

    Raises RoiCodecError when no moment is complete or the file cannot be written.
    """
    if not run.cameras:
        raise RoiCodecError("expected pictures of the run, found none")
    untrained = "" if run.trained else " · not anonymized"
    title = f"roi-codec demo · model {run.model}{untrained}"
    if run.twin is not None:
        page = twin_sheet(_sheet_rows(run), run.twin, title=title, facts=_facts(run))
    else:
        page = contact_sheet(_sheet_views(run), title=title, facts=_facts(run))
    _, png = cv2.imencode(".png", cv2.cvtColor(page, cv2.COLOR_RGB2BGR))
    write(path, stamped(png.tobytes()))


def _sheet_views(run: Run) -> list[tuple[View, str]]:
    each = max(SHEET_MOMENTS // len(run.cameras), 1)
    first_ns = min(moments[0].stamp_ns for moments in run.moments.values() if moments)
    return [
        (_view(run, camera, moment), _sheet_caption(camera, moment, first_ns))
        for camera in run.cameras
        for moment in spread(run.moments[camera], each)
    ]


def _sheet_rows(run: Run) -> list[tuple[list[View], int, str]]:
    """Rows of a page in the map: views, stamp and caption."""
    times = list(_times(run))
    step = len(times) / SHEET_ROWS
    chosen = sorted({times[int((row + 0.5) * step)] for row in range(SHEET_ROWS)})
    rows = []
    for now_ns in chosen:
        views = []
        for camera in run.cameras:
            moment = moment_at(run.moments[camera], now_ns)
            assert moment is not None
            views.append(_view(run, camera, moment))
        rows.append((views, now_ns, f"{(now_ns - times[0]) / 1e9:.1f} s"))
    return rows


def _sheet_caption(camera: str, moment: Moment, first_ns: int) -> str:
    seconds = (moment.stamp_ns - first_ns) / 1e9
    return (
        f"{camera} · {seconds:.1f} s · {persons_phrase(len(moment.persons))}"
        f" · {moment.facts.bits_per_pixel:.3f} bpp"
    )


def _facts(run: Run) -> list[tuple[str, str]]:
    """The run's figures: sums of rates, means of the rest over the cameras."""
    summaries = [summary for summary in run.summaries if summary.frames]
    many = len(summaries) > 1
    if run.twin is not None and run.twin.figures:
        return [*_basic_facts(summaries, many)[:4], *run.twin.figures]
    return _basic_facts(summaries, many)


def _basic_facts(summaries: Sequence[Summary], many: bool) -> list[tuple[str, str]]:
    return [
        (
            f"{_mean([s.fps for s in summaries]):.1f}",
            "frames a second" + (" each" if many else ""),
        ),
        (f"{_mean([s.bpp for s in summaries]):.3f}", "bits per pixel"),
        (
            bit_rate(sum(s.kbit_s for s in summaries)),
            f"instead of {bit_rate(sum(s.raw_kbit_s for s in summaries))} raw",
        ),
        (
            f"{_mean([s.end_to_end_ms.p50 for s in summaries]):.0f} ms",
            "from the camera to persons (median)",
        ),
        (f"{_mean([s.persons_mean for s in summaries]):.1f}", "persons in view (mean)"),
    ]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
