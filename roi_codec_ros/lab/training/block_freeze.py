# SPDX-License-Identifier: Apache-2.0
"""From a trained synthesis to the model file of a block codec: its tables are counted here."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.block_encoder import BlockEncoder
from roi_codec_ros.codec.block_transform import STEPS
from roi_codec_ros.codec.entropy import FIRST_CLASS, SKIPPED, EntropyTables, map_contexts_of
from roi_codec_ros.codec.frequencies import map_cdf_of
from roi_codec_ros.codec.ladder import coded_channels, ladder_steps, relative_steps
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.models import block_tables_laplace
from roi_codec_ros.codec.policy import BACKGROUND, CLASSES, NEAR, POLICY, StepPolicy
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.codec.table_checks import TOTAL
from roi_codec_ros.common.photographs import read_photograph
from roi_codec_ros.lab.training.block_batches import StepSettings
from roi_codec_ros.lab.training.checkpoints import read_checkpoint
from roi_codec_ros.lab.training.progress import LOG_NAME, learning_curve
from roi_codec_ros.lab.training.settings import read_settings
from roi_codec_ros.regions import RegionFinder

MOST_PHOTOGRAPHS = 240
# Narrow around 0, where most symbols are, and mirrored: 2·l + 2·a - d ≤ -12, …
BOUNDS = (-11, -4, -1, 2, 5, 12)
LARGEST = 31  # symbols beyond are escapes
# Qualities at which symbols are counted, in levels around the model's own.
QUALITIES = (-8, -5, -3, -1, 0, 1, 3, 5, 8)
# Of films of standing cameras: frames in which every block has its turn, and what changes else.
TURNS, CHANGED_SHARE = 9, 0.03
# What is believed before anything is counted, in symbols: of the next levels, of all contexts.
_FROM_LEVELS, _FROM_CHANNEL, _FROM_NOTHING = 0.3, 20.0, 0.5


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
    checkpoint: Path,
    regions: RegionFinder,
    photographs: Sequence[Path],
    policy: StepPolicy | None = None,
    name: str | None = None,
) -> Model:
    """The averaged weights of a checkpoint, in half precision, and tables counted on photographs.

    policy: that of the checkpoint's configuration unless given.

    Raises RoiCodecError where there is no checkpoint, or a photograph can't be read.
    """
    state = read_checkpoint(checkpoint)
    policy = policy or read_settings(StepSettings, state["config"]["levels"], "levels").policy()
    preset = state["preset"]
    weights = {key: value.half().cpu().numpy() for key, value in state["average"].items()}
    untold = block_model(
        preset, weights, block_tables_laplace(get_preset(preset).latent_channels), policy, {}
    )
    count = min(len(photographs), MOST_PHOTOGRAPHS)
    chosen = [photographs[index * len(photographs) // count] for index in range(count)]
    tables = counted_tables(untold, regions, chosen)
    curve = learning_curve(checkpoint.parent / LOG_NAME)
    card: dict[str, object] = {
        "trained": True,
        "date": datetime.date.today().isoformat(),
        "training": {
            **state.get("about", {}),
            "steps": state["step"],
            "minutes": round(state["elapsed_s"] / 60.0, 1),
            "history": state["history"],
            "counted_on": count,
            **({"curve": curve} if curve else {}),
        },
    }
    return block_model(preset, weights, tables, policy, card, name)


def counted_tables(
    model: Model, regions: RegionFinder, photographs: Sequence[Path]
) -> EntropyTables:
    """Tables of the symbols and maps of photographs, each at some qualities.

    model: whose analysis, steps and policy make them; its own tables do not matter.
    """
    channels = model.preset.latent_channels
    coded = coded_channels(channels)
    contexts, values = len(BOUNDS) + 1, 2 * LARGEST + 2  # the last: an escape
    rows = int(coded.sum()) * contexts
    blank = EntropyTables(
        np.tile(np.array([0, 1, TOTAL], np.int32), (rows, 1)),
        np.full(rows, 3, np.int32),
        np.zeros(rows, np.int32),
        np.array(BOUNDS, np.int32),
        coded_channels=coded,
        ladder=relative_steps(),
        map_cdf=model.tables.map_cdf,
    )
    counts = np.zeros((rows, values))
    map_counts = np.full(((CLASSES + 3) ** 2, CLASSES + 2), 0.1)
    encoder = BlockEncoder(model, regions)
    rng = np.random.default_rng(0)
    for blocks, levels, symbols in _coded(encoder, photographs):
        still = still_map(blocks, rng)
        np.add.at(map_counts, (map_contexts_of(still, CLASSES), still), 1.0 / len(QUALITIES))
        row = blank.rows_of(symbols, blocks, levels)
        there = row >= 0
        value = symbols[there].astype(np.int64) + LARGEST
        value[(value < 0) | (value > 2 * LARGEST)] = 2 * LARGEST + 1
        np.add.at(counts, (row[there], value), 1.0)
        np.add.at(map_counts, (map_contexts_of(blocks, CLASSES), blocks), 1.0 / len(QUALITIES))
    pmfs, tails, offsets = [], [], []
    for density in _believed(counts, coded, contexts):
        likely = np.flatnonzero(density[:-1] * TOTAL >= 0.5)
        first, last = (LARGEST, LARGEST) if not len(likely) else (likely[0], likely[-1])
        pmfs.append(density[first : last + 1])
        tails.append(max(0.0, 1.0 - float(density[first : last + 1].sum())))
        offsets.append(int(first) - LARGEST)
    return EntropyTables.from_pmfs(
        pmfs,
        tails,
        offsets,
        BOUNDS,
        coded_channels=coded.tolist(),
        ladder=relative_steps().tolist(),
        map_cdf=map_cdf_of(map_counts),
    )


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


def _coded(
    encoder: BlockEncoder, photographs: Sequence[Path]
) -> Iterator[tuple[NDArray[np.uint8], tuple[int, ...], NDArray[np.int16]]]:
    """Block map, levels and symbols of each photograph at three of the qualities in turn."""
    turn = 0
    for path in photographs:
        image = np.asarray(read_photograph(path))
        blocks = encoder.plan(image, None).blocks
        for _ in range(3):
            encoder.quality = float(QUALITIES[turn % len(QUALITIES)])
            turn += 1
            levels = encoder.levels()
            yield blocks, levels, encoder.symbols(image, blocks, levels)


def _believed(
    counts: NDArray[np.float64], coded: NDArray[np.int32], contexts: int
) -> NDArray[np.float64]:
    """Probabilities in each row: what was counted, in the light of its neighbours' counts."""
    by_level = np.split(counts, contexts * np.cumsum(coded)[:-1])
    believed = []
    for level, own in enumerate(by_level):
        rows = own.reshape(-1, contexts, own.shape[1]).copy()
        for other in (level - 1, level + 1):
            if 0 <= other < len(by_level):
                near = by_level[other].reshape(-1, contexts, own.shape[1])[: len(rows)]
                rows[: len(near)] += _FROM_LEVELS * near
        together = rows.sum(axis=1, keepdims=True)
        nothing = np.full(own.shape[1], _FROM_NOTHING / own.shape[1])
        nothing[LARGEST] += 4.0
        channel = (together + nothing) / (together.sum(axis=2, keepdims=True) + nothing.sum())
        totals = rows.sum(axis=2, keepdims=True)
        rows = (rows + _FROM_CHANNEL * channel) / (totals + _FROM_CHANNEL)
        believed.append(rows.reshape(-1, own.shape[1]))
    return np.concatenate(believed)
