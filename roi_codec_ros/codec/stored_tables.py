# SPDX-License-Identifier: Apache-2.0
"""Entropy tables as tensors of a model file: frequencies, without the padding of cdf."""

from __future__ import annotations

import numpy as np

from roi_codec_ros.codec.entropy import TABLES, EntropyTables
from roi_codec_ros.codec.table_checks import equal_activity_weights
from roi_codec_ros.common.errors import ModelFileError

_PREFIX = "entropy."
_FREQUENCIES = "frequencies"
_WEIGHTS = "activity_weights"  # not stored where all are equal, as in the paper's models
_MOST_ENTRIES = 1 << 27  # of cdf, in memory


def table_tensors(tables: EntropyTables) -> dict[str, np.ndarray]:
    """The tables as arrays by name: `EntropyTables`' attributes, with frequencies for cdf.

    Frequencies are uint16 [Σ (lengths - 1)], those of each row in turn.
    """
    used = np.arange(tables.cdf.shape[1] - 1) < tables.lengths[:, None] - 1
    steps = np.diff(tables.cdf, axis=1)[used].astype(np.uint16)
    rest = {f"{_PREFIX}{name}": getattr(tables, name) for name in TABLES if name != "cdf"}
    if np.array_equal(tables.activity_weights, equal_activity_weights(tables.channels)):
        del rest[f"{_PREFIX}{_WEIGHTS}"]
    return {f"{_PREFIX}{_FREQUENCIES}": steps, **rest}


def tables_of_tensors(arrays: dict[str, np.ndarray], where: str) -> EntropyTables:
    """The tables of a model file, whose tensors are taken out of ``arrays``.

    Raises ModelFileError, which names ``where``.
    """
    taken = {}
    for name in (_FREQUENCIES, *(name for name in TABLES if name != "cdf")):
        array = arrays.pop(f"{_PREFIX}{name}", None)
        if array is None and name == _WEIGHTS:
            continue
        if array is None:
            raise ModelFileError(f"expected {where} to hold tensor {_PREFIX}{name}, found none")
        taken[name] = array
    frequencies, lengths = taken.pop(_FREQUENCIES), taken["lengths"]
    rows = lengths.astype(np.int64) - 1 if lengths.dtype.kind in "iu" else np.zeros(0, np.int64)
    good = rows.ndim == 1 and rows.size > 0 and bool((rows >= 2).all())
    good = good and rows.max() < _MOST_ENTRIES and rows.sum() == frequencies.size
    good = good and frequencies.dtype == np.uint16 and frequencies.ndim == 1
    if not good or rows.size * int(rows.max() + 1) > _MOST_ENTRIES:
        raise ModelFileError(
            f"expected {where} to hold frequencies uint16 [n] of rows with lengths of 3 or more, "
            f"found {frequencies.dtype} {list(frequencies.shape)} of {list(lengths.shape)} rows"
        )
    used = np.arange(int(rows.max())) < rows[:, None]
    steps = np.zeros(used.shape, np.int64)
    steps[used] = frequencies
    cdf = np.zeros((len(rows), used.shape[1] + 1), np.int64)
    np.cumsum(steps, axis=1, out=cdf[:, 1:])
    cdf[:, 1:][~used] = 0
    return EntropyTables(cdf=cdf, **taken)
