# SPDX-License-Identifier: Apache-2.0
"""The machine that a latency was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "torch",
    "onnxruntime",
    "openvino",
    "pillow",
    "opencv-python",
    "opencv-python-headless",
    "ultralytics",
    "facenet-pytorch",
)


def describe_machine(*, device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """Processor, cores, device, threads and the versions that change a number; no host name."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "device": _device(device),
        "threads": threads,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "avif": _avif(),
    }


def usable_cores() -> int:
    """The cores that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _device(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device}: {torch.cuda.get_device_name(device)}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _avif() -> str | None:
    from PIL import features

    return features.version("avif") if features.check("avif") else None
