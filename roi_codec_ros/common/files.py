# SPDX-License-Identifier: Apache-2.0
"""Writing files atomically.

A file is written completely or not at all, and an existing one is kept until then. Links are
followed, modes and owners kept; pipes, devices and open descriptors are written to directly.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from roi_codec_ros.common.errors import RoiCodecError, reason_of

# Stands in every file of ours whose format has room for it, within these bytes of either end.
GENERATOR = "made by roi-codec"
_HEAD_BYTES, _TAIL_BYTES = 4096, 1024
_MODEL_FILE = b'{"__metadata__":{"roi_codec'  # after the 8 bytes of a safetensors file's length
_PAYLOAD = b"ROIC"
_PNG, _PNG_HEADER_BYTES = b"\x89PNG\r\n\x1a\n", 33
_JPEG = b"\xff\xd8"
_PARTIAL_BYTES = 6  # of chance in the name of a file that is not whole yet
_PARTIALS = f".{'[0-9a-f]' * 2 * _PARTIAL_BYTES}.partial*"
_LINKS_FOLLOWED = 40
STDOUT = 1
# What reading YAML raises besides `yaml.YAMLError`: of dates that do not exist, of keys that can
# be none, of tags that do not fit their values.
YAML_FAULTS = (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


def write_whole(path: Path, content: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file atomically, creating its folder; an existing file is replaced at the end.

    durable: flushed to disk before it replaces the existing one. A pipe, a device or a descriptor
    of this process (``/dev/stdout``) is written into. Raises OSError, and then leaves nothing
    behind.
    """
    if is_written_into(path):
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
        raise refusal_of(path, error) from error


@contextlib.contextmanager
def replacement(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """An empty file with ``path``'s suffix, to be filled, which then takes the place of ``path``.

    It has the mode and the owner of what stands there. A block that raises leaves no trace of it.
    Where ``path`` is a pipe or a device, what was filled in is written into that. Raises OSError.
    """
    if is_written_into(path):
        with tempfile.NamedTemporaryFile(suffix=path.suffix) as file:
            yield Path(file.name)
            with open(file.name, "rb") as source, _opened(path) as target:
                shutil.copyfileobj(source, target)
        return
    target_path = Path(os.path.realpath(path))
    before = status_of(target_path)
    if before is not None and stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if before is not None and not may_write(target_path):
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


def remove_partials(folder: Path) -> None:
    """Remove what was half-written when a run that filled a folder was killed."""
    for partial in folder.glob(_PARTIALS):
        partial.unlink(missing_ok=True)


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file, links followed, or would once it is made."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def is_ours(path: Path) -> bool:
    """Whether a file says that roi-codec made it; False where it cannot be read."""
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
    """A PNG or JPEG marked as made by roi-codec (`is_ours`); other content is unchanged."""
    note = GENERATOR.encode()
    if picture.startswith(_PNG):
        end = _PNG_HEADER_BYTES
        chunk = b"tEXtSoftware\0" + note
        length, check = len(chunk) - 4, zlib.crc32(chunk)
        text = length.to_bytes(4, "big") + chunk + check.to_bytes(4, "big")
        return picture[:end] + text + picture[end:]
    if picture.startswith(_JPEG):
        # After the JFIF segment, which must be the first.
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


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises RoiCodecError."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise RoiCodecError(f"expected JSON in {path}; found: {error}") from error


def read_yaml(path: Path, what: str) -> Any:
    """What a YAML file in UTF-8 holds. what: how it is called in errors. Raises RoiCodecError."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (*YAML_FAULTS, yaml.YAMLError) as error:
        raise RoiCodecError(f"expected {what} in {path}, found: {reason_of(error)}") from error


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises RoiCodecError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RoiCodecError(f"expected a file at {path}; found: {reason_of(error)}") from error


def refusal_of(path: Path, error: OSError) -> RoiCodecError:
    """The one line for what the file system refused."""
    return RoiCodecError(f"cannot write {path}: {reason_of(error)}")


def status_of(path: Path) -> os.stat_result | None:
    """The status of a file; None if it does not exist. Raises OSError."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def may_write(path: Path) -> bool:
    """Whether this process may write to an existing file."""
    effective = os.access in os.supports_effective_ids
    return os.access(path, os.W_OK, effective_ids=effective)


def is_written_into(path: Path) -> bool:
    """Whether ``path`` is a pipe, a device or a descriptor: nothing that can be replaced."""
    if descriptor_of(path) is not None:
        return True
    found = status_of(path)
    return found is not None and not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))


def descriptor_of(path: Path) -> int | None:
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
    descriptor = descriptor_of(path)
    if descriptor is None:
        return path.open("wb")
    if descriptor == STDOUT:
        sys.stdout.flush()
    return open(os.dup(descriptor), "wb")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
