# SPDX-License-Identifier: Apache-2.0
"""Where models are found: by path, or by name in the places where models are installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from roi_codec_ros.codec.model_file import Model, read_model
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.common.errors import ModelFileError
from roi_codec_ros.common.share import share_folders

ENVIRONMENT_VARIABLE = "ROI_CODEC_MODELS"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ModelEntry:
    """A model file that was found; ``model`` is None where reading it gave ``error``."""

    path: Path
    model: Model | None
    error: str = ""


def model_directories() -> list[Path]:
    """Existing folders that are searched, first to last.

    ``$ROI_CODEC_MODELS`` (several, as in PATH), then the package's own ``models``.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep)
    own = [Path(entry) for entry in named if entry and Path(entry).is_dir()]
    return list(dict.fromkeys([*own, *share_folders("models")]))


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model, by path or name. Raises ModelFileError that lists what is there."""
    graph = Path(name_or_path).suffix == ".onnx"
    hint = "a graph only encodes, with backend onnxruntime or openvino" if graph else ""
    return find_file(name_or_path, SUFFIX, hint)


def find_file(name_or_path: str | Path, suffix: str, hint: str = "") -> Path:
    """The file with this suffix, by path or by name in the searched folders.

    Raises ModelFileError that lists what is there, and ends with the hint.
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


def load_model(name_or_path: str | Path) -> Model:
    """Find and read a model. Raises ModelFileError."""
    return read_model(find_model(name_or_path))


def list_models() -> list[ModelEntry]:
    """Every model file in the searched folders; of two with one name, the first is used."""
    found: dict[str, Path] = {}
    for directory in model_directories():
        for path in sorted(directory.glob(f"*{SUFFIX}")):
            found.setdefault(path.stem, path)
    entries = []
    for path in found.values():
        try:
            entries.append(ModelEntry(path, read_model(path)))
        except ModelFileError as error:
            entries.append(ModelEntry(path, None, str(error)))
    return entries


def untrained_model(preset_name: str, seed: int = 0) -> Model:
    """A model with random weights and Laplace tables: codes and decodes, means nothing."""
    import numpy as np
    import torch

    from roi_codec_ros.codec.entropy import EntropyTables
    from roi_codec_ros.codec.networks import build_transforms

    preset = get_preset(preset_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        analysis, synthesis = build_transforms(preset)
    tensors = {
        f"{part}.{key}": value.detach().numpy()
        for part, network in (("analysis", analysis), ("synthesis", synthesis))
        for key, value in network.state_dict().items()
    }
    tensors["latent_mean"] = np.zeros(preset.latent_channels, np.float32)
    return Model.build(
        name=f"untrained-{preset_name}",
        preset=preset,
        tensors=tensors,
        tables=EntropyTables.laplace(preset.latent_channels),
        card={"trained": False, "seed": seed},
    )
