# SPDX-License-Identifier: Apache-2.0
"""The sources of a demo's cameras: installed photographs, a device, a film or a stream."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.films import FALLBACK_RATE_HZ, Film
from roi_codec_ros.common.photographs import PhotographError
from roi_codec_ros.lab.simulation.photograph_cameras import photograph_cameras, render_film
from roi_codec_ros.stream.frame_readers import open_source
from roi_codec_ros.stream.sources import Source, SourceKind, parse_source

Say = Callable[[str], None]


def photograph_sources(names: Sequence[str], folder: Path, say: Say) -> dict[str, str]:
    """By camera a film of installed photographs, rendered if it does not exist.

    folder: for the films if there is no cache. say: prints a line for the user before each
    rendering.
    """
    videos = photograph_cameras(len(names), [_cache_folder(), folder], say)
    return dict(zip(names, map(str, videos), strict=True))


def shared_source(
    text: str, names: Sequence[str], *, pace: float, folder: Path, say: Say
) -> dict[str, str]:
    """By camera the source that all of them show.

    pace: playback speed of a film. folder: for a film at another pace. Raises RoiCodecError for an
    unusable source, before anything is started.
    """
    # FFmpeg would print its own messages about a broken file in addition to ours.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    source = parse_source(text)
    if source.kind is SourceKind.DEVICE and len(names) > 1:
        raise UsageError(f"expected --cameras 1 for the device {text}, found {len(names)}")
    if source.target.startswith("/dev/") and not Path(source.target).exists():
        raise RoiCodecError(
            f"expected a camera at {source.target}, found: {os.strerror(errno.ENOENT)}"
        )
    if not source.live:
        _check_frames(source)  # reports now what the encoder would report later
    if source.kind is SourceKind.VIDEO and pace != 1:
        return dict.fromkeys(names, str(_at_another_pace(source, pace, folder, say)))
    return dict.fromkeys(names, text if source.live else str(Path(source.target).resolve()))


def _check_frames(source: Source) -> None:
    """Raise RoiCodecError where no frame of a file or a folder can be read."""
    reader = open_source(source)
    reason = ""
    try:
        while reader.advance():
            try:
                if reader.image() is not None:
                    return
            except PhotographError as error:
                reason = reason or f"; the first: {error}"
    finally:
        reader.close()
    raise RoiCodecError(f"expected frames in {source.text}, found none to read{reason}")


def _at_another_pace(source: Source, pace: float, folder: Path, say: Say) -> Path:
    """The same video, faster or slower: encoders play files in real time."""
    path = (folder / "paced.avi").resolve()
    path.parent.mkdir(exist_ok=True)
    say(f"playing {source.target} at {pace:g} of its speed")
    with Film(source.target) as film:
        size = film.properties.height, film.properties.width
        rate_hz = (film.properties.frame_rate_hz or FALLBACK_RATE_HZ) * pace
        frames = (frame.image[..., ::-1] for frame in film)
        render_film(path, frames, frame_size=size, frames_per_second=rate_hz)
    return path


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "roi_codec_ros"
    except RuntimeError:  # no home
        return Path("/nonexistent")
