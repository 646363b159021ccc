# SPDX-License-Identifier: Apache-2.0
"""From a trained network to a model file: integer tables are made here, once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.codec.eight_bits import in_eight_bits
from roi_codec_ros.codec.encoding import Encoder
from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.codec.spatial import ABOVE, ABOVE_LEFT, ABOVE_RIGHT, LEFT
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.photographs import PhotographError, left_out, read_photograph
from roi_codec_ros.lab.training.checkpoints import averaged_codec, read_checkpoint
from roi_codec_ros.lab.training.progress import training_card
from roi_codec_ros.lab.training.table_counts import Latent, counted_tables

LOG = logging.getLogger(__name__)

MOST_PHOTOGRAPHS = 300
_LONGEST_SIDE = 1280  # px; larger ones are shrunk, as cameras' frames are


def freeze(
    checkpoint: Path,
    name: str | None = None,
    blend: tuple[Path, float] | None = None,
    eight_bits: bool = False,
    photographs: Sequence[Path] = (),
) -> Model:
    """The averaged weights of a checkpoint (stored in half precision) and their tables as a model.

    name: what the model is called, its preset's name unless given. blend: another checkpoint of
    the same run, and the share from 0 to 1 that its weights have in the model. eight_bits: store
    the kernels as int8, for a file of half the size. photographs: of the training split, on which
    the tables are counted (table_counts.py); without any they are those of the entropy model, and
    frames take a third more bits. The card tells how it was trained, with the curve of the log
    beside the checkpoint; figures are measured later.
    Raises RoiCodecError where there is no checkpoint.
    """
    state = read_checkpoint(checkpoint)
    blended = {}
    if blend is not None:
        other, share = read_checkpoint(blend[0]), blend[1]
        if not 0.0 <= share <= 1.0:
            raise UsageError(f"expected a share of 0 to 1, found {share:g}")
        if other["preset"] != state["preset"]:
            raise RoiCodecError(
                f"expected checkpoints of one preset to blend, found {state['preset']!r} and "
                f"{other['preset']!r}"
            )
        for key, value in state["average"].items():
            if value.is_floating_point():
                value.lerp_(other["average"][key], share)
        blended = {"blended_with": {"steps": other["step"], "share": share}}
    network = averaged_codec(state)
    bottleneck = network.bottleneck
    bottleneck.update(force=True)
    tables = EntropyTables(
        bottleneck.quantized_cdf.numpy(),
        bottleneck.cdf_length.numpy(),
        bottleneck.offset.numpy(),
    )
    tensors: dict[str, np.ndarray] = {
        f"{part}.{key}": value.detach().half().numpy()
        for part in ("analysis", "synthesis")
        for key, value in getattr(network, part).state_dict().items()
    }
    if eight_bits:
        tensors = in_eight_bits(tensors)
    tensors["latent_mean"] = network.means().numpy().astype(np.float32)
    preset = get_preset(state["preset"])
    model = Model.build(
        name=name or preset.name,
        preset=preset,
        tensors=tensors,
        tables=tables,
        card=training_card(checkpoint, state, **blended),
    )
    return _counted(model, photographs) if photographs else model


def latents_of(model: Model, photographs: Sequence[Path]) -> Iterator[Latent]:
    """The symbols of up to `MOST_PHOTOGRAPHS` files, evenly taken, by a model of networks.

    What can't be read is left out, and the log says so.
    """
    encoder = Encoder(model)
    count = min(len(photographs), MOST_PHOTOGRAPHS)
    broken: list[PhotographError] = []
    for index in range(count):
        try:
            pixels = read_photograph(photographs[index * len(photographs) // count])
        except PhotographError as error:
            broken.append(error)
            continue
        scale = _LONGEST_SIDE / max(pixels.shape[:2])
        if scale < 1.0:
            shrunk = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            pixels = np.asarray(shrunk, np.uint8)
        yield Latent(encoder.symbols(pixels))
    for sentence in left_out(broken, count):
        LOG.warning("counting symbols: %s", sentence)


def network_tables(latents: Sequence[Latent], channels: int) -> EntropyTables:
    """Tables of the latents of networks, each channel predicted from the blocks around.

    Raises RoiCodecError if there is no latent.
    """
    near = (LEFT, ABOVE, ABOVE_LEFT, ABOVE_RIGHT)
    sources = [[(place, channel) for place in near] for channel in range(channels)]
    return counted_tables(latents, [channels], np.ones((1, channels), np.int32), sources)


def _counted(model: Model, photographs: Sequence[Path]) -> Model:
    """The model with tables that know the symbols around."""
    latents = list(latents_of(model, photographs))
    tables = network_tables(latents, model.preset.latent_channels)
    training = {**model.header["training"], "counted_on": len(latents)}
    card = {**model.header, "training": training}
    return Model.build(model.name, model.preset, model.tensors, tables, card)
