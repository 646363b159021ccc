# SPDX-License-Identifier: Apache-2.0
"""Measurements in the header of a model file, added and removed byte-exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from roi_codec_ros.common.errors import ModelFileError

METADATA_KEY, MEASURED_KEY = "roi_codec", "roi_codec_measured"


# Measurements are the first entry of the metadata, at the start of the file's header, so that they
# can be removed byte-exactly.
_METADATA = b'{"__metadata__":{'
_MEASURED_ENTRY = re.compile(
    re.escape(_METADATA + b'"' + MEASURED_KEY.encode() + b'":') + rb'"[^"\\]*(?:\\.[^"\\]*)*",'
)


def with_measured_entry(content: bytes, measured: Mapping[str, Any]) -> bytes:
    """A safetensors file with the measurements in its metadata. Raises ModelFileError."""
    bare = without_measured_entry(content)
    if not measured:
        return bare
    header, tensors = _split(bare)
    text = json.dumps(json.dumps(measured, sort_keys=True))
    entry = f'"{MEASURED_KEY}":{text},'.encode()
    changed = _joined(_METADATA + entry + header.removeprefix(_METADATA), tensors)
    if not header.startswith(_METADATA) or without_measured_entry(changed) != bare:
        raise ModelFileError(
            "expected a model file that roi-codec wrote, found one with another layout of its "
            "header"
        )
    return changed


def without_measured_entry(content: bytes) -> bytes:
    """The file without measurements, byte-identical to the original."""
    header, tensors = _split(content)
    entry = _MEASURED_ENTRY.match(header)
    if entry is None:
        return content
    return _joined(_METADATA + header[entry.end() :], tensors)


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Header and tensors of a safetensors file, whose header is 8 bytes of length, then JSON."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]


def _joined(header: bytes, tensors: bytes) -> bytes:
    header = header.rstrip(b" ")
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + tensors
