# SPDX-License-Identifier: Apache-2.0
"""Bags in SQLite that a recorder did not close, or that were cut off."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError, reason_of

# What a recorder leaves beside a bag that it had no time to close: messages that are not in it.
BESIDE = ("-wal", "-journal")


def is_unclosed(path: Path) -> bool:
    """Whether a recorder left something of a bag beside it."""
    beside = (path.with_name(path.name + suffix) for suffix in BESIDE)
    return any(file.is_file() and file.stat().st_size for file in beside)


def closed(path: Path, target: Path) -> None:
    """Copy a bag with its journal files. Raises RoiCodecError if it cannot be read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    for suffix in BESIDE:
        file = path.with_name(path.name + suffix)
        if file.is_file():
            shutil.copyfile(file, target.with_name(target.name + suffix))
    try:
        with closing(sqlite3.connect(target)) as database:
            database.execute("PRAGMA journal_mode=DELETE").fetchall()
    except sqlite3.Error as error:
        raise RoiCodecError(f"expected a bag at {path}; found: {reason_of(error)}") from error


def without_broken_rows(path: Path, target: Path) -> tuple[int, int]:
    """Copy a bag as far as its messages can be read; their bytes, and those of the file.

    Raises RoiCodecError where no message can.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    kept = 0
    with (
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as broken,
        closing(sqlite3.connect(target)) as copy,
    ):
        try:
            # Otherwise SQLite refuses a file that is shorter than its first page says.
            broken.execute("PRAGMA writable_schema=ON")
            tables = broken.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL "
                "AND name NOT GLOB 'sqlite_*'"  # which SQLite makes itself
            ).fetchall()
        except sqlite3.Error as error:
            raise RoiCodecError(f"expected a bag at {path}; found: {reason_of(error)}") from error
        try:
            for name, statement in tables:
                copy.execute(statement)
                quoted = '"' + name.replace('"', '""') + '"'
                for row in _whole_rows(broken, quoted):
                    marks = ", ".join("?" * len(row))
                    copy.execute(f"INSERT INTO {quoted} VALUES ({marks})", row)
                    kept += sum(len(value) for value in row if isinstance(value, bytes))
            copy.commit()
        except sqlite3.Error as error:
            raise RoiCodecError(
                f"cannot copy what is whole of {path}: {reason_of(error)}"
            ) from error
    if not kept:
        raise RoiCodecError(f"expected a bag at {path}, found no message that can be read")
    return kept, path.stat().st_size


def _whole_rows(database: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, as its name is quoted, up to the first that is broken."""
    rows = database.cursor()
    try:
        rows.execute(f"SELECT * FROM {table}")
        row = rows.fetchone()
    except sqlite3.Error:
        return
    while row is not None:
        yield row
        try:
            row = rows.fetchone()
        except sqlite3.Error:
            return
