# SPDX-License-Identifier: Apache-2.0
"""Photographs of a data set as links to where they lie; no photograph is ever touched."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import same_file
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.datasets.annotations_write import photograph_name


def check_links(annotations: Iterable[Annotation], folder: Path, *, replace_links: bool) -> None:
    """Raise RoiCodecError where `link_photograph` would find the name of a photograph taken.

    replace_links: links that lead elsewhere may be replaced.
    """
    for item in annotations:
        link = folder / photograph_name(item)
        if not os.path.lexists(link) or same_file(link, item.image_path):
            continue
        if not link.is_symlink():
            raise RoiCodecError(f"expected to link {item.image_path} as {link}, found a file")
        if not replace_links:
            raise RoiCodecError(
                f"expected to link {item.image_path} as {link}, found a link that leads "
                "elsewhere; --force replaces it"
            )


def link_photograph(annotation: Annotation, folder: Path) -> None:
    """A link in ``folder`` to a photograph, under the name by which `read_odgt` finds it.

    A photograph that lies there under that name stays as it is; a link is replaced, a file never.
    Raises RoiCodecError.
    """
    photograph, link = annotation.image_path, folder / photograph_name(annotation)
    if same_file(link, photograph):
        return
    partial = link.with_name(f".{secrets.token_hex(6)}.partial")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(link) and not link.is_symlink():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.symlink(photograph.resolve(), partial)
        try:
            os.replace(partial, link)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RoiCodecError(
            f"expected to link {photograph} as {link}, found: {error.strerror}"
        ) from error
