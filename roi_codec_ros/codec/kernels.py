# SPDX-License-Identifier: Apache-2.0
"""The compiled parts of the codec (`src/`), each with a NumPy reference as fallback."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from roi_codec_ros.common.errors import reason_of

ENTROPY_CODER, BLOCK_TRANSFORM = "C++ entropy coder", "C++ block transform"
_MODULES = {ENTROPY_CODER: "_rans", BLOCK_TRANSFORM: "_transform"}

KERNELS: dict[str, ModuleType] = {}
_faults: dict[str, str] = {}
for _name, _module in _MODULES.items():
    try:
        KERNELS[_name] = import_module(f"roi_codec_ros.codec.{_module}")
    except ImportError as error:  # installed without it, or built for another Python
        _faults[_name] = reason_of(error)


def available_implementations(kernel: str = ENTROPY_CODER) -> tuple[str, ...]:
    """The available implementations of a kernel, the best first."""
    return ("c++", "numpy") if kernel in KERNELS else ("numpy",)


def chosen_implementation(kernel: str, implementation: str | None) -> str:
    """Choose an implementation; None: the best. Raises ValueError if it is not available."""
    available = available_implementations(kernel)
    if implementation is not None and implementation not in available:
        raise ValueError(
            f"expected an implementation of {', '.join(available)}, found {implementation}"
        )
    return implementation or available[0]


def kernel_complaint() -> str:
    """A warning if a C++ kernel is missing; empty if all are available."""
    missing = [name for name in _MODULES if name not in KERNELS]
    if not missing:
        return ""
    faults = "; ".join(_faults[name] for name in missing if name in _faults)
    return (
        f"expected the {' and the '.join(missing)}, found none ({faults}): coding is some "
        "100 times slower; install a C++17 compiler and Python's headers, and install this "
        "package again"
    )
