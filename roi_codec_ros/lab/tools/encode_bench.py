# SPDX-License-Identifier: Apache-2.0
"""Encoding time: our presets and backends, JPEG and AV1.

In each round every codec codes every photograph once, so that whatever slows the machine slows all
of them. Ratios are medians over the pairs of calls of one round. On one thread, times are the
process's processor time: on an idle machine that is the time on the wall, on a busy one wall time
would flatter the faster codec, whose calls are short enough to be interrupted rarely.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from roi_codec_ros.codec.backends import Backend, open_backend, open_graph_backend
from roi_codec_ros.codec.decoding import Decoder
from roi_codec_ros.codec.encoding import EncodedFrame, Encoder
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.models import find_model, read_model, untrained_model
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.graph_runtime import GRAPH_BACKENDS
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.common.plotting import new_figure, save_figure
from roi_codec_ros.common.tables import number, text_table
from roi_codec_ros.lab.evaluation.baselines import parse_baselines
from roi_codec_ros.regions import DEFAULT_REGIONS, INT8_REGIONS, load_regions

Clock = Callable[[], float]

INT8_BACKENDS = {"onnxruntime-int8": "onnxruntime", "openvino-int8": "openvino"}
CAMERA_FPS = 30.0
QUALITIES = (1, 5, 10)
BASELINES = ("jpeg:1,5,10", "av1:1,5,10", "av1@10:1,5,10")
# What ratios are taken to, by the name of the ratio: codec and preset of the row.
REFERENCES = {
    "ratio_av1_1": ("av1", "1"),
    "ratio_av1_1_speed10": ("av1@10", "1"),
    "ratio_jpeg_1": ("jpeg", "1"),
}
PARTS = {
    "preprocessing": "resize",
    "regions": "regions",
    "transform": "analysis",
}  # ours: named as in EncodedFrame


@dataclass
class Contestant:
    """One codec. encode: RGB uint8 [H, W, 3] to bytes; decode: back.

    Attributes:
        frames: how many frames one call encodes.
        parts: milliseconds of one frame of its last call by part, if it knows them.
    """

    name: str
    preset: str
    encode: Callable[[ImageArray], bytes]
    decode: Callable[[bytes], ImageArray]
    backend: str | None = None
    trained: bool | None = None
    frames: int = 1
    parts: dict[str, float] = field(default_factory=dict)


class Ours(Contestant):
    """One of our presets by one backend; decoded by torch, as on a server."""

    def __init__(self, encoder: Encoder, decoder: Decoder, backend: str) -> None:
        self._encoder, self._decoder = encoder, decoder
        super().__init__("roi-codec", encoder.model.preset.name, self._encode, self._decode)
        self.backend = backend
        self.trained = encoder.model.header.get("trained", True) is not False

    def _encode(self, image: ImageArray) -> bytes:
        frame = self._encoder.encode(image)
        self.parts = _parts(frame)
        return frame.data

    def _decode(self, data: bytes) -> ImageArray:
        return self._decoder.decode(data).image


class OursInFilms(Ours):
    """The same for the frames of a camera, every n-th of which is searched in full."""

    def __init__(
        self, encoder: Encoder, decoder: Decoder, backend: str, persons_every: int
    ) -> None:
        super().__init__(encoder, decoder, backend)
        self.frames = persons_every
        self.preset += " film"
        self._stamp_s = 0.0

    def _encode(self, image: ImageArray) -> bytes:
        """The payload of the last of so many frames."""
        of_frames = []
        for _ in range(self.frames):
            self._stamp_s += 1.0 / CAMERA_FPS
            frame = self._encoder.encode(image, stamp_s=self._stamp_s)
            of_frames.append(_parts(frame))
        self.parts = {
            part: statistics.fmean(parts[part] for parts in of_frames) for part in of_frames[0]
        }
        return frame.data


def _parts(frame: EncodedFrame) -> dict[str, float]:
    taken = {part: frame.timings_ms[name] for part, name in PARTS.items()}
    return taken | {name: frame.timings_ms[name] for name in ("entropy", "packing")}


@dataclass(frozen=True)
class EncodeBench:
    """What is to be measured.

    sizes: (width, height). threads: of each codec that can use them; None is all cores.
    persons_every: of a camera's frames, as of `RegionFollower`.
    """

    presets: tuple[str, ...]
    backends: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    threads: tuple[int | None, ...]
    cores: int
    rounds: int
    decode_rounds: int
    persons_every: int = 2

    def run(
        self, photographs: Sequence[ImageArray], on_round: Callable[[], None] = lambda: None
    ) -> list[dict[str, Any]]:
        """A row for each codec, size and number of threads. Raises RoiCodecError."""
        if not photographs:
            raise UsageError("expected photographs to measure on, found none")
        models = [model_of(preset) for preset in self.presets]
        rows = []
        for threads in self.threads:
            count = threads or self.cores
            clock = time.process_time if count == 1 else time.perf_counter
            cv2.setNumThreads(count)
            contestants = [*baselines(count)]
            for model in models:
                contestants += self._ours(model, photographs, count, clock)
            for size in self.sizes:
                scenes = [fitted(photograph, size) for photograph in photographs]
                calls = self._measure(contestants, scenes, clock, on_round)
                rows += _rows(contestants, calls, size, count, clock)
        return rows

    @property
    def steps(self) -> int:
        """How often `run` calls on_round."""
        return len(self.threads) * len(self.sizes) * self.rounds

    def _ours(
        self, model: Model, photographs: Sequence[ImageArray], threads: int, clock: Clock
    ) -> Iterator[Ours]:
        decoder = Decoder(model, threads=threads)
        graph = None
        for name in self.backends:
            if model.codes_blocks:
                if name in GRAPH_BACKENDS or name in INT8_BACKENDS:  # what runs their regions
                    whole = INT8_REGIONS if name in INT8_BACKENDS else DEFAULT_REGIONS
                    runtime = INT8_BACKENDS.get(name, name)
                    regions = load_regions(whole, backend=runtime, threads=threads)
                    yield Ours(Encoder(model, regions=regions, clock=clock), decoder, name)
                    every = self.persons_every
                    film = Encoder(model, regions=regions, persons_every=every, clock=clock)
                    yield OursInFilms(film, decoder, name, every)
                continue
            if name in INT8_BACKENDS:
                graph = graph or _int8_graph(model, photographs)
                runtime = INT8_BACKENDS[name]
                backend: Backend = open_graph_backend(
                    graph, runtime, where=model.name, threads=threads
                )
            else:
                backend = open_backend(name, model, threads=threads)
            yield Ours(Encoder(backend, clock=clock), decoder, name)

    def _measure(
        self,
        contestants: Sequence[Contestant],
        scenes: Sequence[ImageArray],
        clock: Clock,
        on_round: Callable[[], None],
    ) -> list[_Calls]:
        calls = [_Calls() for _ in contestants]
        for contestant in contestants:
            contestant.encode(scenes[0])  # what is prepared once, or once for a size
        # All backends of a preset share a decoder, which is measured on the first one's payloads.
        first = {
            (c.name, c.preset): call
            for c, call in reversed([*zip(contestants, calls, strict=True)])
        }
        for index in range(self.rounds):
            for contestant, call in zip(contestants, calls, strict=True):
                decodes = call is first[contestant.name, contestant.preset]
                for scene in scenes:
                    data = call.encode(contestant, scene, clock)
                    if decodes and index < self.decode_rounds:
                        call.decode(contestant, data, clock)
            on_round()
        for contestant, call in zip(contestants, calls, strict=True):
            call.decode_ms = first[contestant.name, contestant.preset].decode_ms
        return calls


class _Calls:
    """The calls of one contestant at one size, in the order of all the others' calls."""

    def __init__(self) -> None:
        self.encode_ms: list[float] = []
        self.decode_ms: list[float] = []
        self.bits_per_pixel: list[float] = []
        self.parts: list[dict[str, float]] = []

    def encode(self, contestant: Contestant, scene: ImageArray, clock: Clock) -> bytes:
        started = clock()
        data = contestant.encode(scene)
        self.encode_ms.append(1e3 * (clock() - started) / contestant.frames)
        self.bits_per_pixel.append(8.0 * len(data) / (scene.shape[0] * scene.shape[1]))
        self.parts.append(dict(contestant.parts))
        return data

    def decode(self, contestant: Contestant, data: bytes, clock: Clock) -> None:
        started = clock()
        contestant.decode(data)
        self.decode_ms.append(1e3 * (clock() - started))


def baselines(threads: int) -> Iterator[Contestant]:
    """JPEG by Pillow and by OpenCV, and AV1 by Pillow at two speeds."""
    for method in parse_baselines(BASELINES, threads=threads):
        yield Contestant(method.name, method.preset, method.encode, method.decode)
    for quality in QUALITIES:
        yield Contestant("jpeg-opencv", str(quality), _opencv_jpeg(quality), _opencv_decode)


def model_of(preset: str) -> Model:
    """The installed model of a preset's name, else an untrained one."""
    get_preset(preset)
    try:
        model = read_model(find_model(preset))
    except RoiCodecError:
        return untrained_model(preset)
    return model if model.preset.name == preset else untrained_model(preset)


def fitted(photograph: ImageArray, size: tuple[int, int]) -> ImageArray:
    """The middle of a photograph in the aspect of ``size`` (width, height), scaled to it."""
    width, height = size
    rows, columns = photograph.shape[:2]
    scale = min(rows / height, columns / width)
    tall, wide = min(rows, round(scale * height)), min(columns, round(scale * width))
    top, left = (rows - tall) // 2, (columns - wide) // 2
    middle = photograph[top : top + tall, left : left + wide]
    interpolation = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(middle, size, interpolation=interpolation), np.uint8)


def _int8_graph(model: Model, photographs: Sequence[ImageArray]) -> bytes:
    from roi_codec_ros.codec.onnx_graph import build_graph
    from roi_codec_ros.common.onnx_int8 import quantise

    height, width = model.preset.coded_size or (512, 512)
    images = [fitted(photograph, (width, height)) for photograph in photographs]
    return quantise(build_graph(model), images).SerializeToString()


def _opencv_jpeg(quality: int) -> Callable[[ImageArray], bytes]:
    def encode(image: ImageArray) -> bytes:
        turned = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return data.tobytes()

    return encode


def _opencv_decode(data: bytes) -> ImageArray:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _rows(
    contestants: Sequence[Contestant],
    calls: Sequence[_Calls],
    size: tuple[int, int],
    threads: int,
    clock: Clock,
) -> list[dict[str, Any]]:
    by_name = {(c.name, c.preset): call for c, call in zip(contestants, calls, strict=True)}
    rows = []
    for contestant, call in zip(contestants, calls, strict=True):
        row: dict[str, Any] = {
            "codec": contestant.name,
            "preset": contestant.preset,
            "backend": contestant.backend,
            "trained": contestant.trained,
            "size": "{}x{}".format(*size),
            "threads": threads,
            "clock": "processor" if clock is time.process_time else "wall",
            "encode_ms": _summary(call.encode_ms),
            "decode_ms": _summary(call.decode_ms),
            "bpp": statistics.fmean(call.bits_per_pixel),
        }
        for name, reference in REFERENCES.items():
            pairs = zip(call.encode_ms, by_name[reference].encode_ms, strict=True)
            row[name] = statistics.median(ours / theirs for ours, theirs in pairs)
        if call.parts[0]:
            row["parts_ms"] = {
                part: statistics.median(parts[part] for parts in call.parts)
                for part in call.parts[0]
            }
            row["entropy_ms"] = row["parts_ms"]["entropy"]
            row["entropy_share"] = statistics.median(
                parts["entropy"] / sum(parts.values()) for parts in call.parts
            )
        rows.append(row)
    return rows


def _summary(times_ms: Sequence[float]) -> dict[str, float] | None:
    if not times_ms:
        return None
    return {"min": min(times_ms), "p50": statistics.median(times_ms)}


def encode_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of a bench for the terminal, a table for each size and number of threads."""
    header = ["codec", "ms min", "median", "× AV1 1", "speed 10", "× JPEG 1", "entropy", "bpp"]
    header.append("decode")
    parts = []
    for size, threads in dict.fromkeys((row["size"], row["threads"]) for row in rows):
        group = [row for row in rows if (row["size"], row["threads"]) == (size, threads)]
        parts.append(f"\n{size}, threads: {threads}; × is the ratio of encoding times")
        parts.append(text_table(header, [_cells(row) for row in group]))
    return "\n".join(parts)


def _cells(row: Mapping[str, Any]) -> list[str]:
    name = f"{row['codec']} {row['preset']}"
    if row["backend"]:
        name = f"{row['preset']} {row['backend']}{'' if row['trained'] else ' (untrained)'}"
    return [
        name,
        f"{row['encode_ms']['min']:.2f}",
        f"{row['encode_ms']['p50']:.2f}",
        f"{row['ratio_av1_1']:.3f}",
        f"{row['ratio_av1_1_speed10']:.3f}",
        f"{row['ratio_jpeg_1']:.2f}",
        number(row.get("entropy_share"), ".1%"),
        f"{row['bpp']:.3f}",
        number(row["decode_ms"] and row["decode_ms"]["p50"], ".1f"),
    ]


MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_rows(rows: Sequence[dict[str, Any]], output: Output) -> None:
    """Write the rows of the fewest threads as a figure. Raises RoiCodecError."""
    threads = min(row["threads"] for row in rows)
    shown = [row for row in rows if row["threads"] == threads]
    sizes = list(dict.fromkeys(row["size"] for row in shown))
    series = list(dict.fromkeys(_series(row) for row in shown))
    figure = new_figure((5 * len(sizes) + 2.5, 4.5), 120)
    axes = figure.subplots(1, len(sizes), sharey=True, squeeze=False)
    for panel, size in zip(axes[0], sizes, strict=True):
        for index, name in enumerate(series):
            points = [row for row in shown if row["size"] == size and _series(row) == name]
            panel.plot(
                [row["encode_ms"]["p50"] for row in points],
                [row["bpp"] for row in points],
                MARKERS[index // 10 % len(MARKERS)] + ("-" if len(points) > 1 else ""),
                color=f"C{index % 10}",
                label=name,
            )
        panel.set(title=size, xlabel="ms to encode, median", xscale="log")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("bits per pixel")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    figure.suptitle(f"{threads} thread{'s' if threads > 1 else ''}")
    save_figure(figure, output)


def _series(row: dict[str, Any]) -> str:
    if row["backend"] is None:
        return str(row["codec"])
    untrained = "" if row["trained"] else ", untrained"
    return f"{row['preset']}, {row['backend']}{untrained}"
