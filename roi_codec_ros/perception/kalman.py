# SPDX-License-Identifier: Apache-2.0
"""A Kalman filter for many persons at once, with a nearly-constant-velocity model on a plane.

State: x, y, v_x, v_y in m and m/s. The velocity is a random walk (white noise acceleration:
Bar-Shalom, Li, Kirubarajan, Estimation with Applications to Tracking and Navigation, eq. 6.2.2-4),
so that a prediction over one second is the same as ten over a tenth of a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError

Array = NDArray[np.float64]


def predict(mean: Array, covariance: Array, dt_s: float, noise: float) -> tuple[Array, Array]:
    """Predict states dt_s ≥ 0 ahead.

    mean: [N, 4]. covariance: [N, 4, 4]. noise: standard deviation in m/s of a velocity after one
        second of acceleration noise (it grows with the square root of time).
    """
    transition = np.eye(4)
    transition[0, 2] = transition[1, 3] = dt_s
    ahead = transition @ covariance @ transition.T
    position, mixed, velocity = noise**2 * np.array([dt_s**3 / 3, dt_s**2 / 2, dt_s])
    for axis in (0, 1):
        ahead[:, axis, axis] += position
        ahead[:, axis, axis + 2] += mixed
        ahead[:, axis + 2, axis] += mixed
        ahead[:, axis + 2, axis + 2] += velocity
    return mean @ transition.T, ahead


def update(mean: Array, covariance: Array, xy: Array, spread: Array) -> tuple[Array, Array]:
    """Update each state with one measured position.

    mean: [N, 4]. covariance: [N, 4, 4]. xy: [N, 2]. spread: [N, 2, 2], the covariance of xy.
    The covariance is updated in Joseph's form, which keeps it positive definite.
    """
    innovation = xy - mean[:, :2]
    gain = covariance[:, :, :2] @ inverse(covariance[:, :2, :2] + spread)
    keep = np.broadcast_to(np.eye(4), covariance.shape).copy()
    keep[:, :, :2] -= gain
    updated = keep @ covariance @ keep.transpose(0, 2, 1) + gain @ spread @ gain.transpose(0, 2, 1)
    return mean + (gain @ innovation[:, :, None])[:, :, 0], updated


def mahalanobis_squared(difference: Array, covariance: Array) -> Array:
    """[...] of differences [..., 2] under covariances [..., 2, 2]."""
    weighted = (inverse(covariance) @ difference[..., None])[..., 0]
    return np.asarray((difference * weighted).sum(axis=-1))


def determinant(matrix: Array) -> Array:
    """[...] of matrices [..., 2, 2]."""
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def inverse(matrix: Array) -> Array:
    """Inverses of matrices [..., 2, 2], in closed form: many times faster than np.linalg.inv."""
    adjugate = np.empty_like(matrix)
    adjugate[..., 0, 0] = matrix[..., 1, 1]
    adjugate[..., 1, 1] = matrix[..., 0, 0]
    adjugate[..., 0, 1] = -matrix[..., 0, 1]
    adjugate[..., 1, 0] = -matrix[..., 1, 0]
    return adjugate / determinant(matrix)[..., None, None]


def gate(probability: float) -> float:
    """The gate: the squared Mahalanobis distance in two dimensions that this share is below.

    The quantile of the chi-squared distribution with two degrees of freedom.
    """
    return float(-2.0 * np.log1p(-probability))


def check_positive_definite(covariance: Array) -> None:
    """Raise RoiCodecError unless all of [N, 2, 2] are valid covariances."""
    finite = np.isfinite(covariance).all(axis=(1, 2))
    a, b, c, d = (covariance[:, row, column] for row in (0, 1) for column in (0, 1))
    with np.errstate(invalid="ignore", over="ignore"):
        symmetric = np.abs(b - c) <= 1e-6 * (np.abs(a) + np.abs(d))
        definite = (a > 0) & (d > 0) & (a * d - b * c > 0)
    wrong = np.flatnonzero(~(finite & symmetric & definite))
    if len(wrong):
        found = covariance[wrong[0]].tolist()
        raise RoiCodecError(
            f"expected finite, symmetric, positive definite covariances, found {found} "
            f"at index {wrong[0]}"
        )
