# SPDX-License-Identifier: Apache-2.0
"""Frames to payloads: what the encoder node and `roi-codec encode` call."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.codec.backends import AUTO, Backend, check_backend, open_backend
from roi_codec_ros.codec.bitstream import Payload
from roi_codec_ros.codec.block_encoder import BlockEncoder
from roi_codec_ros.codec.entropy import HIDDEN, SKIPPED
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.models import load_model
from roi_codec_ros.codec.network_analysis import NetworkAnalysis
from roi_codec_ros.codec.policy import QUALITY_MAX, QUALITY_MIN
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.rate_control import RateControl
from roi_codec_ros.codec.skipping import ALONE, FrameSymbols, Place
from roi_codec_ros.codec.temporal import packed
from roi_codec_ros.codec.torch_transforms import TorchBackend
from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, UsageError
from roi_codec_ros.common.graph_runtime import GRAPH_BACKENDS, GRAPH_SUFFIX
from roi_codec_ros.regions import DEFAULT_REGIONS, RegionFinder, load_regions

MAX_SIDE_PX = 65535


@dataclass(frozen=True)
class EncodedFrame:
    """A coded frame.

    Attributes:
        data: the payload (docs/bitstream.md).
        original_size, coded_size: (height, width) before and after resizing.
        blocks: uint8 [h, w]: how each block of stride × stride pixels was coded: SKIPPED,
            HIDDEN or FIRST_CLASS + class.
        levels: the level of each class.
        place: its position in its stream, if blocks may be skipped.
        timings_ms: ``resize``, ``regions`` (finding heads and persons), ``analysis`` (from pixels
            to symbols), ``entropy``, ``packing`` and ``total``.
    """

    data: bytes
    original_size: tuple[int, int]
    coded_size: tuple[int, int]
    blocks: np.ndarray
    levels: tuple[int, ...]
    place: Place = ALONE
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def skipped_share(self) -> float:
        """Share of the blocks that are unchanged and not sent, 0 to 1."""
        return float((self.blocks == SKIPPED).mean())

    @property
    def hidden_share(self) -> float:
        """Share of the blocks that are hidden, 0 to 1."""
        return float((self.blocks == HIDDEN).mean())

    @property
    def bits_per_pixel(self) -> float:
        """Bits of the whole payload per pixel of the coded frame."""
        return 8.0 * len(self.data) / (self.coded_size[0] * self.coded_size[1])


class Encoder:
    """Turns camera frames into payloads with one model, one frame at a time.

    With a block-based model, regions tell what to hide and where persons are; if they fail on a
    frame, that is an error and no payload is produced.
    """

    def __init__(
        self,
        model: Model | Backend,
        *,
        regions: RegionFinder | None = None,
        quality: float = 0.0,
        hide_memory_s: float = 0.0,
        skip: bool = False,
        predict: bool = False,
        persons_every: int = 1,
        device: str = "cpu",
        threads: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``model``: a model to run with torch, or an open backend, for which ``device`` and
        ``threads`` are ignored. ``threads``: CPU threads; None lets torch choose. ``regions``,
        ``quality`` (in levels, `policy.StepPolicy.levels_at`) and ``hide_memory_s`` (how long a
        mask is remembered) apply to block-based models; without ``regions`` the shipped ones are
        loaded. ``skip``: for streams, send only changed blocks, and every block once a second;
        block-based models only. ``predict``: with ``skip``, send changed blocks as differences,
        which takes fewer bits; after a lost frame they are unknown for up to a second, like
        skipped ones. ``persons_every``: for streams, search every n-th frame for persons
        (`regions.RegionFollower`). ``clock``: returns seconds, for the timings.
        """
        self._clock = clock
        self._resized: np.ndarray | None = None  # overwritten by each frame
        self._analysis: NetworkAnalysis | BlockEncoder
        if isinstance(model, Model) and model.codes_blocks:
            regions = regions or load_regions(threads=threads)
            self._analysis = BlockEncoder(
                model,
                regions,
                quality,
                hide_memory_s,
                skip=skip,
                predict=predict,
                persons_every=persons_every,
            )
        else:
            backend = (
                TorchBackend(model, device=device, threads=threads)
                if isinstance(model, Model)
                else model
            )
            self._analysis = NetworkAnalysis(backend, skip)
        self._quality, self._target_kbit_s = quality, 0.0
        self._rate: RateControl | None = None
        self.model = self._analysis.model
        self.backend_name = self._analysis.backend_name  # runtime of the network on the camera
        self._coder = RansCoder(self.model.tables)

    @property
    def quality(self) -> float:
        """Quality in levels relative to the model's default; higher is finer.

        May be set between frames. With a target bit rate it is adjusted automatically, starting
        from the value that was set. Raises UsageError outside its range, and for any value but 0
        with a model without blocks.
        """
        return self._analysis.quality

    @quality.setter
    def quality(self, quality: float) -> None:
        self._analysis.quality = self._quality = quality

    @property
    def target_kbit_s(self) -> float:
        """Target bit rate of streams, held by adjusting the quality; 0 for none. May be set
        between frames. Raises UsageError below 0, and for any value but 0 with a model without
        blocks.
        """
        return self._target_kbit_s

    @target_kbit_s.setter
    def target_kbit_s(self, target_kbit_s: float) -> None:
        if not 0 <= target_kbit_s < math.inf:
            raise UsageError(f"expected a bit rate of 0 kbit/s or more, found {target_kbit_s:g}")
        if target_kbit_s and not self.model.codes_blocks:
            raise UsageError(
                f"expected no bit rate for {self.model.name}, which has no levels; found "
                f"{target_kbit_s:g} kbit/s"
            )
        self._target_kbit_s = target_kbit_s
        self._analysis.quality = self._quality
        self._rate = None
        if target_kbit_s:
            self._rate = RateControl(target_kbit_s, self._quality, QUALITY_MIN, QUALITY_MAX)

    def encode(
        self, image: np.ndarray, *, max_width: int | None = None, stamp_s: float | None = None
    ) -> EncodedFrame:
        """Code one frame.

        Args:
            image: uint8 [H, W, 3], RGB, sides of 1 to 65535 pixels.
            max_width: wider frames are scaled down to this width, keeping the aspect ratio.
                Presets with a fixed coded size (the paper's) squash every frame to that instead.
            stamp_s: capture time in seconds, which relates it to earlier frames; None for a single
                image.

        Raises:
            RoiCodecError: ``image`` has another shape, type or size, or the regions fail on it.
        """
        started = self._clock()
        _check_image(image)
        original = (image.shape[0], image.shape[1])
        coded = self.coded_size(original, max_width)
        if coded != original:
            shrinks = coded[0] * coded[1] < original[0] * original[1]
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            if self._resized is None or self._resized.shape[:2] != coded:
                self._resized = np.empty((*coded, 3), np.uint8)
            image = cv2.resize(image, coded[::-1], self._resized, interpolation=interpolation)
        resized = self._clock()
        rate = self._rate if stamp_s is not None else None
        if rate is not None and stamp_s is not None:
            self._analysis.quality = rate.quality(stamp_s)
        plan = self._analysis.plan(image, stamp_s)
        planned = self._clock()
        sent = self._analysis.send(image, plan, stamp_s)
        frame = self._coded(image, original, sent, plan.levels, planned)
        if rate is not None:
            rate.coded(8.0 * len(frame.data))
        timings = {
            "resize": 1e3 * (resized - started),
            "regions": 1e3 * (planned - resized),
            **frame.timings_ms,
        }
        timings["total"] = 1e3 * (self._clock() - started)
        return dataclasses.replace(frame, timings_ms=timings)

    def encode_planned(
        self,
        image: np.ndarray,
        blocks: np.ndarray,
        levels: Sequence[int],
        place: Place = ALONE,
    ) -> EncodedFrame:
        """Code a frame of the coded size with a given block map.

        The payload depends only on the map, the levels, the place, and the pixels of blocks that
        are neither hidden nor skipped.

        Args:
            image: uint8 [H, W, 3], RGB.
            blocks: uint8 [⌈H / stride⌉, ⌈W / stride⌉], as `EncodedFrame.blocks`.
            levels: the level of each class.
            place: position in the stream.

        Raises:
            RoiCodecError: ``image`` has another shape or type.
        """
        _check_image(image)
        started = self._clock()
        symbols = self._analysis.symbols(image, blocks, tuple(levels))
        sent = FrameSymbols(symbols, blocks, place)
        return self._coded(image, (image.shape[0], image.shape[1]), sent, tuple(levels), started)

    def _coded(
        self,
        image: np.ndarray,
        original: tuple[int, int],
        sent: FrameSymbols,
        levels: tuple[int, ...],
        started: float,
    ) -> EncodedFrame:
        """started: clock time at which the analysis began."""
        analysed = self._clock()
        block_map, body = self._coder.encode(sent.symbols, sent.blocks, levels, sent.temporal)
        entropy_coded = self._clock()
        coded = (image.shape[0], image.shape[1])
        temporal = b""
        if sent.temporal is not None:
            temporal = packed(sent.temporal, sent.blocks, levels)
        data = Payload(
            self.model.id,
            *original,
            *coded,
            body,
            block_map,
            levels,
            sent.place.stream,
            sent.place.number,
            temporal,
        ).to_bytes()
        done = self._clock()
        return EncodedFrame(
            data=data,
            original_size=original,
            coded_size=coded,
            blocks=sent.blocks,
            levels=levels,
            place=sent.place,
            timings_ms={
                "analysis": 1e3 * (analysed - started),
                "entropy": 1e3 * (entropy_coded - analysed),
                "packing": 1e3 * (done - entropy_coded),
                "total": 1e3 * (done - started),
            },
        )

    def coded_size(self, original: tuple[int, int], max_width: int | None) -> tuple[int, int]:
        """Coded (height, width) of a frame of ``original`` (height, width)."""
        if self.model.preset.coded_size is not None:
            return self.model.preset.coded_size
        height, width = original
        if max_width is None or max_width <= 0 or width <= max_width:
            return original
        return max(1, round(height * max_width / width)), max_width

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """Quantised latent of a frame of the coded size: int16 [C, ⌈H / stride⌉, ⌈W / stride⌉]."""
        plan = self._analysis.plan(image, None)
        return self._analysis.symbols(image, plan.blocks, plan.levels)


def load_encoder(
    model: str | Path,
    *,
    backend: str = AUTO,
    device: str = "cpu",
    threads: int | None = None,
    regions: str | Path = DEFAULT_REGIONS,
    quality: float = 0.0,
    hide_memory_s: float = 0.0,
    skip: bool | None = False,
    predict: bool = False,
    persons_every: int = 1,
    target_kbit_s: float = 0.0,
) -> Encoder:
    """Open an encoder for a model by name or path.

    Args:
        model, device, threads: as `backends.open_backend`.
        backend: one of BACKENDS; "auto" is onnxruntime for models that code blocks, else torch.
        regions: name or path of the regions model (`.onnx`), for models that code blocks.
        quality, hide_memory_s, skip, predict, persons_every, target_kbit_s: as for `Encoder`; skip
        None: if the model supports it.

    Raises:
        UsageError: no such backend, or none for this kind of model. RoiCodecError, ModelFileError:
        as `backends.open_backend` and `regions.load_regions`.
    """
    check_backend(backend)
    if Path(model).suffix != GRAPH_SUFFIX and (loaded := _block_model(model, backend)):
        runtime = "onnxruntime" if backend == AUTO else backend
        if runtime not in GRAPH_BACKENDS:
            raise UsageError(
                f"expected a backend among {AUTO}, {', '.join(GRAPH_BACKENDS)} for "
                f"{loaded.name}, found {backend!r}"
            )
        finder = load_regions(regions, backend=runtime, device=device, threads=threads)
        encoder = Encoder(
            loaded,
            regions=finder,
            quality=quality,
            hide_memory_s=hide_memory_s,
            skip=skip is not False,
            predict=predict,
            persons_every=persons_every,
        )
    else:
        opened = open_backend(backend, model, device=device, threads=threads)
        encoder = Encoder(opened, skip=bool(skip))
        encoder.quality = quality
    encoder.target_kbit_s = target_kbit_s
    return encoder


def _block_model(model: str | Path, backend: str) -> Model | None:
    """The model, if it is block-based; None also if only a graph of another model is found."""
    try:
        loaded = load_model(model)
    except ModelFileError:
        if backend in GRAPH_BACKENDS:
            return None
        raise
    return loaded if loaded.codes_blocks else None


def _check_image(image: np.ndarray) -> None:
    good = (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and 0 < image.shape[0] <= MAX_SIDE_PX
        and 0 < image.shape[1] <= MAX_SIDE_PX
    )
    if not good:
        found = (
            f"{image.dtype} {list(image.shape)}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise RoiCodecError(
            f"expected a uint8 image [H, W, 3] with sides of 1 to {MAX_SIDE_PX}; found {found}"
        )
