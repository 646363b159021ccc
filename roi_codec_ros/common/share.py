# SPDX-License-Identifier: Apache-2.0
"""Where data files lie: this package's models, configuration and launch files, and a user's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from roi_codec_ros.common.errors import UsageError


def share_folders(name: str) -> list[Path]:
    """Existing folders ``name`` (such as ``models``) of this package, the nearest first.

    The source tree's own, every sourced ROS 2 workspace's ``share/roi_codec_ros``, then the one of
    this Python installation.
    """
    share = Path("share", "roi_codec_ros")
    places = [
        Path(__file__).resolve().parents[2],
        *(prefix / share for prefix in _workspaces()),
        Path(sys.prefix) / share,
    ]
    return [folder for folder in dict.fromkeys(p / name for p in places) if folder.is_dir()]


def shared_file(*parts: str) -> Path | None:
    """The nearest file of `share_folders` at a path below them; None if there is none."""
    first, *rest = parts
    found = (folder.joinpath(*rest) for folder in share_folders(first))
    return next((path for path in found if path.is_file()), None)


def local_path(text: str) -> Path:
    """The file that a user names by a path, `file:///…` or `package://PACKAGE/…`, as ROS does.

    It need not exist. Raises UsageError for an address of another kind, and for a package that no
    sourced ROS 2 workspace has.
    """
    if "://" not in text:
        return Path(text).expanduser()
    try:
        address = urlsplit(text)
    except ValueError as error:
        raise UsageError(f"expected a path or an address, found {text!r}: {error}") from error
    path = unquote(address.path)
    if address.scheme == "file" and address.netloc in ("", "localhost") and path:
        return Path(path)
    if address.scheme != "package" or not address.netloc or not path.strip("/"):
        raise UsageError(f"expected a path, file:///… or package://PACKAGE/…, found {text!r}")
    for prefix in _workspaces():
        folder = prefix / "share" / address.netloc
        if folder.is_dir():
            return folder / path.lstrip("/")
    raise UsageError(
        f"expected a package of a sourced ROS 2 workspace, found {address.netloc!r} in {text!r}"
    )


def _workspaces() -> list[Path]:
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [Path(prefix) for prefix in prefixes if prefix]
