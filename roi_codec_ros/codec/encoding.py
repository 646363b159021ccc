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
from roi_codec_ros.codec.prediction import packed
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.rate_control import RateControl
from roi_codec_ros.codec.skipping import ALONE, FrameSymbols, Place
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
        blocks: uint8 [h, w]: what each block of stride × stride pixels was coded as: SKIPPED,
            HIDDEN or FIRST_CLASS + class.
        levels: the level of each class.
        place: where it stands in its stream, if blocks of it may be skipped.
        timings_ms: ``resize``, ``regions`` (what is where), ``analysis`` (from pixels to symbols),
            ``entropy``, ``packing`` and ``total``.
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
        """Share of the blocks that are as they were and not sent, 0 to 1."""
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
    """Turns camera frames into payloads with one model; one frame at a time.

    A model that codes blocks is told by regions what to hide and where persons are; a frame that
    they cannot judge is an error, never a payload.
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
        """``model``: one to run with torch, or a backend that is open already, which ``device``
        and ``threads`` are not for. ``threads``: CPU threads, None leaves torch's own choice.
        ``regions``, ``quality`` (in levels, `policy.StepPolicy.levels_at`) and ``hide_memory_s``
        (how long a mask is remembered) are for models that code blocks; without regions those that
        ship are loaded. ``skip``: send of a film what has changed, and everything once a second;
        for models that code blocks, too. ``predict``: and where ``skip`` holds, of blocks that
        change what has changed, which takes fewer bits; after a frame that is lost they are then
        unknown for up to a second, as what is skipped is. ``persons_every``: of a film look for
        persons in one frame of so many (`regions.RegionFollower`). ``clock``: seconds, for the
        timings.
        """
        self._clock = clock
        self._resized: np.ndarray | None = None  # written over by each frame
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
        self.backend_name = self._analysis.backend_name  # of the network that runs on the camera
        self._coder = RansCoder(self.model.tables)

    @property
    def quality(self) -> float:
        """In levels around the model's own, more is finer; may be set between frames.

        While a bit rate is held it is what that takes, and begins at what was set. Raises
        UsageError outside of the range, and for a model that codes no blocks unless 0.
        """
        return self._analysis.quality

    @quality.setter
    def quality(self, quality: float) -> None:
        self._analysis.quality = self._quality = quality

    @property
    def target_kbit_s(self) -> float:
        """The bit rate that films are held at by their quality, 0 for none; may be set between
        frames. Raises UsageError below 0, and for a model that codes no blocks unless 0.
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
            max_width: wider frames are scaled down to it, their aspect kept. Presets with a coded
                size of their own (the paper's) squash every frame to that instead.
            stamp_s: when it was taken, for what is remembered of the frames before; None for a
                picture that belongs to no film.

        Raises:
            RoiCodecError: ``image`` is of another shape, type or size, or cannot be judged.
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
        """Code a frame of coded size by a given block map.

        The payload is a function of the map, the levels, the place, and the pixels of blocks that
        are neither hidden nor skipped.

        Args:
            image: uint8 [H, W, 3], RGB.
            blocks: uint8 [⌈H / stride⌉, ⌈W / stride⌉], as `EncodedFrame.blocks`.
            levels: that of each class.
            place: in its stream.

        Raises:
            RoiCodecError: ``image`` is of another shape or type.
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
        """started: when the analysis began."""
        analysed = self._clock()
        block_map, body = self._coder.encode(sent.symbols, sent.blocks, levels)
        entropy_coded = self._clock()
        coded = (image.shape[0], image.shape[1])
        predicted = b""
        if sent.predicted is not None:
            predicted = packed(sent.predicted, sent.blocks, levels)
        data = Payload(
            self.model.id,
            *original,
            *coded,
            body,
            block_map,
            levels,
            sent.place.stream,
            sent.place.number,
            predicted,
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
        """(height, width) that a frame of ``original`` (height, width) is coded at."""
        if self.model.preset.coded_size is not None:
            return self.model.preset.coded_size
        height, width = original
        if max_width is None or max_width <= 0 or width <= max_width:
            return original
        return max(1, round(height * max_width / width)), max_width

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """Quantised latent of a frame of coded size: int16 [C, ⌈H / stride⌉, ⌈W / stride⌉]."""
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
    """An encoder for a model by name or path.

    Args:
        model, device, threads: as `backends.open_backend`.
        backend: one of BACKENDS; "auto" is onnxruntime for models that code blocks, else torch.
        regions: name or path of the regions model (`.onnx`), for models that code blocks.
        quality, hide_memory_s, skip, predict, persons_every, target_kbit_s: as of `Encoder`; skip
            None: if the model can.

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
    """The model, if it is one that codes blocks; a graph of another may lie there without it."""
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
