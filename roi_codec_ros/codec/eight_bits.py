# SPDX-License-Identifier: Apache-2.0
"""Convolution weights in 8 bits, with one scale per kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from roi_codec_ros.common.errors import ModelFileError

SCALE = ".scale"


def in_eight_bits(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights with convolution kernels as int8, scaled by 1/127 of each kernel's largest.

    This takes a quarter of float32's size. Kernels are the tensors with four axes; the others are
    small and stay float.
    """
    stored = {}
    for key, value in tensors.items():
        if value.ndim != 4:
            stored[key] = value
            continue
        rows = value.astype(np.float32).reshape(len(value), -1)
        scale = np.maximum(np.abs(rows).max(axis=1) / 127.0, np.finfo(np.float32).tiny)
        stored[key] = np.rint(rows / scale[:, None]).astype(np.int8).reshape(value.shape)
        stored[key + SCALE] = scale.astype(np.float32)
    return stored


def full_precision(value: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    """The weights with int8 kernels converted back to float32; others unchanged."""
    if scale is None:
        return value
    return value.astype(np.float32) * scale.reshape(-1, *[1] * (value.ndim - 1))


def check_scales(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Check that each int8 tensor has its scale, and no other has. Raises ModelFileError."""
    for key, value in arrays.items():
        scale = arrays.get(key + SCALE)
        if (value.dtype == np.int8) != (scale is not None):
            raise ModelFileError(
                f"expected {where} to hold {key}{SCALE} if {key} is int8 and else not, found "
                f"{key} {value.dtype} {'with' if scale is not None else 'without'} it"
            )
        if scale is not None and (
            scale.dtype != np.float32 or value.ndim == 0 or scale.shape != value.shape[:1]
        ):
            raise ModelFileError(
                f"expected {where} to hold {key}{SCALE} float32 {list(value.shape[:1])}, "
                f"found {scale.dtype} {list(scale.shape)}"
            )
