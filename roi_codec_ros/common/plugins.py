# SPDX-License-Identifier: Apache-2.0
"""Plug-ins that users name by `name` or `name=argument`, and packages that may be missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of

T = TypeVar("T")
Factory = Callable[["str | None", str], T]


class Registry(dict[str, T]):
    """Functions and classes by the names that they were registered under."""

    def register(self, name: str) -> Callable[[T], T]:
        """Decorates what is offered under `name`."""

        def register(entry: T) -> T:
            self[name] = entry
            return entry

        return register


class Plugins(Registry[Factory[T]]):
    """Factories of (what stands after `=` or None, device) by name.

    kind: what they make, as an error calls it ("a face detector").
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def make(self, specification: str, device: str) -> T:
        """What `name` or `name=argument` asks for. Raises UsageError for an unknown name."""
        name, equals, argument = specification.partition("=")
        if name not in self:
            raise UsageError(f"expected {self.kind} of {', '.join(self)}, found {name!r}")
        return self[name](argument if equals else None, device)


def import_complaint(error: ImportError) -> str | None:
    """One line for a package that is missing or does not load; None for a fault of our own."""
    package = (error.name or "").partition(".")[0]
    if not package or package == "roi_codec_ros":
        return None
    found = reason_of(error)
    if package == "cv2":
        return (
            f"cannot load OpenCV ({found}); without a desktop: "
            "pip uninstall opencv-python; pip install opencv-python-headless"
        )
    return f"cannot load the package {package} ({found}); pip install it"


def package_root(package: str) -> Path | None:
    """The folder of an installed package, which is not imported; None where there is none."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def package_folder(package: str, *, needed_for: str, install: str) -> Path:
    """As `package_root`; RoiCodecError as of `optional` where there is none."""
    folder = package_root(package)
    if folder is None:
        raise RoiCodecError(
            f"expected the package {package} for {needed_for}, found none; "
            f"install it with: {install}"
        )
    return folder


def optional(module: str, *, needed_for: str, install: str) -> Any:
    """Import and return `module`; RoiCodecError says what it is for and what to type."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RoiCodecError(
            f"cannot load the package {module}, for {needed_for} ({reason_of(error)}); "
            f"install it with: {install}"
        ) from error
