# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of training runs: written whole or not at all, read by later versions too."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.codec.files import write_whole
from roi_codec_ros.codec.model_file import Model, read_model
from roi_codec_ros.codec.models import SUFFIX
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.training.trainable import TrainableCodec

CHECKPOINT_FORMAT = 3
# Format 2 knew neither attackers nor classes other than persons and heads.
READ_FORMATS = (2, CHECKPOINT_FORMAT)
_QUANTILE_SPREAD = 10.0  # compressai's own start


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What :func:`write_checkpoint` wrote. Raises RoiCodecError for anything else."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RoiCodecError(
            f"expected a training checkpoint at {path}; reading it failed: {reason}"
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
            f"expected to write a checkpoint to {path}, found: {error.strerror}; {stands}"
        ) from error


def averaged_codec(checkpoint: Mapping[str, Any]) -> TrainableCodec:
    """The averaged weights of a checkpoint, in evaluation mode, the tables not yet made."""
    codec = TrainableCodec(checkpoint["preset"])
    codec.load_state_dict({k: v.cpu() for k, v in checkpoint["average"].items()})
    return codec.eval()


def initial_weights(path: Path, preset: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A codec's state to start a new run from, and what the model card shall say of its origin.

    path: a checkpoint, whose averaged weights are taken, or a model file. A model file holds no
    densities of the entropy model, only tables: they begin anew, around the file's latent means.
    Raises RoiCodecError where it is of another preset than ``preset``.
    """
    if path.suffix == SUFFIX:
        model = read_model(path)
        _check_preset(model.preset.name, preset, path)
        return _weights_of_model(model), {"model": model.name, "id": model.id.hex()}
    state = read_checkpoint(path)
    _check_preset(state["preset"], preset, path)
    return dict(state["average"]), {"checkpoint": path.name, "steps": state["step"]}


def _weights_of_model(model: Model) -> dict[str, torch.Tensor]:
    codec = TrainableCodec(get_preset(model.preset.name).name)
    try:
        for part in ("analysis", "synthesis"):
            weights = {k: torch.tensor(v).float() for k, v in model.weights(part).items()}
            getattr(codec, part).load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RoiCodecError(
            f"expected model {model.name} to have the sizes of preset {model.preset.name}, "
            f"found: {reason}"
        ) from error
    means = torch.tensor(model.tensors["latent_mean"])[:, None, None]
    spread = torch.tensor([-_QUANTILE_SPREAD, 0.0, _QUANTILE_SPREAD])
    with torch.no_grad():
        codec.bottleneck.quantiles.copy_(means + spread)
    return dict(codec.state_dict())


def _check_preset(found: str, wanted: str, path: Path) -> None:
    if found != wanted:
        raise RoiCodecError(
            f"expected a checkpoint of preset {wanted!r}, found one of {found!r} at {path}"
        )
