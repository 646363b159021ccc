# SPDX-License-Identifier: Apache-2.0
"""A virtual pan-and-zoom camera over bundled photographs, for a demo without a camera.

The photographs are bundled with the `ultralytics` and `scikit-image` packages, so
nothing is downloaded. The camera is rendered once into a video file in which every frame is a JPEG
of its own: frame number n is the same picture for everyone who opens the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.photographs import PhotographError, read_photograph
from roi_codec_ros.common.plugins import package_root
from roi_codec_ros.common.videos import write_video
from roi_codec_ros.stream.frame_readers import FrameReader

LOG = logging.getLogger(__name__)

FRAME_SIZE = (480, 640)
FRAMES_PER_SECOND = 15
JPEG_QUALITY = 95
_RECIPE = 1  # raise when the rendering changes, so that no cached file of the old one is used


@dataclass(frozen=True)
class View:
    """Where the virtual camera looks.

    x, y: centre, as fractions of the photograph's width and height. width: the part of the largest
    view that fits into the photograph, in (0, 1].
    """

    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Shot:
    """One photograph and the views that the camera glides through, in `seconds`."""

    photograph: Path
    views: tuple[View, ...]
    seconds: float = 5.0


_STORYBOARD: tuple[tuple[str, str, float, tuple[View, ...]], ...] = (
    # package, file in it, seconds, views: all show a person, and not too close
    (
        "ultralytics",
        "assets/bus.jpg",
        6.0,
        (
            View(0.5, 0.60, 1.0),
            View(0.38, 0.58, 0.85),
            View(0.62, 0.58, 0.85),
            View(0.5, 0.6, 1.0),
        ),
    ),
    (
        "ultralytics",
        "assets/zidane.jpg",
        3.5,
        (View(0.5, 0.5, 1.0), View(0.62, 0.5, 1.0), View(0.6, 0.5, 0.92)),
    ),
    (
        "skimage",
        "data/astronaut.png",
        4.0,
        (View(0.5, 0.50, 1.0), View(0.5, 0.38, 1.0), View(0.46, 0.36, 0.88), View(0.5, 0.4, 1.0)),
    ),
    (
        "ultralytics",
        "assets/bus.jpg",
        5.0,
        (View(0.62, 0.58, 0.85), View(0.5, 0.60, 1.0), View(0.4, 0.56, 0.85)),
    ),
    (
        "skimage",
        "data/camera.png",
        4.0,
        (
            View(0.5, 0.5, 1.0),
            View(0.46, 0.41, 0.92),
            View(0.42, 0.40, 0.85),
            View(0.5, 0.45, 1.0),
        ),
    ),
)


def installed_shots() -> list[Shot]:
    """The shots whose photographs are on this machine.

    Raises RoiCodecError when neither `ultralytics` nor `scikit-image` is installed.
    """
    shots = []
    for package, file, seconds, views in _STORYBOARD:
        root = package_root(package)  # without an import: ultralytics takes seconds
        if root is not None and (root / file).is_file():
            shots.append(Shot(root / file, views, seconds))
    if not shots:
        raise RoiCodecError(
            "expected the photographs of the ultralytics or scikit-image package as a source, "
            "found neither package: install one (pip install ultralytics) or name a --source"
        )
    return shots


def glide(views: Sequence[View], progress: float) -> View:
    """The view at `progress` in [0, 1] on a smooth path through all views, evenly spaced in time.

    A Catmull-Rom spline: it passes through every view and its speed never jumps.
    """
    if not views:
        raise ValueError("expected at least one view, found none")
    points = np.array([(v.x, v.y, v.width) for v in views], dtype=float)
    if len(points) == 1:
        return views[0]
    position = min(max(progress, 0.0), 1.0) * (len(points) - 1)
    segment = min(int(position), len(points) - 2)
    t = position - segment
    before = points[max(segment - 1, 0)]
    start, end = points[segment], points[segment + 1]
    after = points[min(segment + 2, len(points) - 1)]
    x, y, width = 0.5 * (
        2.0 * start
        + (end - before) * t
        + (2.0 * before - 5.0 * start + 4.0 * end - after) * t**2
        + (3.0 * start - before - 3.0 * end + after) * t**3
    )
    return View(float(x), float(y), float(min(max(width, 0.05), 1.0)))


def view_rectangle(
    view: View, photograph_size: tuple[int, int], frame_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The rectangle x, y, width, height (px of the photograph) that a view shows.

    It has the frame's aspect and always lies inside the photograph. Sizes are (height, width).
    """
    photo_height, photo_width = photograph_size
    frame_height, frame_width = frame_size
    aspect = frame_width / frame_height
    widest = min(float(photo_width), photo_height * aspect)
    width = widest * view.width
    height = width / aspect
    x = min(max(view.x * photo_width - width / 2, 0.0), photo_width - width)
    y = min(max(view.y * photo_height - height / 2, 0.0), photo_height - height)
    return x, y, width, height


def look(photograph: np.ndarray, view: View, frame_size: tuple[int, int]) -> np.ndarray:
    """What the virtual camera sees: uint8 [height, width, 3] of `frame_size` (height, width).

    Sub-pixel exact, so that slow pans do not jitter; shrunk by area first against flicker.
    """
    x, y, width, height = view_rectangle(
        view, (photograph.shape[0], photograph.shape[1]), frame_size
    )
    frame_height, frame_width = frame_size
    shrink = int(width // frame_width)
    if shrink > 1:
        old_height, old_width = photograph.shape[:2]
        small = (max(old_width // shrink, 1), max(old_height // shrink, 1))
        photograph = cv2.resize(photograph, small, interpolation=cv2.INTER_AREA)
        scale_x, scale_y = small[0] / old_width, small[1] / old_height
        x, width, y, height = x * scale_x, width * scale_x, y * scale_y, height * scale_y
    step_x, step_y = width / frame_width, height / frame_height
    # Pixel centres: frame column u shows photograph column x + (u + 0.5) * step - 0.5.
    matrix = np.array(
        [[step_x, 0.0, x + 0.5 * step_x - 0.5], [0.0, step_y, y + 0.5 * step_y - 0.5]]
    )
    return cv2.warpAffine(
        photograph,
        matrix,
        (frame_width, frame_height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def film(
    shots: Sequence[Shot],
    *,
    frame_size: tuple[int, int] = FRAME_SIZE,
    frames_per_second: float = FRAMES_PER_SECOND,
    phase: float = 0.0,
) -> Iterator[np.ndarray]:
    """All frames of the shots one after the other, uint8 [H, W, 3] BGR.

    phase: in [0, 1), where in the film to begin; its start then comes after its end.
    """
    schedule = [
        (shot, number / max(count - 1, 1))
        for shot in shots
        for count in [round(shot.seconds * frames_per_second)]
        for number in range(count)
    ]
    start = round(phase * len(schedule)) % max(len(schedule), 1)
    opened: Path | None = None
    for shot, progress in schedule[start:] + schedule[:start]:
        if shot.photograph != opened:
            photograph = read_photograph(shot.photograph)[..., ::-1].copy()
            opened = shot.photograph
        yield look(photograph, glide(shot.views, progress), frame_size)


def render_film(
    path: Path,
    frames: Iterator[np.ndarray],
    *,
    frame_size: tuple[int, int] = FRAME_SIZE,
    frames_per_second: float = FRAMES_PER_SECOND,
) -> int:
    """Write BGR frames as a Motion-JPEG video and return their number.

    The file appears whole or not at all. Raises RoiCodecError when it cannot be written.
    """

    def open_writer(file: Path) -> cv2.VideoWriter:
        writer = cv2.VideoWriter(
            str(file),
            cv2.CAP_OPENCV_MJPEG,
            cv2.VideoWriter.fourcc(*"MJPG"),
            frames_per_second,
            (frame_size[1], frame_size[0]),
        )
        if not writer.isOpened():
            raise RoiCodecError("cannot write a video: no room for it")
        writer.set(cv2.VIDEOWRITER_PROP_QUALITY, JPEG_QUALITY)
        return writer

    return write_video(path, open_writer, frames)


def photograph_cameras(
    cameras: int, folders: Sequence[Path], progress: Callable[[str], None] = LOG.info
) -> list[Path]:
    """One video file per camera, each beginning at another moment of the same film.

    Rendered at the first call into the first of `folders` that can be written, found there later.
    progress: called with a sentence before each rendering.
    Raises RoiCodecError when there are no photographs or no folder can be written.
    """
    shots = installed_shots()
    folder = _first_writable(folders)
    videos = []
    for camera in range(cameras):
        phase = camera / cameras
        video = folder / f"photographs-{_fingerprint(shots, phase)}.avi"
        if not video.is_file():
            progress(f"rendering {len(shots)} photographs into {video}")
            render_film(video, film(shots, phase=phase))
        videos.append(video)
    return videos


def _first_writable(folders: Sequence[Path]) -> Path:
    reasons = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reasons.append(f"{folder}: {reason_of(error)}")
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reasons.append(f"{folder}: not writable")
    raise RoiCodecError(
        f"expected a folder to keep the demo's video in, found {'; '.join(reasons)}"
    )


def _fingerprint(shots: Sequence[Shot], phase: float) -> str:
    recipe = repr((_RECIPE, FRAME_SIZE, FRAMES_PER_SECOND, JPEG_QUALITY, round(phase, 6)))
    digest = hashlib.sha256(recipe.encode())
    for shot in shots:
        size = shot.photograph.stat().st_size
        digest.update(repr((shot.photograph.name, size, shot.views, shot.seconds)).encode())
    return digest.hexdigest()[:12]


class SourceFrames:
    """The frames of a file or a folder of pictures, read again by their position.

    Reads forward and starts over when asked for an earlier frame: seeking in videos whose frames
    refer to each other is not exact, counting is.
    """

    def __init__(self, open_reader: Callable[[], FrameReader]) -> None:
        """open_reader: opens the source the way that the encoder did, at its start."""
        self._open_reader = open_reader
        self._reader: FrameReader | None = None
        self._image: np.ndarray | None = None

    def read(self, position: int) -> np.ndarray | None:
        """Frame `position` (from 0) as uint8 [H, W, 3] RGB, or None if it does not exist."""
        if position < 0:
            return None
        if self._reader is None or self._reader.position > position:
            self.close()
            self._reader = self._open_reader()
        elif self._reader.position == position:
            return self._image
        while self._reader.position < position:
            if not self._reader.advance():
                self.close()
                return None
        try:
            self._image = self._reader.image()
        except PhotographError:
            self._image = None
        return self._image

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> SourceFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
