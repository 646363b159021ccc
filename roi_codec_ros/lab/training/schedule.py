# SPDX-License-Identifier: Apache-2.0
"""The learning rate over a run."""

from __future__ import annotations

import math


def learning_rate_share(progress: float, step: int, warm_up_steps: int) -> float:
    """What share of the configured rate a step gets: half a cosine from 1 to 2 %, warmed up.

    progress: share of the budget that is spent; beyond 1 the rate stays at its end.
    """
    cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return cosine * min(1.0, (step + 1) / warm_up_steps)
