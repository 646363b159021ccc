# SPDX-License-Identifier: Apache-2.0
"""Limits and checks of untrusted entropy tables; the checks raise ModelFileError."""

from __future__ import annotations

import numpy as np

from roi_codec_ros.common.errors import ModelFileError

PRECISION = 16  # bits of the cumulative frequencies
TOTAL = 1 << PRECISION
ESCAPE_BITS = 16  # bits of a value coded outside its table
VALUE_MIN, VALUE_MAX = -(1 << 15), (1 << 15) - 1  # range of int16 symbols
MAX_ACTIVITY = 255  # largest activity, and boundary between two contexts
GROUP = 8  # channels that are decoded at once
# That count in an activity: channels of a symbol's group and the four before, and blocks (left and
# above).
REACH, NEIGHBOURS = 5 * GROUP, 2
WEIGHT_OF_ONE = 16  # of an activity's inputs, so that sums are rounded down to whole units
MAX_ACTIVITY_WEIGHT = 255
FRACTIONS = 3  # contexts of a predicted channel for each of the others
MAX_CLASSES = 6
MAX_LEVELS = 64
MAX_STEP = 0xFFFF  # largest step of a ladder
MAX_WEIGHT = 1 << 13  # largest weight of a predictor, also negated
MAX_INPUTS = 16  # of the prediction of a channel
PLACES = 5  # that a prediction looks at: this block and four neighbours


def as_frozen_int32(name: str, values: object) -> np.ndarray:
    """The values as int32, in a read-only copy. Raises ModelFileError."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ModelFileError(f"entropy tables: expected integers in {name}, found {array.dtype}")
    info = np.iinfo(np.int32)
    if array.size and (int(array.min()) < info.min or int(array.max()) > info.max):
        raise ModelFileError(f"entropy tables: expected 32-bit integers in {name}, found larger")
    frozen = np.array(array, dtype=np.int32, order="C")  # a private copy
    frozen.setflags(write=False)
    return frozen


def check_bounds(bounds: np.ndarray) -> None:
    """Check `EntropyTables.bounds`. Raises ModelFileError."""
    if bounds.ndim != 1 or len(bounds) > MAX_ACTIVITY:
        raise ModelFileError(
            f"entropy tables: expected 0 to {MAX_ACTIVITY} bounds, found {list(bounds.shape)}"
        )
    far = (bounds < 1) | (bounds > MAX_ACTIVITY)
    if far.any() or not (bounds[1:] > bounds[:-1]).all():
        raise ModelFileError(
            f"entropy tables: expected rising bounds of 1 to {MAX_ACTIVITY}, "
            f"found {bounds.tolist()}"
        )


def check_shapes(cdf: np.ndarray, lengths: np.ndarray, offsets: np.ndarray) -> None:
    """Check the shapes of cdf, lengths and offsets, one row each. Raises ModelFileError."""
    if cdf.ndim != 2 or cdf.shape[0] < 1 or not 3 <= cdf.shape[1] <= TOTAL + 1:
        raise ModelFileError(
            f"entropy tables: expected cdf [R, 3..{TOTAL + 1}], found {list(cdf.shape)}"
        )
    for name, array in (("lengths", lengths), ("offsets", offsets)):
        if array.shape != (cdf.shape[0],):
            raise ModelFileError(
                f"entropy tables: expected {name} [{cdf.shape[0]}], found {list(array.shape)}"
            )


def channels_of_one_level(rows: int, contexts: int, predicted: int) -> int:
    """The number of channels for `rows` rows. Raises ModelFileError."""
    left = rows - FRACTIONS * contexts * predicted
    if left < 0 or left % contexts or rows == 0:
        raise ModelFileError(
            f"entropy tables: expected rows for {contexts} contexts of each channel and "
            f"{FRACTIONS * contexts} of each of {predicted} predicted ones, found {rows}"
        )
    return predicted + left // contexts


def check_levels(coded_channels: np.ndarray) -> None:
    """Check `EntropyTables.coded_channels`. Raises ModelFileError."""
    if coded_channels.ndim != 1 or len(coded_channels) > MAX_LEVELS:
        raise ModelFileError(
            f"entropy tables: expected coded_channels of 1 to {MAX_LEVELS} levels, "
            f"found {list(coded_channels.shape)}"
        )
    if coded_channels.min() < 1:
        raise ModelFileError(
            "entropy tables: expected 1 coded channel or more at each level, "
            f"found {coded_channels.tolist()}"
        )


def check_ladder(ladder: np.ndarray, coded_channels: np.ndarray) -> None:
    """Check `EntropyTables.ladder`, int32 [L, M]. Raises ModelFileError."""
    levels, most = len(coded_channels), int(coded_channels.max())
    if ladder.ndim != 2 or len(ladder) != levels or ladder.shape[1] > most:
        raise ModelFileError(
            f"entropy tables: expected a ladder [{levels}, 0..{most}], found {list(ladder.shape)}"
        )
    if ladder.size and (ladder.min() < 1 or ladder.max() > MAX_STEP):
        raise ModelFileError(
            f"entropy tables: expected a ladder of steps of 1 to {MAX_STEP}, "
            f"found {ladder.min()} to {ladder.max()}"
        )


def check_predictor(predictor: np.ndarray, predicted: int) -> None:
    """Check `EntropyTables.predictor` of `predicted` channels. Raises ModelFileError."""
    if predictor.ndim != 2 or predictor.shape[1] != 4:
        raise ModelFileError(
            f"entropy tables: expected a predictor [n, 4], found {list(predictor.shape)}"
        )
    channel, place, source, weight = predictor.T
    good = (channel >= 0) & (channel < predicted) & (place >= 0) & (place < PLACES)
    good &= (source >= 0) & (source < np.where(place == 0, channel, predicted))
    good &= np.abs(weight.astype(np.int64)) <= MAX_WEIGHT
    good[1:] &= channel[1:] >= channel[:-1]
    if not good.all():
        row = int(np.argmin(good))
        raise ModelFileError(
            f"entropy tables: expected a predictor of {predicted} channels in their order, each "
            f"of what is decoded before it; found {predictor[row].tolist()} in row {row}"
        )
    if len(channel) and int(np.bincount(channel).max()) > MAX_INPUTS:
        raise ModelFileError(
            f"entropy tables: expected at most {MAX_INPUTS} inputs of a channel, "
            f"found {int(np.bincount(channel).max())}"
        )


def equal_activity_weights(channels: int) -> np.ndarray:
    """`EntropyTables.activity_weights` of models that have none: int32 [C, 42]."""
    weights = np.full((channels, REACH + NEIGHBOURS), WEIGHT_OF_ONE, np.int32)
    weights[:, REACH - GROUP : REACH] = 0
    weights[:, REACH:] *= 2
    return weights


def known_before(channels: int, predicted: int) -> np.ndarray:
    """Which of the 40 channels that an activity may count are decoded before each: bool [C, 40].

    Of the symbol's own group only predicted channels know any, since other groups are decoded at
    once.
    """
    channel = np.arange(channels)
    first = channel // GROUP * GROUP
    end = np.where(channel < predicted, channel, first)
    counted = first[:, None] - (REACH - GROUP) + np.arange(REACH)
    return np.asarray((counted >= 0) & (counted < end[:, None]))


def check_activity_weights(weights: np.ndarray, channels: int, predicted: int) -> None:
    """Check `EntropyTables.activity_weights`. Raises ModelFileError."""
    wanted = (channels, REACH + NEIGHBOURS)
    if weights.shape != wanted:
        raise ModelFileError(
            f"entropy tables: expected activity_weights {list(wanted)}, "
            f"found {list(weights.shape)}"
        )
    if weights.min() < 0 or weights.max() > MAX_ACTIVITY_WEIGHT:
        raise ModelFileError(
            f"entropy tables: expected activity_weights of 0 to {MAX_ACTIVITY_WEIGHT}, "
            f"found {weights.min()} to {weights.max()}"
        )
    early = weights[:, :REACH].astype(np.bool_) & ~known_before(channels, predicted)
    early[:, : REACH - GROUP] = False  # channels before the first count 0
    if early.any():
        raise ModelFileError(
            "entropy tables: expected activity_weights of what is decoded before, found others "
            f"of channel {int(np.argmax(early.any(axis=1)))}"
        )


def check_row_count(rows: int, wanted: int) -> None:
    """Check the number of rows. Raises ModelFileError."""
    if wanted != rows:
        raise ModelFileError(
            f"entropy tables: expected {wanted} rows, one for each context of each channel of "
            f"each level, found {rows}"
        )


def check_map(map_cdf: np.ndarray) -> None:
    """Check `EntropyTables.map_cdf`. Raises ModelFileError."""
    classes = map_cdf.shape[-1] - 3
    if not 1 <= classes <= MAX_CLASSES or map_cdf.shape != ((classes + 3) ** 2, classes + 3):
        raise ModelFileError(
            f"entropy tables: expected map_cdf [(P + 3)², P + 3] of 1 to {MAX_CLASSES} classes, "
            f"found {list(map_cdf.shape)}"
        )
    good = (map_cdf[:, 0] == 0) & (map_cdf[:, -1] == TOTAL)
    good &= (map_cdf[:, 1:] > map_cdf[:, :-1]).all(axis=1)
    if not good.all():
        raise ModelFileError(
            f"entropy tables: expected rows of map_cdf to rise strictly from 0 to {TOTAL}, "
            f"found an error in row {int(np.argmin(good))}"
        )


def check_rows(cdf: np.ndarray, lengths: np.ndarray) -> None:
    """Check that each row rises from 0 to 65536 over its length. Raises ModelFileError."""
    for index, used in enumerate(lengths.tolist()):
        if not 3 <= used <= cdf.shape[1]:
            raise ModelFileError(
                f"entropy tables: expected a length of 3 to {cdf.shape[1]} in row {index}, "
                f"found {used}"
            )
        row = cdf[index]
        if row[0] != 0 or row[used - 1] != TOTAL:
            raise ModelFileError(
                f"entropy tables: expected row {index} to run from 0 to {TOTAL}, "
                f"found {row[0]} to {row[used - 1]}"
            )
        # Compared, not subtracted: a difference of hostile 32-bit entries could wrap around.
        if not bool((row[1:used] > row[: used - 1]).all()):
            raise ModelFileError(
                f"entropy tables: expected row {index} to rise strictly, found a step of 0 or less"
            )
        if row[used:].any():
            raise ModelFileError(
                f"entropy tables: expected zeros after entry {used} of row {index}, found others"
            )


def check_values(lengths: np.ndarray, offsets: np.ndarray) -> None:
    """Check that every value in the tables is one of int16. Raises ModelFileError."""
    for index, (used, first) in enumerate(zip(lengths.tolist(), offsets.tolist(), strict=True)):
        last = first + used - 3  # the escape has no value
        if first < VALUE_MIN or last > VALUE_MAX:
            raise ModelFileError(
                f"entropy tables: expected values of {VALUE_MIN} to {VALUE_MAX} in row "
                f"{index}, found {first} to {last}"
            )
