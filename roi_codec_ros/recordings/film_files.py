# SPDX-License-Identifier: Apache-2.0
"""A film without heads: the same frames at the same times, upright, with its sound or without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.files import GENERATOR, replacement
from roi_codec_ros.common.films import FilmError, check_film
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.recordings import film_parts
from roi_codec_ros.recordings.film_parts import FilmParts
from roi_codec_ros.recordings.pipeline import Passage, Pipeline, Settings
from roi_codec_ros.recordings.tally import CameraTally, Result
from roi_codec_ros.recordings.video_planes import VideoFrame, require_av

PIPE = Path("-")
PIPE_FORMAT = "yuv4mpegpipe"
FILM_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mpeg", ".ts", ".webm", ".y4m")
DEFAULT_QUALITY = 18  # "crf" of x264 and x265: hardly distinguishable from the original
# The encoder of each codec, and how its quality is asked for.
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "veryfast"}),
    "hevc": ("libx265", {"preset": "fast", "x265-params": "log-level=error"}),
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "4", "b": "0"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "6", "b": "0"}),
    "av1": ("libsvtav1", {"preset": "8"}),
    "ffv1": ("ffv1", {}),
}


def is_film(path: Path) -> bool:
    """Whether a path is named like a film, or is a pipe."""
    return path == PIPE or path.suffix.lower() in FILM_SUFFIXES


def anonymize_film(
    source: Path,
    target: Path,
    settings: Settings,
    *,
    quality: int = DEFAULT_QUALITY,
    audio: bool = True,
    force: bool = False,
    told: str = "",
) -> Result:
    """Write a film without visible heads; a killed run continues where it stopped.

    A frame that cannot be decoded or judged is left out. Places, dates and other streams than
    pictures and sound are not copied.

    source, target: `PIPE` for frames on standard input or output (YUV4MPEG2). quality: "crf" of
    the encoder, lower is finer. told: what tells the other settings apart, for a run that goes on
    after a kill. Raises RoiCodecError.
    """
    av = require_av()
    if source != PIPE:
        check_film(source)
    try:
        given = av.open(sys.stdin.buffer if source == PIPE else str(source.absolute()))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FilmError(source, f"nothing that can be played ({reason_of(error)})") from error
    with given:
        if not given.streams.video:
            raise FilmError(source, "no pictures in it")
        film = _Film(av, source, given, quality, audio)
        try:
            if target == PIPE:
                film.write(sys.stdout.buffer, settings, PIPE_FORMAT)
                return Result([film.tally], notes=film.notes)
            Output(target, force=force, inputs=[] if source == PIPE else [source])
            if source == PIPE:
                with replacement(target, durable=True) as partial:
                    film.write(str(partial), settings, None)
            else:
                film.write_in_parts(source, target, settings, f"{told} {quality} {audio}")
        except (av.FFmpegError, OSError) as error:
            raise RoiCodecError(f"cannot write {target}: {reason_of(error)}") from error
    return Result([film.tally], notes=film.notes)


@dataclass(frozen=True)
class _Tag:
    """number: of the frame. written: False for what is only context of others."""

    number: int
    written: bool = True


class _Film:
    def __init__(self, av: Any, source: Path, given: Any, quality: int, audio: bool) -> None:
        self._av = av
        self._given = given
        self._quality = quality
        self._pictures = given.streams.video[0]
        self._pictures.thread_type = "AUTO"
        self._sounds = list(given.streams.audio) if audio else []
        self._container: Any = None
        self._form: str | None = None
        self._coded: Any = None
        self._shape: tuple[int, int, str] = (0, 0, "")
        self._coded_frames = 0
        self._done, self._done_s = 0, 0.0
        self._last_pts = -1
        self._parts: FilmParts | None = None
        self.tally = CameraTally(source.name, str(self._pictures.codec_context.name))
        left = [s for s in given.streams if s is not self._pictures and s not in self._sounds]
        self.notes = [
            f"streams that are not copied: {', '.join(sorted({s.type for s in left}))}"
        ] * bool(left)

    def write(self, target: Any, settings: Settings, form: str | None) -> None:
        """Write the pictures of a film at once, as into a pipe."""
        self._form = form
        with self._av.open(target, "w", format=form) as self._container:
            if form is None:
                self._container.metadata["comment"] = GENERATOR
            self._hide(settings)
            if self._coded is None:
                raise FilmError(self.tally.name, "no frame that can be decoded")
            self._container.mux(self._coded.encode(None))

    def write_in_parts(self, source: Path, target: Path, settings: Settings, told: str) -> None:
        """Write the whole film, with its sound; continue after the parts of an earlier run."""
        status = source.stat()
        told = f"{source.resolve()} {status.st_size} {status.st_mtime_ns} {told}"
        self._parts = FilmParts(target, told)
        state = self._parts.state
        self._last_pts = state.get("last_pts", -1)
        if "shape" in state:
            width, height, samples = state["shape"]
            self._shape = (width, height, samples)
        if "tally" in state:
            self.tally.restore(state["tally"])
        try:
            context_s = state.get("time_s", 0.0) - settings.memory_s
            self._hide(settings, state.get("frames_done", 0), context_s)
            if self._coded is not None:
                self._end_part()
            elif not self._parts.state:
                raise FilmError(self.tally.name, "no frame that can be decoded")
            with replacement(target, durable=True) as partial:
                sounds = [sound.index for sound in self._sounds]
                self._parts.join(partial, source, self._added_stream, sounds)
            self._parts.finish()
        finally:
            self._parts.abandon()

    def _hide(self, settings: Settings, done: int = 0, context_s: float = 0.0) -> None:
        """Take all frames through; of those that are done the last are context of the next."""
        total = float(self._pictures.frames or 0)
        with Pipeline(settings, self._sink) as pipeline:
            for number, frame in enumerate(self._frames()):
                tag = _Tag(number, number >= done)
                if isinstance(frame, str):
                    pipeline.put(tag, None, 0.0, 0, frame)
                    continue
                time_s = float(frame_time(frame, number))
                if tag.written or time_s >= context_s:
                    pipeline.put_frame(tag, frame, time_s)
                settings.progress(self.tally.frames + self.tally.left_out, total, "frame")
            pipeline.finish()

    def _frames(self) -> Iterator[VideoFrame | str]:
        """Frames, and why there is none."""
        for packet in self._given.demux(self._pictures):
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                yield f"a frame that cannot be decoded: {reason_of(error)}"
                continue
            yield from map(VideoFrame, frames)

    def _begin(self, frame: Any) -> None:
        """Open the stream of pictures, or that of the next part, by its first frame."""
        self._shape = (frame.width, frame.height, frame.format.name)
        self._coded_frames = 0
        if self._parts is not None:
            self._coded = self._parts.begin(self._added_stream)
        else:
            self._coded = self._added_stream(self._container)

    def _added_stream(self, container: Any) -> Any:
        """The stream of pictures of a container."""
        name, options = ENCODERS.get(self._pictures.codec_context.name, ENCODERS["h264"])
        if self._form is not None:
            name, options = "wrapped_avframe", {}
        elif name != "ffv1":
            options = {**options, "crf": str(self._quality)}
        rate = self._pictures.average_rate or self._pictures.base_rate or 25
        stream = container.add_stream(name, rate=rate, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = self._shape
        stream.codec_context.time_base = self._pictures.time_base
        aspect = self._pictures.codec_context.sample_aspect_ratio
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        return stream

    def _mux(self, packets: Any) -> None:
        if self._parts is not None:
            self._parts.add(packets)
        else:
            self._container.mux(packets)

    def _end_part(self) -> None:
        assert self._parts is not None
        self._mux(self._coded.encode(None))
        self._coded = None
        self._parts.end(
            {
                "shape": self._shape,
                "frames_done": self._done,
                "time_s": self._done_s,
                "last_pts": self._last_pts,
                "tally": self.tally.stored(),
            }
        )

    def _sink(self, passage: Passage) -> None:
        tag: _Tag = passage.tag
        if not tag.written:
            return
        place = f"frame {tag.number} at {passage.time_s:.3f} s"
        self.tally.add(passage, place, int(passage.time_s // 60))
        if passage.output is not None:
            self._code(passage.output)
        self._done, self._done_s = tag.number + 1, max(self._done_s, passage.time_s)
        if self._parts is not None and self._coded_frames >= film_parts.PART_FRAMES:
            self._end_part()

    def _code(self, frame: Any) -> None:
        if self._coded is None:
            self._begin(frame)
        frame.pict_type = 0  # the encoder decides which frame stands alone
        if frame.pts is None or frame.pts <= self._last_pts:
            frame.pts = self._last_pts + 1
        self._last_pts = frame.pts
        self._mux(self._coded.encode(frame))
        self._coded_frames += 1


def frame_time(frame: VideoFrame, number: int) -> float:
    """When a frame is shown, seconds; where it has no time, by its number."""
    return frame.time_s if frame.time_s is not None else number / 25
