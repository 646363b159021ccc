# SPDX-License-Identifier: Apache-2.0
"""The one way in which files are written.

A file appears whole or not at all, and what stood there before stays until then. Links are
followed, modes and owners kept; pipes, devices and open descriptors are written into. A command
writes through `Output`, which never replaces an input, nor what roi-codec did not make unless the
user says so; a folder that a command fills is a `RunFolder`, its own while it lasts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from roi_codec_ros.common.errors import RoiCodecError, UsageError

# Stands in every file of ours whose format has room for it, within these bytes of either end.
GENERATOR = "made by roi-codec"
_HEAD_BYTES, _TAIL_BYTES = 4096, 1024
_MODEL_FILE = b'{"__metadata__":{"roi_codec'  # after the 8 bytes of a safetensors file's length
_PAYLOAD = b"ROIC"
_PNG, _PNG_HEADER_BYTES = b"\x89PNG\r\n\x1a\n", 33
_JPEG = b"\xff\xd8"
_MARKER = ".roi-codec.json"  # in a folder that a command fills
_PARTIAL_BYTES = 6  # of chance in the name of a file that is not whole yet
_PARTIALS = f".{'[0-9a-f]' * 2 * _PARTIAL_BYTES}.partial*"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_LINKS_FOLLOWED = 40
_STDOUT = 1


# ------------------------------------------------------------------------------------ primitives


def write_whole(path: Path, content: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file, and its folder where there is none; one of that name stands until then.

    durable: on the disk before it takes the other one's place. A pipe, a device or a descriptor
    of this process (``/dev/stdout``) is written into. Raises OSError, and then leaves nothing
    behind.
    """
    if _is_written_into(path):
        with _opened(path) as file:
            file.write(content)
        return
    with replacement(path, durable=durable) as partial, partial.open("r+b") as file:
        file.write(content)


def write(path: Path, content: bytes | memoryview, *, durable: bool = False) -> None:
    """As `write_whole`, and raises RoiCodecError in one line."""
    try:
        write_whole(path, content, durable=durable)
    except OSError as error:
        raise _refusal(path, error) from error


@contextlib.contextmanager
def replacement(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """An empty file with ``path``'s suffix, to be filled, which then takes the place of ``path``.

    It has the mode and the owner of what stands there. A block that raises leaves no trace of it.
    Where ``path`` is a pipe or a device, what was filled in is written into that. Raises OSError.
    """
    if _is_written_into(path):
        with tempfile.NamedTemporaryFile(suffix=path.suffix) as file:
            yield Path(file.name)
            with open(file.name, "rb") as source, _opened(path) as target:
                shutil.copyfileobj(source, target)
        return
    target_path = Path(os.path.realpath(path))
    before = _status(target_path)
    if before is not None and stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if before is not None and not _may_write(target_path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    folder = target_path.parent
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{secrets.token_hex(_PARTIAL_BYTES)}.partial{target_path.suffix}"
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        if before is not None:
            with contextlib.suppress(PermissionError):  # of another owner: it stays ours
                os.chown(partial, before.st_uid, before.st_gid)
            os.chmod(partial, stat.S_IMODE(before.st_mode))
        yield partial
        if durable:
            _sync(partial)
        os.replace(partial, target_path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    if durable:
        with contextlib.suppress(OSError):  # not every file system syncs folders
            _sync(folder)


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file, links followed, or would once it is made."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def is_ours(path: Path) -> bool:
    """Whether a file says that roi-codec made it; False where it can not be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError:
        return False
    ours = head.startswith(_PAYLOAD) or head[8:].startswith(_MODEL_FILE)
    return ours or GENERATOR.encode() in head or GENERATOR.encode() in tail


def stamped(picture: bytes) -> bytes:
    """A PNG or JPEG that says that it is ours (`is_ours`); any other content stays as it is."""
    note = GENERATOR.encode()
    if picture.startswith(_PNG):
        end = _PNG_HEADER_BYTES
        chunk = b"tEXtSoftware\0" + note
        length, check = len(chunk) - 4, zlib.crc32(chunk)
        text = length.to_bytes(4, "big") + chunk + check.to_bytes(4, "big")
        return picture[:end] + text + picture[end:]
    if picture.startswith(_JPEG):
        # After JFIF's own segment, which wants to be the first.
        length = int.from_bytes(picture[4:6], "big")
        end = 4 + length if picture[2:4] == b"\xff\xe0" else 2
        comment = b"\xff\xfe" + (2 + len(note)).to_bytes(2, "big") + note
        return picture[:end] + comment + picture[end:]
    return picture


def json_bytes(data: Any) -> bytes:
    """Indented JSON; an object says first that it is ours (`is_ours`)."""
    if isinstance(data, dict):
        data = {"generator": GENERATOR, **data}
    return (json.dumps(data, indent=2) + "\n").encode()


def _refusal(path: Path, error: OSError) -> RoiCodecError:
    return RoiCodecError(f"expected to write {path}; found: {error.strerror or error}")


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _may_write(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(path, os.W_OK, effective_ids=effective)


def _is_written_into(path: Path) -> bool:
    """Whether ``path`` is a pipe, a device or a descriptor: nothing that can be replaced."""
    if _descriptor(path) is not None:
        return True
    found = _status(path)
    return found is not None and not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))


def _descriptor(path: Path) -> int | None:
    """The number of a descriptor of this process that ``path`` leads to, as /dev/stdout does."""
    own = f"/proc/{os.getpid()}/fd"
    current = str(path)
    for _ in range(_LINKS_FOLLOWED):
        folder = os.path.realpath(os.path.dirname(current) or ".")
        name = os.path.basename(current)
        if folder == own and name.isdigit():
            return int(name)
        try:
            current = os.path.join(folder, os.readlink(os.path.join(folder, name)))
        except OSError:
            return None
    return None


def _opened(path: Path) -> BinaryIO:
    """What is written into."""
    descriptor = _descriptor(path)
    if descriptor is None:
        return path.open("wb")
    if descriptor == _STDOUT:
        sys.stdout.flush()
    return open(os.dup(descriptor), "wb")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------------------- outputs


class Output:
    """A file that a command will write, checked before hours of work."""

    def __init__(self, path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
        """force: also over a file that roi-codec did not make. inputs: what the command reads.

        Makes the folder of ``path``; a file that is there stays as it is until `write`.
        Raises UsageError where ``path`` is an input, RoiCodecError where it can not be written or
        is not ours to replace.
        """
        self.path = Path(path)
        try:
            self._check(force, inputs)
        except OSError as error:
            raise _refusal(self.path, error) from error

    def write(self, content: bytes | memoryview) -> None:
        """Write the file, whole or not at all. Raises RoiCodecError."""
        write(self.path, content, durable=True)

    def write_json(self, data: Any) -> None:
        """Write indented JSON. Raises RoiCodecError."""
        self.write(json_bytes(data))

    @property
    def is_file(self) -> bool:
        """Whether a file is written: not a pipe, a device or a descriptor."""
        return not _is_written_into(self.path)

    def say(self, text: str) -> None:
        """Print ``text`` where it does not get into the file: not to stdout, if that is it."""
        print(text, file=sys.stderr if _descriptor(self.path) == _STDOUT else sys.stdout)

    def _check(self, force: bool, inputs: Iterable[Path]) -> None:
        if _descriptor(self.path) is not None:
            return
        found = _status(self.path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise RoiCodecError(f"expected to write {self.path}; found: a folder")
        if found is not None and stat.S_ISBLK(found.st_mode) and not force:
            raise RoiCodecError(
                f"expected to write {self.path}; found: a disk; --force writes over it"
            )
        if found is not None and not stat.S_ISREG(found.st_mode):
            if not _may_write(self.path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        for path in inputs:
            if same_file(self.path, path):
                raise UsageError(f"expected to write another file than the input {path}")
        if found is not None and found.st_size and not force and not is_ours(self.path):
            raise RoiCodecError(
                f"expected to write {self.path}; found: a file that roi-codec did not make; "
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


# --------------------------------------------------------------------------------------- folders


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
            raise RoiCodecError(f"expected to write into {path}; found: no folder")
        if self.marked or force:
            return
        for name in names:
            found = self.path / name
            if os.path.lexists(found) and not (found.is_file() and is_ours(found)):
                raise RoiCodecError(
                    f"expected to write {found}; found: something that roi-codec did not make; "
                    "--force replaces it"
                )

    @property
    def marked(self) -> bool:
        """Whether a command of ours has filled it before."""
        return is_ours(self.path / _MARKER)

    def __enter__(self) -> RunFolder:
        """Mark and lock it. Raises RoiCodecError where that can not be, or another run is in it.

        What was half-written when an earlier run was killed is removed.
        """
        marker = self.path / _MARKER
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(marker, os.O_RDWR | os.O_CREAT, 0o666)
            lock(self._lock)
            self._files = self._remembered()
            self._mark()
            for partial in self.path.glob(_PARTIALS):
                partial.unlink(missing_ok=True)
        except BlockingIOError as error:
            self._unlock()
            raise RoiCodecError(
                f"expected no other run in {self.path}; found: one that has not ended"
            ) from error
        except OSError as error:
            self._unlock()
            raise RoiCodecError(
                f"expected to write into {self.path}; found: {error.strerror or error}"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
