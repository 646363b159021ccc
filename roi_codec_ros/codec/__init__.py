# SPDX-License-Identifier: Apache-2.0
"""The codec: networks and presets, entropy coding, bitstream, model files.

Imports nothing of the package's other folders, and torch only when a network is built.
"""

from roi_codec_ros.codec.backends import BACKENDS, Backend, open_backend
from roi_codec_ros.codec.bitstream import FORMAT, Payload
from roi_codec_ros.codec.decoding import DecodedFrame, Decoder, ReadFrame
from roi_codec_ros.codec.encoding import EncodedFrame, Encoder, load_encoder
from roi_codec_ros.codec.entropy import FIRST_CLASS, HIDDEN, SKIPPED, EntropyTables
from roi_codec_ros.codec.kernels import available_implementations, kernel_complaint
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.models import find_model, list_models, load_model, untrained_model
from roi_codec_ros.codec.presets import PRESETS, Preset, get_preset
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.skipping import Place
from roi_codec_ros.codec.stream_state import StreamState
from roi_codec_ros.common.errors import (
    BitstreamError,
    ModelFileError,
    RoiCodecError,
    UnknownModelError,
    UsageError,
)

__all__ = [
    "BACKENDS",
    "FIRST_CLASS",
    "FORMAT",
    "HIDDEN",
    "PRESETS",
    "SKIPPED",
    "Backend",
    "BitstreamError",
    "DecodedFrame",
    "Decoder",
    "EncodedFrame",
    "Encoder",
    "EntropyTables",
    "Model",
    "ModelFileError",
    "Payload",
    "Place",
    "Preset",
    "RansCoder",
    "ReadFrame",
    "RoiCodecError",
    "StreamState",
    "UnknownModelError",
    "UsageError",
    "available_implementations",
    "find_model",
    "get_preset",
    "kernel_complaint",
    "list_models",
    "load_encoder",
    "load_model",
    "open_backend",
    "untrained_model",
]
