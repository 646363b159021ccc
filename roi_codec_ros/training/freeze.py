# SPDX-License-Identifier: Apache-2.0
"""From a trained network to a model file: integer tables are made here, once."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np

from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.training.trainer import Trainer


def freeze(trainer: Trainer, training: Mapping[str, Any], name: str | None = None) -> Model:
    """The trainer's averaged weights (stored in half precision) and tables as a model file.

    ``training`` goes into the card: data, configuration.
    """
    network = trainer.averaged_model()
    bottleneck = network.bottleneck
    bottleneck.update(force=True)
    tables = EntropyTables(
        bottleneck.quantized_cdf.numpy(),
        bottleneck.cdf_length.numpy(),
        bottleneck.offset.numpy(),
    )
    tensors: dict[str, np.ndarray] = {
        f"{part}.{key}": value.detach().half().numpy()
        for part in ("analysis", "synthesis")
        for key, value in getattr(network, part).state_dict().items()
    }
    tensors["latent_mean"] = network.means().numpy().astype(np.float32)
    preset = get_preset(trainer.config.preset)
    return Model.build(
        name=name or preset.name,
        preset=preset,
        tensors=tensors,
        tables=tables,
        card={
            "trained": True,
            "date": datetime.date.today().isoformat(),
            "training": {
                **training,
                "steps": trainer.step,
                "minutes": round(trainer.elapsed_s / 60.0, 1),
                "history": trainer.history,
            },
        },
    )
