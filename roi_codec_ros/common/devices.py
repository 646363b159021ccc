# SPDX-License-Identifier: Apache-2.0
"""Where networks run: torch devices by name, and networks moved onto them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roi_codec_ros.common.errors import RoiCodecError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

GPU_BATCH = 8


def batch_limit(most: int, device: str) -> int:
    """How many images a network takes at once: ``most``, or for 0 what suits the device.

    On a CPU that is one: a batch takes there as long as its images one after another
    (docs/scaling.md), so that all of them would wait for the last.
    """
    if most:
        return most
    return 1 if device.startswith("cpu") else GPU_BATCH


def torch_device(name: str) -> torch.device:
    """The device called ``name`` (``cpu``, ``cuda``, ``cuda:1``).

    Raises UsageError for no device of torch's, RoiCodecError for one that is not there or cannot
    compute.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"expected a torch device, found {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RoiCodecError(f"expected a CUDA device for {name!r}, found none that torch can use")
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise RoiCodecError(f"expected a device that computes, found {name!r}") from error
    return device


def settle(network: nn.Module, device: torch.device) -> nn.Module:
    """``network`` frozen, in evaluation mode, on ``device``, in the layout that is fast there."""
    import torch

    network = network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether networks compute faster in bfloat16 there: GPUs, and CPUs with instructions for it.

    Without those a CPU takes twice as long as in float32.
    """
    import torch

    if device.type != "cpu":
        return True
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
