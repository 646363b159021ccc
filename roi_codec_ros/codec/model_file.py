# SPDX-License-Identifier: Apache-2.0
"""Model files: weights, integer entropy tables and a model card in one safetensors file.

The file holds the tensors ``analysis.*`` and ``synthesis.*``, ``latent_mean`` float32 [C], the
tables ``entropy.*`` (`table_tensors`), and in its metadata, under ``roi_codec``, the card as JSON.
Measurements of the model are kept apart from the card, under ``roi_codec_measured``. Weights
are float16 or float32, or int8 with a float32 ``….scale`` [N] beside them: a factor for each of
their N entries along the first axis.

A model's identity covers what decoding needs: all weights, tables and the preset's sizes
(`Model.networks_sha256`).
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from roi_codec_ros.codec.eight_bits import SCALE, check_scales, full_precision
from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.measured_entry import (
    MEASURED_KEY,
    METADATA_KEY,
    with_measured_entry,
)
from roi_codec_ros.codec.presets import BLOCKS, Preset
from roi_codec_ros.codec.stored_tables import table_tensors, tables_of_tensors
from roi_codec_ros.common.errors import ModelFileError, reason_of
from roi_codec_ros.common.files import write_whole

FORMAT_VERSION = 3
MEASURED = ("figures",)  # entries of the card that are measurements
ID_BYTES = 8
MAX_FILE_BYTES = 1 << 30
_LARGEST_OPTION = 4096
_MOST_LAYERS = 64  # per kind: building a network of thousands of layers would take a minute


@dataclass(frozen=True, eq=False)
class Model:
    """A model file in memory.

    Attributes:
        name: what users call it.
        preset: the architecture, as described in the file.
        tensors: weights by name, without the entropy tables.
        tables: the entropy coder's integer tables.
        header: the model card, including measurements.
        identity: 32 bytes, see the module.
        measured: the measurements in ``header``, which are not part of the identity.
    """

    name: str
    preset: Preset
    tensors: Mapping[str, np.ndarray]
    tables: EntropyTables
    header: Mapping[str, Any]
    identity: bytes
    content: bytes = field(repr=False)
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> bytes:
        """The first 8 bytes of the identity, which payloads carry."""
        return self.identity[:ID_BYTES]

    @functools.cached_property
    def networks_sha256(self) -> bytes:
        """SHA-256 of all weights, tables and the preset's sizes, on which every measurement
        depends.

        Name, date and other entries of the card are not included.
        """
        preset = dataclasses.asdict(self.preset)
        sizes = {key: value for key, value in preset.items() if key not in ("name", "description")}
        digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode())
        for key, value in sorted({**self.tensors, **table_tensors(self.tables)}.items()):
            array = np.ascontiguousarray(value)
            digest.update(f"\n{key} {array.dtype.str} {list(array.shape)}\n".encode())
            digest.update(array.tobytes())
        return digest.digest()

    @property
    def figures(self) -> Mapping[str, Any]:
        """Measurements of exactly these networks; empty if there are none."""
        figures = self.header.get("figures")
        if not isinstance(figures, Mapping):
            return {}
        measured = figures.get("networks_sha256")  # older figures do not record it
        known = measured is None or measured == self.networks_sha256.hex()
        return figures if known else {}

    @property
    def codes_blocks(self) -> bool:
        """Whether the model is block-based: regions decide which blocks are hidden and how finely
        each is coded.
        """
        return self.preset.architecture == BLOCKS

    @property
    def faces_left(self) -> float | None:
        """Share of the faces in photographs that a face detector still finds after decoding.

        From the measurements in the card; None if there are none.
        """
        figures = self.figures
        try:
            return float(figures["faces"]) / max(float(figures["original_faces"]), 1.0)
        except (KeyError, TypeError, ValueError):
            return None

    @classmethod
    def build(
        cls,
        name: str,
        preset: Preset,
        tensors: Mapping[str, np.ndarray],
        tables: EntropyTables,
        card: Mapping[str, Any],
    ) -> Model:
        """Assemble a model; ``card`` holds the header's entries besides name and preset."""
        measured = {key: card[key] for key in MEASURED if key in card}
        header = {
            **{key: value for key, value in card.items() if key not in measured},
            "format_version": FORMAT_VERSION,
            "name": name,
            "preset": dataclasses.asdict(preset),
        }
        stored = {
            **{key: np.ascontiguousarray(value) for key, value in tensors.items()},
            **table_tensors(tables),
        }
        content = safetensors.numpy.save(
            stored, metadata={METADATA_KEY: json.dumps(header, sort_keys=True)}
        )
        return cls.from_bytes(with_measured_entry(content, measured))

    @classmethod
    def from_bytes(cls, content: bytes, where: str = "the model file") -> Model:
        """Read a model file's content. Raises ModelFileError, which names ``where``."""
        try:
            arrays = safetensors.numpy.load(content)
            header_length = int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8 : 8 + header_length]).get("__metadata__", {})
            header = json.loads(metadata[METADATA_KEY])
            measured = json.loads(metadata.get(MEASURED_KEY, "{}"))
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"expected {where} to be a safetensors file with {METADATA_KEY!r} metadata; "
                f"found: {error!r}"
            ) from error
        version = header.get("format_version") if isinstance(header, dict) else None
        if version != FORMAT_VERSION:
            raise ModelFileError(
                f"expected {where} to have format version {FORMAT_VERSION}, found {version!r}, "
                "which only another version of this package reads"
            )
        if not isinstance(measured, dict):
            raise ModelFileError(
                f"expected {where} to hold an object as {MEASURED_KEY}, found {measured!r:.60}"
            )
        tables = tables_of_tensors(arrays, where)
        preset = _read_preset(header.get("preset"), where)
        mean = arrays.get("latent_mean")
        if mean is None or mean.shape != (preset.latent_channels,):
            found = None if mean is None else mean.shape
            raise ModelFileError(
                f"expected {where} to hold latent_mean [{preset.latent_channels}], found {found}"
            )
        check_scales(arrays, where)
        if tables.channels != preset.latent_channels:
            raise ModelFileError(
                f"expected {where} to hold tables of {preset.latent_channels} channels, "
                f"found {tables.channels}"
            )
        model = cls(
            name=str(header.get("name", preset.name)),
            preset=preset,
            tensors=arrays,
            tables=tables,
            header={**header, **measured},
            identity=b"",
            content=content,
            measured=measured,
        )
        return dataclasses.replace(model, identity=model.networks_sha256)

    def with_card(self, **entries: Any) -> Model:
        """The same networks with these entries of the card replaced, in the current format."""
        return Model.build(
            self.name, self.preset, self.tensors, self.tables, {**self.header, **entries}
        )

    def with_measured(self, **entries: Any) -> Model:
        """The same model, with the same identity, with these entries added to its measurements.

        Raises ModelFileError for a file with another header layout.
        """
        measured = {**self.measured, **entries}
        return Model.from_bytes(with_measured_entry(self.content, measured), f"model {self.name}")

    def to_text(self) -> str:
        """Identity, card and tables without the networks, for an exported encoder."""
        figures = {key: value for key, value in self.figures.items() if key != "networks_sha256"}
        stub = Model.build(
            self.name,
            self.preset,
            {"latent_mean": self.tensors["latent_mean"]},
            self.tables,
            {**self.header, "figures": figures},  # of the networks, which the text lacks
        )
        content = base64.b64encode(stub.content).decode("ascii")
        return json.dumps({"identity": self.identity.hex(), "model": content})

    @classmethod
    def from_text(cls, text: str, where: str = "the exported model") -> Model:
        """Read a model, without networks, that `to_text` wrote. Raises ModelFileError."""
        try:
            fields = json.loads(text)
            identity = bytes.fromhex(fields["identity"])
            content = base64.b64decode(fields["model"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"expected {where} to describe its model; found: {error!r}"
            ) from error
        if len(identity) != hashlib.sha256().digest_size:
            raise ModelFileError(
                f"expected {where} to hold an identity of 32 bytes, found {len(identity)}"
            )
        return dataclasses.replace(cls.from_bytes(content, where), identity=identity)

    def save(self, path: str | Path) -> None:
        """Write the file atomically; an existing file is replaced only when the new one is
        complete.
        """
        write_whole(Path(path), self.content)

    def weights(self, part: str) -> dict[str, np.ndarray]:
        """The tensors below ``part`` (``analysis`` or ``synthesis``), without the prefix.

        8-bit tensors are converted to float32.
        """
        prefix = part + "."
        return {
            key.removeprefix(prefix): full_precision(value, self.tensors.get(key + SCALE))
            for key, value in self.tensors.items()
            if key.startswith(prefix) and not key.endswith(SCALE)
        }


def read_model(path: str | Path) -> Model:
    """Read a model file. Raises ModelFileError that names the file and its fault."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelFileError(
                f"expected {path} to be a model file of at most {MAX_FILE_BYTES} bytes, "
                f"found {size}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"expected a model file at {path}; found: {reason_of(error)}"
        ) from error
    return Model.from_bytes(content, where=str(path))


def _read_preset(fields: Any, where: str) -> Preset:
    """The preset of an untrusted file, its sizes limited to what can be built."""
    try:
        coded_size = fields["coded_size"]
        preset = Preset(
            name=str(fields["name"]),
            architecture=str(fields["architecture"]),
            latent_channels=_size(fields["latent_channels"]),
            stride=_size(fields["stride"]),
            coded_size=None
            if coded_size is None
            else (_size(coded_size[0]), _size(coded_size[1])),
            options={str(key): _option(key, value) for key, value in fields["options"].items()},
            description=str(fields.get("description", "")),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelFileError(
            f"expected {where} to describe its preset; found: {error!r}"
        ) from error
    return preset


def _option(name: str, value: Any) -> int:
    return _size(value, _MOST_LAYERS if name.endswith(("_blocks", "_layers")) else _LARGEST_OPTION)


def _size(value: Any, largest: int = _LARGEST_OPTION) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= largest:
        raise ValueError(f"expected a whole number from 1 to {largest}, found {value!r}")
    return value
