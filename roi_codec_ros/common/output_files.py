# SPDX-License-Identifier: Apache-2.0
"""What commands write: outputs checked before the work, and folders that are filled by one run.

A command writes through `Output`, which never replaces an input, nor what roi-codec did not make
unless the user says so; a folder that a command fills is a `RunFolder`, its own while it lasts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of
from roi_codec_ros.common.files import (
    STDOUT,
    descriptor_of,
    is_ours,
    is_written_into,
    json_bytes,
    may_write,
    refusal_of,
    remove_partials,
    replacement,
    same_file,
    status_of,
    write,
)

_MARKER = ".roi-codec.json"  # in a folder that a command fills
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Output:
    """A file that a command will write, checked before hours of work."""

    def __init__(self, path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
        """force: also over a file that roi-codec did not make. inputs: what the command reads.

        Makes the folder of ``path``; a file that is there stays as it is until `write`.
        Raises UsageError where ``path`` is an input, RoiCodecError where it cannot be written or
        is not ours to replace.
        """
        self.path = Path(path)
        try:
            self._check(force, inputs)
        except OSError as error:
            raise refusal_of(self.path, error) from error

    def write(self, content: bytes | memoryview) -> None:
        """Write the file, whole or not at all. Raises RoiCodecError."""
        write(self.path, content, durable=True)

    def write_json(self, data: Any) -> None:
        """Write indented JSON. Raises RoiCodecError."""
        self.write(json_bytes(data))

    @property
    def is_file(self) -> bool:
        """Whether a file is written: not a pipe, a device or a descriptor."""
        return not is_written_into(self.path)

    def say(self, text: str) -> None:
        """Print ``text`` where it does not get into the file: not to stdout, if that is it."""
        print(text, file=sys.stderr if descriptor_of(self.path) == STDOUT else sys.stdout)

    def _check(self, force: bool, inputs: Iterable[Path]) -> None:
        if descriptor_of(self.path) is not None:
            return
        found = status_of(self.path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise RoiCodecError(f"cannot write {self.path}: it is a folder")
        if found is not None and stat.S_ISBLK(found.st_mode) and not force:
            raise RoiCodecError(f"cannot write {self.path}: it is a disk; --force writes over it")
        if found is not None and not stat.S_ISREG(found.st_mode):
            if not may_write(self.path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        for path in inputs:
            if same_file(self.path, path):
                raise UsageError(f"cannot write over the input {path}")
        if found is not None and found.st_size and not force and not is_ours(self.path):
            raise RoiCodecError(
                f"cannot write {self.path}: it is a file that roi-codec did not make; "
                "--force replaces it"
            )
        _try_to_write(self.path)


class _NothingToReplaceError(Exception):
    """Ends a trial."""


def _try_to_write(path: Path) -> None:
    """Find out whether `write_whole` could write there. Raises OSError."""
    with contextlib.suppress(_NothingToReplaceError), replacement(path):
        raise _NothingToReplaceError


def check_outputs(
    paths: Mapping[str, Path | None], *, force: bool = False, inputs: Iterable[Path] = ()
) -> dict[str, Output]:
    """The `Output` of each path that is not None. Raises as that, and where two are one file."""
    read = list(inputs)
    outputs: dict[str, Output] = {}
    for name, path in paths.items():
        if path is None:
            continue
        output = Output(path, force=force, inputs=read)
        if output.is_file and any(
            same_file(other.path, output.path) for other in outputs.values()
        ):
            raise UsageError(f"expected a file of its own for every output, found {path} twice")
        outputs[name] = output
    return outputs


class RunFolder:
    """A folder that a command fills, and may fill again; as a context manager, its alone.

    The folder is marked by a file of ours, which is also what is locked.
    """

    def __init__(
        self, path: Path, verb: str, names: Iterable[str], *, force: bool = False
    ) -> None:
        """verb: of the command. names: what it will write in there.

        Raises RoiCodecError where one of these is there in a folder that is not marked, and was
        not made by us; not with ``force``.
        """
        self.path = Path(path)
        self._verb = verb
        self._lock: int | None = None
        self._files: dict[str, str] = {}
        if self.path.exists() and not self.path.is_dir():
            raise RoiCodecError(f"cannot write into {path}: it is no folder")
        if self.marked or force:
            return
        for name in names:
            found = self.path / name
            if os.path.lexists(found) and not (found.is_file() and is_ours(found)):
                raise RoiCodecError(
                    f"cannot write {found}: it is something that roi-codec did not make; "
                    "--force replaces it"
                )

    @property
    def marked(self) -> bool:
        """Whether a command of ours has filled it before."""
        return is_ours(self.path / _MARKER)

    def __enter__(self) -> RunFolder:
        """Mark and lock it. Raises RoiCodecError where that cannot be, or another run is in it.

        What was half-written when an earlier run was killed is removed.
        """
        marker = self.path / _MARKER
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(marker, os.O_RDWR | os.O_CREAT, 0o666)
            lock(self._lock)
            self._files = self._remembered()
            self._mark()
            remove_partials(self.path)
        except BlockingIOError as error:
            self._unlock()
            raise RoiCodecError(
                f"expected no other run in {self.path}; found: one that has not ended"
            ) from error
        except OSError as error:
            self._unlock()
            raise RoiCodecError(f"cannot write into {self.path}: {reason_of(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._unlock()

    def remember(self, name: str, digest: str) -> None:
        """Keep the digest of a file that was written, for `remembered`."""
        self._files[name] = digest
        self._mark()

    def remembered(self, name: str) -> str | None:
        """What `remember` was told of that file, also in an earlier run."""
        return (self._files or self._remembered()).get(name)

    def _remembered(self) -> dict[str, str]:
        try:
            files = json.loads((self.path / _MARKER).read_bytes())["files"]
            return {str(name): str(digest) for name, digest in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _mark(self) -> None:
        if self._lock is None:
            return
        content = json_bytes({"verb": self._verb, "files": self._files})
        os.pwrite(self._lock, content, 0)
        os.ftruncate(self._lock, len(content))

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def lock(descriptor: int) -> None:
    """Lock an open file for this process while it is open.

    Raises BlockingIOError where another process has it; some file systems know no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
