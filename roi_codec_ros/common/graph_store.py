# SPDX-License-Identifier: Apache-2.0
"""Graphs of networks that a server runs: shipped ones by name, and a cache of those made here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from roi_codec_ros.common.errors import ModelFileError, RoiCodecError
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.common.graph_choice import SELF_TEST_KEY
from roi_codec_ros.common.graph_runtime import GRAPH_SUFFIX, read_graph
from roi_codec_ros.common.graph_sessions import GraphSession, open_session

CACHE_VARIABLE = "XDG_CACHE_HOME"


def cache_folder() -> Path:
    """The user's cache of this package, which may not exist."""
    base = os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache"
    return Path(base) / "roi_codec_ros"


def in_folders(name: str, folders: Sequence[Path]) -> Path:
    """The first graph with that name. Raises ModelFileError if there is none."""
    for folder in folders:
        path = folder / f"{name}{GRAPH_SUFFIX}"
        if path.is_file():
            return path
    raise ModelFileError(f"expected a graph {name}{GRAPH_SUFFIX} beside the models, found none")


def open_cached(
    name: str, make: Callable[[], bytes], open_it: Callable[[bytes], GraphSession]
) -> GraphSession:
    """The graph with that name from the cache; else it is built and cached if possible.

    A cached graph that cannot be opened is rebuilt. Raises what the two functions raise.
    """
    path = cache_folder() / "graphs" / f"{name}{GRAPH_SUFFIX}"
    if path.is_file():
        with contextlib.suppress(ModelFileError):
            return open_it(read_graph(path))
    content = make()
    session = open_it(content)
    with contextlib.suppress(OSError, RoiCodecError):  # a read-only home costs the next start
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return session


def open_of(
    content: bytes,
    where: str,
    key: str,
    identity: str,
    *,
    backend: str,
    device: str,
    threads: int | None,
) -> GraphSession:
    """A session of a graph that was made of the weights with that identity.

    Args:
        key: of the metadata that says so. Others as `graph_sessions.open_session`.

    Raises:
        ModelFileError: it was made of others. Others as `graph_sessions.open_session`.
    """
    session = open_session(
        content,
        where=where,
        backend=backend,
        device=device,
        threads=threads,
        metadata_keys=[key, SELF_TEST_KEY],
    )
    found = session.metadata.get(key, "")
    if found != identity:
        raise ModelFileError(
            f"expected {where} to be made of weights {identity[:16]}, "
            f"found {found[:16] or 'none named'}"
        )
    return session
