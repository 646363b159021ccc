# SPDX-License-Identifier: Apache-2.0
"""What a run runs on and how fast it learns: Lightning Fabric, and the learning rate."""

from __future__ import annotations

import logging
import math
import os
import warnings
from typing import Any

from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.common.errors import RoiCodecError


def is_first_process() -> bool:
    """Whether this process is the one, of those of ``torchrun``, that writes; alone it is."""
    return int(os.environ.get("RANK", 0)) == 0


def start_engine(device: str) -> Any:
    """A launched Fabric on ``device`` (``cpu``, ``cuda``, ``cuda:1``).

    Under ``torchrun`` every process gets its own CPU share or GPU, and gradients are averaged over
    all of them. Raises RoiCodecError where the device or Lightning Fabric is not there.
    """
    target = torch_device(device)
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise RoiCodecError(
            f"training needs Lightning Fabric ({error}): pip install lightning-fabric"
        ) from error
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    machines = int(os.environ.get("GROUP_WORLD_SIZE", 1))
    several = processes * machines > 1
    devices: int | list[int] = processes
    if not several and target.type != "cpu":
        devices = [target.index or 0]
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(
            accelerator=target.type,
            devices=devices,
            num_nodes=machines,
            strategy="ddp" if several else "auto",
        )
        fabric.launch()
    return fabric


def learning_rate_share(progress: float, step: int, warm_up_steps: int) -> float:
    """What share of the configured rate a step gets: half a cosine from 1 to 2 %, warmed up.

    progress: share of the budget that is spent; beyond 1 the rate stays at its end.
    """
    cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return cosine * min(1.0, (step + 1) / warm_up_steps)
