# SPDX-License-Identifier: Apache-2.0
"""Optional packages: imported where they are needed, and named where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError


def optional(module: str, *, needed_for: str, install: str) -> Any:
    """Import and return `module`; RoiCodecError says what it is for and what to type."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RoiCodecError(
            f"expected the package {module} for {needed_for}, found none ({error}); "
            f"install it with: {install}"
        ) from error
