# SPDX-License-Identifier: Apache-2.0
"""The lines of `roi-codec doctor`."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, POOR, BAD = "good", "look at", "bad"


@dataclass(frozen=True)
class Finding:
    """One line. level: GOOD, POOR (works, but not as it could) or BAD."""

    subject: str
    level: str
    text: str
