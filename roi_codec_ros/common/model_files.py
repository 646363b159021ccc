# SPDX-License-Identifier: Apache-2.0
"""Finding model files: by path, or by name in the folders where models are installed."""

from __future__ import annotations

import os
from pathlib import Path

from roi_codec_ros.common.errors import ModelFileError
from roi_codec_ros.common.share import share_folders

ENVIRONMENT_VARIABLE = "ROI_CODEC_MODELS"
MAX_FILE_BYTES = 1 << 30


def model_directories() -> list[Path]:
    """Existing folders that are searched, first to last.

    ``$ROI_CODEC_MODELS`` (several, as in PATH), then the package's own ``models``.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep)
    own = [Path(entry) for entry in named if entry and Path(entry).is_dir()]
    return list(dict.fromkeys([*own, *share_folders("models")]))


def find_file(name_or_path: str | Path, suffix: str, hint: str = "") -> Path:
    """The file with this suffix, by path or by name in the searched folders.

    Raises ModelFileError that lists the available ones and ends with the hint.
    """
    path = Path(name_or_path)
    if path.suffix == suffix and path.is_file():
        return path
    directories = model_directories()
    for directory in directories:
        candidate = directory / f"{name_or_path}{suffix}"
        if candidate.is_file():
            return candidate
    known = sorted({p.stem for d in directories for p in d.glob(f"*{suffix}")})
    raise ModelFileError(
        f"expected a model file ({suffix}) or one of the installed models "
        f"({', '.join(known) or 'none found'}); found {str(name_or_path)!r}"
        + (f"; {hint}" if hint else "")
    )
