# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of training runs: written whole or not at all, read by later versions too."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from roi_codec_ros.codec.model_file import read_model
from roi_codec_ros.codec.models import SUFFIX
from roi_codec_ros.codec.networks import TOLD_OF_BLOCKS, inverse_of_blocks
from roi_codec_ros.codec.presets import PAPER, Preset, get_preset
from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.common.output_files import RunFolder
from roi_codec_ros.lab.training.config import TrainingConfig
from roi_codec_ros.lab.training.normalized import NormalizedCodec, codec_to_train
from roi_codec_ros.lab.training.side_by_side import side_by_side
from roi_codec_ros.lab.training.trainable import TrainableCodec

CHECKPOINT_FORMAT = 3
# Format 2 knew no classes other than persons and heads.
READ_FORMATS = (2, CHECKPOINT_FORMAT)
_QUANTILE_SPREAD = 10.0  # compressai's own start


def run_folder(
    path: Path, verb: str, checkpoint: Path, names: Iterable[str], *, resume: bool, force: bool
) -> RunFolder:
    """The folder of a training run. names: what it writes in there.

    Raises RoiCodecError where a new run would replace the checkpoint of an earlier one, and as
    `RunFolder`; not with ``force``.
    """
    if resume:
        return RunFolder(path, verb, ())  # the checkpoint says itself whose they are
    if checkpoint.exists() and not force:
        raise RoiCodecError(
            f"expected no earlier run in {path}, found {checkpoint}; --resume continues it, "
            "--force replaces it"
        )
    return RunFolder(path, verb, names, force=force)


def is_model_file(path: Path) -> bool:
    """Whether a file to start from is a model file, by its name; otherwise it is a checkpoint."""
    return path.suffix == SUFFIX


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What :func:`write_checkpoint` wrote. Raises RoiCodecError for anything else."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise RoiCodecError(
            f"expected a training checkpoint at {path}; reading it failed: {reason_of(error)}"
        ) from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found not in READ_FORMATS:
        raise RoiCodecError(
            f"expected a training checkpoint of format {' or '.join(map(str, READ_FORMATS))} at "
            f"{path}, found {found!r}"
        )
    return dict(state)


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the old one stands until the new one is whole on the disk.

    Raises RoiCodecError where that fails, for want of room for one; the old one stands then too.
    """
    content = io.BytesIO()  # torch's own writer hides why the disk refused
    torch.save({"format": CHECKPOINT_FORMAT, **state}, content)
    try:
        write_whole(path, content.getbuffer(), durable=True)
    except OSError as error:
        stands = "the last one stands" if path.is_file() else "there is none yet"
        raise RoiCodecError(
            f"cannot write a checkpoint to {path}: {reason_of(error)}; {stands}"
        ) from error


def averaged_codec(checkpoint: Mapping[str, Any]) -> TrainableCodec:
    """The averaged weights of a checkpoint, in evaluation mode, the tables not yet made."""
    codec = TrainableCodec(checkpoint["preset"])
    codec.load_state_dict(average_of(checkpoint))
    return codec.eval()


def average_of(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The averaged state of a checkpoint's `TrainableCodec`, folded where it is normalized."""
    average = {k: v.cpu() for k, v in checkpoint["average"].items()}
    settings = checkpoint["config"].get("normalized") or {}
    widths = settings.get("analysis", ()), settings.get("synthesis", ())
    codec = codec_to_train(checkpoint["preset"], *widths)
    if not isinstance(codec, NormalizedCodec):
        return average
    codec.load_state_dict({k: v for k, v in average.items() if not k.startswith("readouts.")})
    return codec.folded()


def initial_weights(
    paths: Sequence[Path], config: TrainingConfig
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A codec's state to start a new run from, and its origin for the model card.

    paths: checkpoints, whose averaged weights are taken, or model files. Where the configuration
    is `normalized`, one checkpoint of a network as narrow. Else one of its preset, or one or
    several networks of the paper that are narrower, which are set `side_by_side`. Raises
    RoiCodecError for others.
    """
    preset = config.preset
    if config.normalized.analysis:
        return _normalized_weights(paths, config)
    parts = [_codec_weights(path, preset) for path in paths]
    if len(parts) == 1 and not _narrower(parts[0][1], preset):
        weights, found, origin = parts[0]
        _check_preset(found, preset, paths[0])
        return weights, origin
    weights = side_by_side(
        [(get_preset(name), part) for part, name, _ in parts], get_preset(preset)
    )
    origins = [{"preset": name, **origin} for _, name, origin in parts]
    return weights, {"side_by_side": origins}


def _narrower(found: str, wanted: str) -> bool:
    """Whether a preset is another's with fewer channels."""
    narrow, wide = get_preset(found), get_preset(wanted)
    return (
        narrow.architecture == wide.architecture == PAPER
        and narrow.options == wide.options
        and narrow.latent_channels < wide.latent_channels
    )


def _normalized_weights(
    paths: Sequence[Path], config: TrainingConfig
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Those of a checkpoint of the same normalized network; what foretells features only where
    that goes on.
    """
    if len(paths) > 1 or is_model_file(paths[0]):
        raise RoiCodecError(
            "expected one checkpoint to start a normalized network from, found "
            f"{', '.join(map(str, paths))}"
        )
    state = read_checkpoint(paths[0])
    _check_preset(state["preset"], config.preset, paths[0])
    found, wanted = state["config"].get("normalized") or {}, config.normalized
    for part in ("analysis", "synthesis"):
        if tuple(found.get(part, ())) != getattr(wanted, part):
            raise RoiCodecError(
                f"expected a checkpoint with normalized.{part} = {list(getattr(wanted, part))}, "
                f"found {list(found.get(part, ()))} at {paths[0]}"
            )
    taught = wanted.teaching_weight > 0
    weights = {
        k: v for k, v in state["average"].items() if taught or not k.startswith("readouts.")
    }
    return weights, _origin(paths[0], state)


def _codec_weights(path: Path, wanted: str) -> tuple[dict[str, torch.Tensor], str, dict[str, Any]]:
    """Whole weights, preset and origin of a checkpoint or a model file, for a preset.

    A model file holds no densities of the entropy model, only tables: they begin anew, around the
    file's latent means. Raises RoiCodecError where it is not of its preset's sizes, or no network
    of the paper.
    """
    weights, preset, origin = _weights_of_model(path) if is_model_file(path) else _averaged(path)
    if get_preset(preset).architecture != PAPER:
        _check_preset(preset, wanted, path)
    codec = TrainableCodec(preset)
    try:
        report = codec.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise RoiCodecError(
            f"expected weights of the sizes of preset {preset} at {path}, "
            f"found: {reason_of(error)}"
        ) from error
    if report.unexpected_keys:
        raise RoiCodecError(
            f"expected weights that preset {preset} has at {path}, "
            f"found {', '.join(report.unexpected_keys[:3])}"
        )
    missing = [key for key in report.missing_keys if not key.startswith("bottleneck.")]
    if missing:
        raise RoiCodecError(
            f"expected all weights of preset {preset} at {path}, found no {', '.join(missing[:3])}"
        )
    return dict(codec.state_dict()), preset, origin


def source_preset(path: Path) -> Preset:
    """The preset of a checkpoint or a model file. Raises RoiCodecError if it is not a codec's."""
    if is_model_file(path):
        return read_model(path).preset
    return get_preset(str(read_checkpoint(path).get("preset")))


def synthesis_weights(
    path: Path, preset_name: str
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A block codec's synthesis to start from, of a checkpoint or a model file, and its origin.

    It may be of a preset that codes fewer or more coefficients of a block, with the same widths:
    what this preset codes besides is not used yet.
    """
    origin: dict[str, Any]
    if is_model_file(path):
        model = read_model(path)
        weights = {k: torch.tensor(v).float() for k, v in model.weights("synthesis").items()}
        origin = {"model": model.name, "id": model.id.hex()}
    else:
        weights, _, origin = _averaged(path)
    return _told_of(weights, get_preset(preset_name).latent_channels), origin


def _told_of(weights: dict[str, torch.Tensor], coefficients: int) -> dict[str, torch.Tensor]:
    """Weights of a synthesis for so many coefficients of a block."""
    stem = weights.get("stem.weight")
    if stem is None or stem.shape[1] - TOLD_OF_BLOCKS == coefficients:
        return weights
    known, told = stem.split([stem.shape[1] - TOLD_OF_BLOCKS, TOLD_OF_BLOCKS], dim=1)
    known = known[:, :coefficients]
    unused = stem.new_zeros(len(stem), coefficients - known.shape[1], *stem.shape[2:])
    return {
        **weights,
        "stem.weight": torch.cat([known, unused, told], dim=1),
        "base.weight": inverse_of_blocks(coefficients),
    }


def _averaged(path: Path) -> tuple[dict[str, torch.Tensor], str, dict[str, Any]]:
    """Weights, preset and origin of a checkpoint."""
    state = read_checkpoint(path)
    return average_of(state), state["preset"], _origin(path, state)


def _origin(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    minutes = round(state["elapsed_s"] / 60.0, 1)
    return {"checkpoint": path.name, "steps": state["step"], "minutes": minutes}


def _weights_of_model(path: Path) -> tuple[dict[str, torch.Tensor], str, dict[str, Any]]:
    """Weights, preset and origin of a model file."""
    model = read_model(path)
    weights = {
        f"{part}.{key}": torch.tensor(value).float()
        for part in ("analysis", "synthesis")
        for key, value in model.weights(part).items()
    }
    means = torch.tensor(model.tensors["latent_mean"])[:, None, None]
    spread = torch.tensor([-_QUANTILE_SPREAD, 0.0, _QUANTILE_SPREAD])
    weights["bottleneck.quantiles"] = means + spread
    return weights, model.preset.name, {"model": model.name, "id": model.id.hex()}


def _check_preset(found: str, wanted: str, path: Path) -> None:
    if found != wanted:
        raise RoiCodecError(
            f"expected a checkpoint of preset {wanted!r}, found one of {found!r} at {path}"
        )
