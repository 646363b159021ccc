# SPDX-License-Identifier: Apache-2.0
"""A film without heads: the same frames at the same times, upright, with its sound or without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import GENERATOR, replacement
from roi_codec_ros.common.films import FilmError, check_film
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.recordings.pipeline import Passage, Pipeline, Settings
from roi_codec_ros.recordings.tally import CameraTally, Result
from roi_codec_ros.recordings.video_planes import VideoFrame, require_av

PIPE = Path("-")
PIPE_FORMAT = "yuv4mpegpipe"
FILM_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mpeg", ".ts", ".webm", ".y4m")
DEFAULT_QUALITY = 18  # "crf" of x264 and x265: hardly to be told from the original
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
) -> Result:
    """Write a film whose frames show no heads.

    A frame that cannot be decoded or judged is left out. Places, dates and other streams than
    pictures and sound are not copied.

    source, target: `PIPE` for frames on standard input or output (YUV4MPEG2). quality: "crf" of
    the encoder, lower is finer. Raises RoiCodecError.
    """
    av = require_av()
    if source != PIPE:
        check_film(source)
    try:
        given = av.open(sys.stdin.buffer if source == PIPE else str(source.absolute()))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FilmError(source, f"nothing that can be played ({error})") from error
    with given:
        if not given.streams.video:
            raise FilmError(source, "no pictures in it")
        film = _Film(av, source, given, quality, audio)
        try:
            if target == PIPE:
                film.write(sys.stdout.buffer, settings, PIPE_FORMAT)
            else:
                Output(target, force=force, inputs=[] if source == PIPE else [source])
                with replacement(target, durable=True) as partial:
                    film.write(str(partial), settings, None)
        except (av.FFmpegError, OSError) as error:
            raise RoiCodecError(f"cannot write {target}: {error}") from error
    return Result([film.tally], notes=film.notes)


class _Film:
    def __init__(self, av: Any, source: Path, given: Any, quality: int, audio: bool) -> None:
        self._av = av
        self._given = given
        self._quality = quality
        self._pictures = given.streams.video[0]
        self._pictures.thread_type = "AUTO"
        self._sounds = list(given.streams.audio) if audio else []
        self._coded: Any = None
        self._copied: dict[int, Any] = {}
        self._last_pts = -1
        self.tally = CameraTally(source.name, str(self._pictures.codec_context.name))
        left = [s for s in given.streams if s is not self._pictures and s not in self._sounds]
        self.notes = [
            f"streams that are not copied: {', '.join(sorted({s.type for s in left}))}"
        ] * bool(left)

    def write(self, target: Any, settings: Settings, form: str | None) -> None:
        """Write the whole film."""
        with self._av.open(target, "w", format=form) as container:
            if form is None:
                container.metadata["comment"] = GENERATOR
            self._container = container
            self._form = form
            total = float(self._pictures.frames or 0)
            early: list[Any] = []  # sound before the first frame
            with Pipeline(settings, self._sink) as pipeline:
                for number, (packet, frame) in enumerate(self._packets()):
                    if frame is None:
                        early.append(packet)
                    if frame is not None and self._coded is None:
                        self._begin(frame)
                    if self._coded is not None and form is None:
                        for sound in early:
                            pipeline.put(sound, sound, 0.0, sound.size)
                        early.clear()
                    if frame is None:
                        continue
                    pipeline.put_frame(number, frame, float(frame_time(frame, number)))
                    settings.progress(self.tally.frames + self.tally.left_out, total, "frame")
                pipeline.finish()
            if self._coded is None:
                raise FilmError(self.tally.name, "no frame that can be decoded")
            container.mux(self._coded.encode(None))

    def _packets(self) -> Iterator[tuple[Any, VideoFrame | None]]:
        """Frames, and packets of sound between them."""
        for packet in self._given.demux([self._pictures, *self._sounds]):
            if packet.stream is not self._pictures:
                if packet.dts is not None:
                    yield packet, None
                continue
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                self.tally.leave_out(f"a frame that cannot be decoded: {error}")
                continue
            for frame in frames:
                yield None, VideoFrame(frame)

    def _begin(self, frame: VideoFrame) -> None:
        """Open the streams of the new film, by its first frame."""
        name, options = ENCODERS.get(self._pictures.codec_context.name, ENCODERS["h264"])
        if self._form is not None:
            name, options = "wrapped_avframe", {}
        elif name != "ffv1":
            options = {**options, "crf": str(self._quality)}
        rate = self._pictures.average_rate or self._pictures.base_rate or 25
        stream = self._container.add_stream(name, rate=rate, options=dict(options))
        stream.width, stream.height = frame.upright_size
        stream.pix_fmt = frame.format_name
        stream.codec_context.time_base = self._pictures.time_base
        aspect = self._pictures.codec_context.sample_aspect_ratio
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        self._coded = stream
        if self._form is None:
            for sound in self._sounds:
                self._copied[sound.index] = self._container.add_stream_from_template(sound)

    def _sink(self, passage: Passage) -> None:
        if passage.frame is None:
            packet = passage.output
            packet.stream = self._copied[packet.stream.index]
            self._container.mux(packet)
            return
        place = f"frame {passage.tag} at {passage.time_s:.3f} s"
        self.tally.add(passage, place, int(passage.time_s // 60))
        if passage.output is None:
            return
        frame = passage.output
        frame.pict_type = 0  # the encoder decides which frame stands alone
        if frame.pts is None or frame.pts <= self._last_pts:
            frame.pts = self._last_pts + 1
        self._last_pts = frame.pts
        self._container.mux(self._coded.encode(frame))


def frame_time(frame: VideoFrame, number: int) -> float:
    """When a frame is shown, seconds; where it has no time, by its number."""
    return frame.time_s if frame.time_s is not None else number / 25
