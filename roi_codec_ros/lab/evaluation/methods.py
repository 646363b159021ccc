# SPDX-License-Identifier: Apache-2.0
"""What is compared: anything that turns an image into bytes and bytes into an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.graph_choice import TORCH
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.results import RowName

if TYPE_CHECKING:
    from roi_codec_ros.codec.models import Model
    from roi_codec_ros.regions import RegionFinder


class Named(Protocol):
    """What tells one row of the tables from the others.

    model_id: the first eight bytes of a model's identity in hexadecimal; None for what has no
    model file.
    """

    @property
    def name(self) -> str:
        """What tables call the codec."""

    @property
    def preset(self) -> str:
        """Its setting, such as a quality."""

    @property
    def model_id(self) -> str | None:
        """A model's identity in hex; None for other codecs."""
        ...


class Method(Named, Protocol):
    """A codec under test. Images are RGB uint8 [H, W, 3]."""

    def encode(self, image: ImageArray) -> bytes:
        """RGB uint8 [H, W, 3] to bytes."""

    def decode(self, data: bytes) -> ImageArray:
        """The decoded image, which may be of another size than what was encoded."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A method that is given another picture than the photograph, by what is annotated in it."""

    def prepared(self, image: ImageArray, annotation: Annotation) -> ImageArray:
        """What is coded in the place of RGB uint8 [H, W, 3], of the same size."""
        ...


@runtime_checkable
class Hides(Protocol):
    """A method whose bytes tell what they do not show."""

    def hidden(self, data: bytes) -> NDArray[np.bool_] | None:
        """Which pixels of the decoded image are hidden, bool [H, W]; None: it hides nothing."""
        ...


class AroundAnother:
    """A codec that does something beside another one, of which it has all but the name."""

    prefix = ""

    def __init__(self, codec: Named) -> None:
        self.name = self.prefix + codec.name
        self.preset, self.model_id = codec.preset, codec.model_id


class ModelMethod:
    """One of our models, through the encoder and the decoder that the nodes use."""

    def __init__(
        self,
        model: Model,
        *,
        quality: float = 0.0,
        regions: RegionFinder | None = None,
        device: str = "cpu",
        threads: int | None = None,
        backend: str = TORCH,
    ) -> None:
        """quality, regions: as of `codec.Encoder`; backend: of `codec.Decoder`. Raises UsageError
        where the model knows no quality, or not that backend."""
        from roi_codec_ros.codec.decoding import Decoder
        from roi_codec_ros.codec.encoding import Encoder

        self._model = model
        self.name = model.name
        self.preset = preset_name(model, quality)
        self.model_id = model.id.hex()
        self.device = device
        self._encoder = Encoder(model, regions=regions, device=device, threads=threads)
        self._encoder.quality = quality
        self._decoder = Decoder(model, backend=backend, device=device, threads=threads)

    def encode(self, image: ImageArray) -> bytes:
        """RGB uint8 [H, W, 3] to a payload."""
        return self._encoder.encode(image).data

    def decode(self, data: bytes) -> ImageArray:
        """A payload to RGB uint8 [H, W, 3], of the coded size."""
        return self._decoder.decode(data).image

    def hidden(self, data: bytes) -> NDArray[np.bool_] | None:
        """Pixels of hidden blocks, bool [H, W] of the coded size; None without any."""
        if not self._model.codes_blocks:
            return None
        read = self._decoder.read(data)
        stride = self._model.preset.stride
        hidden = read.picture.hidden.repeat(stride, axis=0).repeat(stride, axis=1)
        return hidden[: read.payload.coded_height, : read.payload.coded_width]


def preset_name(model: Model, quality: float) -> str:
    """A model's preset, and the quality where it is not the model's own."""
    return f"{model.preset.name} {quality:+g}" if quality else model.preset.name


def row_name(method: Method) -> RowName:
    """Name of the row of `method`; a codec without device support runs on the CPU."""
    device = getattr(method, "device", None)
    return RowName(method.name, method.preset, method.model_id, device)


def synchronise(device: str | None) -> None:
    """Wait until a GPU has finished its queue; nothing to do for a CPU."""
    if device is None or not device.startswith("cuda"):
        return
    import torch

    torch.cuda.synchronize(device)
