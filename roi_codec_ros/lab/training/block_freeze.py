# SPDX-License-Identifier: Apache-2.0
"""From a trained synthesis to the model file of a block codec: its tables are counted here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.block_encoder import BlockEncoder
from roi_codec_ros.codec.block_transform import STEPS
from roi_codec_ros.codec.entropy import FIRST_CLASS, SKIPPED, EntropyTables, map_contexts_of
from roi_codec_ros.codec.frequencies import map_cdf_of
from roi_codec_ros.codec.ladder import (
    PREDICTED_CHANNELS,
    coded_channels,
    frequencies,
    ladder_steps,
    prediction_ladder,
)
from roi_codec_ros.codec.model_file import Model, read_model
from roi_codec_ros.codec.models import block_tables_laplace
from roi_codec_ros.codec.policy import (
    BACKGROUND,
    CLASSES,
    NEAR,
    POLICY,
    StepPolicy,
    model_policy,
)
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.codec.spatial import ABOVE, ABOVE_LEFT, ABOVE_RIGHT, HERE, LEFT
from roi_codec_ros.common.photographs import read_photograph
from roi_codec_ros.lab.training import table_counts
from roi_codec_ros.lab.training.block_batches import StepSettings
from roi_codec_ros.lab.training.checkpoints import is_model_file, read_checkpoint
from roi_codec_ros.lab.training.progress import training_card
from roi_codec_ros.lab.training.settings import read_settings
from roi_codec_ros.lab.training.table_counts import Latent
from roi_codec_ros.regions import RegionFinder

MOST_PHOTOGRAPHS = 240
# Qualities at which symbols are counted, in levels around the model's own.
QUALITIES = (-8, -5, -3, -1, 0, 1, 3, 5, 8)
# Of films of standing cameras: frames in which every block has its turn, and what changes else.
TURNS, CHANGED_SHARE = 9, 0.03


def block_model(
    preset_name: str,
    weights: dict[str, np.ndarray],
    tables: EntropyTables,
    policy: StepPolicy,
    card: dict[str, object],
    name: str | None = None,
) -> Model:
    """A model file of a synthesis' weights and of tables."""
    preset = get_preset(preset_name)
    tensors = {f"synthesis.{key}": value for key, value in weights.items()}
    tensors["latent_mean"] = np.zeros(preset.latent_channels, np.float32)
    tensors[STEPS] = ladder_steps(preset.latent_channels, preset.stride)
    entries = {**card, POLICY: asdict(policy)}
    return Model.build(name or preset.name, preset, tensors, tables, entries)


def freeze_blocks(
    source: Path,
    regions: RegionFinder,
    photographs: Sequence[Path],
    policy: StepPolicy | None = None,
    name: str | None = None,
) -> Model:
    """The averaged weights of a checkpoint, in half precision, and tables counted on photographs.

    source: a checkpoint, or a model file, whose weights and card are kept. policy: that of the
    source unless given.

    Raises RoiCodecError where there is no such file, or a photograph can't be read.
    """
    count = min(len(photographs), MOST_PHOTOGRAPHS)
    trained = (_of_model if is_model_file(source) else _of_checkpoint)(source, count)
    policy = policy or trained.policy
    preset, weights = trained.preset, trained.weights
    untold = block_model(
        preset, weights, block_tables_laplace(get_preset(preset).latent_channels), policy, {}
    )
    chosen = [photographs[index * len(photographs) // count] for index in range(count)]
    tables = counted_tables(untold, regions, chosen)
    return block_model(preset, weights, tables, policy, trained.card, name or trained.name)


@dataclass(frozen=True, eq=False)
class _Trained:
    preset: str
    name: str | None
    weights: dict[str, np.ndarray]
    policy: StepPolicy
    card: dict[str, Any]


def _of_checkpoint(path: Path, counted_on: int) -> _Trained:
    state = read_checkpoint(path)
    policy = read_settings(StepSettings, state["config"]["levels"], "levels").policy()
    weights = {key: value.half().cpu().numpy() for key, value in state["average"].items()}
    card = training_card(path, state, counted_on=counted_on)
    return _Trained(state["preset"], None, weights, policy, card)


def _of_model(path: Path, counted_on: int) -> _Trained:
    model = read_model(path)
    training = {**model.header.get("training", {}), "counted_on": counted_on}
    card = {"trained": True, "date": date.today().isoformat(), "training": training}
    weights = dict(model.weights("synthesis"))
    return _Trained(model.preset.name, model.name, weights, model_policy(model), card)


def counted_tables(
    model: Model, regions: RegionFinder, photographs: Sequence[Path]
) -> EntropyTables:
    """Tables of the symbols and maps of photographs, each at some qualities.

    model: whose analysis, steps and policy make them; its own tables do not matter.
    """
    preset = model.preset
    map_counts = np.full(((CLASSES + 3) ** 2, CLASSES + 2), 0.1)
    rng = np.random.default_rng(0)
    latents = list(_latents(BlockEncoder(model, regions), photographs))
    for _, blocks, _ in latents:
        assert blocks is not None
        for kind in (blocks, still_map(blocks, rng)):
            np.add.at(map_counts, (map_contexts_of(kind, CLASSES), kind), 1.0 / len(QUALITIES))
    ladder = prediction_ladder(preset.latent_channels, preset.stride)
    sources = prediction_sources(preset.latent_channels, preset.stride)
    coded = coded_channels(preset.latent_channels).tolist()
    return table_counts.counted_tables(latents, coded, ladder, sources, map_cdf_of(map_counts))


def prediction_sources(channels: int, size: int) -> list[list[tuple[int, int]]]:
    """Place and channel of the inputs of each predicted channel (`spatial`).

    A mean of a block is predicted from those around it and the slopes towards it; any other
    channel from the same channel around the block, and from the means of its colour.
    """
    basis = frequencies(channels, size)[:PREDICTED_CHANNELS]
    near = (LEFT, ABOVE, ABOVE_LEFT, ABOVE_RIGHT)
    sources = []
    for channel, (colour, _, _) in enumerate(basis):
        inputs = [(place, channel) for place in near]
        mean = basis.index((colour, 0, 0))
        if channel == mean:
            slopes = ((LEFT, (colour, 0, 1)), (ABOVE, (colour, 1, 0)))
            inputs += [(place, basis.index(wave)) for place, wave in slopes if wave in basis]
        else:
            inputs += [(place, mean) for place in (HERE, *near)]
        sources.append(inputs)
    return sources


def still_map(blocks: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A map as a camera that stands still would send of this frame.

    Persons and hidden blocks as they are; of the others the run of blocks whose turn it is, a
    ninth, and a few that have changed.
    """
    may_skip = (blocks == FIRST_CLASS + BACKGROUND) | (blocks == FIRST_CLASS + NEAR)
    places = np.flatnonzero(may_skip)
    if not len(places):
        return blocks
    first, count = int(rng.integers(len(places))), -(-len(places) // TURNS)
    skipped = np.ones(len(places), np.bool_)
    skipped[(first + np.arange(count)) % len(places)] = False
    skipped &= rng.random(len(places)) >= CHANGED_SHARE
    still = blocks.copy()
    still.flat[places[skipped]] = SKIPPED
    return still


def _latents(encoder: BlockEncoder, photographs: Sequence[Path]) -> Iterator[Latent]:
    """Symbols, block map and levels of each photograph at three of the qualities in turn."""
    turn = 0
    for path in photographs:
        image = np.asarray(read_photograph(path))
        blocks = encoder.plan(image, None).blocks
        for _ in range(3):
            encoder.quality = float(QUALITIES[turn % len(QUALITIES)])
            turn += 1
            levels = encoder.levels()
            yield Latent(encoder.symbols(image, blocks, levels), blocks, levels)
