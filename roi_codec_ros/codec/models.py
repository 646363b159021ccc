# SPDX-License-Identifier: Apache-2.0
"""Finding models: by path, or by name in the folders where models are installed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from roi_codec_ros.codec.block_transform import STEPS
from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.frequencies import neighbourly_map_cdf
from roi_codec_ros.codec.ladder import coded_channels, ladder_steps
from roi_codec_ros.codec.model_file import Model, read_model
from roi_codec_ros.codec.policy import CLASSES, POLICY, StepPolicy
from roi_codec_ros.codec.presets import BLOCKS, get_preset
from roi_codec_ros.common.errors import ModelFileError
from roi_codec_ros.common.model_files import find_file, model_directories

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ModelEntry:
    """A model file that was found; ``model`` is None if reading it failed with ``error``."""

    path: Path
    model: Model | None
    error: str = ""


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model, by path or name. Raises ModelFileError that lists all others."""
    graph = Path(name_or_path).suffix == ".onnx"
    hint = "a graph only encodes, with backend onnxruntime or openvino" if graph else ""
    return find_file(name_or_path, SUFFIX, hint)


def load_model(name_or_path: str | Path) -> Model:
    """Find and read a model. Raises ModelFileError."""
    return read_model(find_model(name_or_path))


def list_models() -> list[ModelEntry]:
    """Every model file in the searched folders; the first of those with the same name."""
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
    """An untrained model: random weights and Laplace tables; it encodes and decodes."""
    import torch

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
    card: dict[str, object] = {"trained": False, "seed": seed}
    tables = EntropyTables.laplace(preset.latent_channels)
    if preset.architecture == BLOCKS:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("analysis.")}
        tensors[STEPS] = ladder_steps(preset.latent_channels, preset.stride)
        card[POLICY] = asdict(StepPolicy())
        tables = block_tables_laplace(preset.latent_channels)
    return Model.build(f"untrained-{preset_name}", preset, tensors, tables, card)


def block_tables_laplace(channels: int) -> EntropyTables:
    """Default tables for all levels of the ladder, without statistics."""
    narrow = EntropyTables.laplace(1, 0.5)
    width = int(narrow.lengths[0])
    coded = coded_channels(channels)
    rows = int(coded.sum())
    return EntropyTables(
        np.repeat(narrow.cdf[:, :width], rows, axis=0),
        np.repeat(narrow.lengths, rows),
        np.repeat(narrow.offsets, rows),
        coded_channels=coded,
        map_cdf=neighbourly_map_cdf(CLASSES),
    )
