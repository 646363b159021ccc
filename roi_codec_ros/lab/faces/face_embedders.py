# SPDX-License-Identifier: Apache-2.0
"""Face embedders behind one small interface, made from specifications such as `facenet=PATH`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import Plugins, optional, package_folder

DLIB_INSTALL = "pip install --no-deps dlib-bin face_recognition_models"
DLIB_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
DLIB_NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
FACENET_SIDE_PX = 160
FACENET_MARGIN = 0.1


class FaceEmbedder(Protocol):
    """Turns a face whose place is known into a vector that is close for pictures of one person."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def same_person_distance(self) -> float:
        """The Euclidean distance below which two faces are hardly two persons': a strict one."""
        ...

    def embed(self, image: ImageArray, face: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [D] of the face in the box x0, y0, x1, y1 (px) of an RGB uint8 image."""
        ...


FACE_EMBEDDERS: Plugins[FaceEmbedder] = Plugins("a face embedder")
register_face_embedder = FACE_EMBEDDERS.register


def make_face_embedder(specification: str, *, device: str = "cpu") -> FaceEmbedder:
    """The embedder that `name` or `name=argument` asks for.

    Raises UsageError for an unknown name or a wrong argument, RoiCodecError where a package or a
    file is missing.
    """
    return FACE_EMBEDDERS.make(specification, device)


@register_face_embedder("dlib")
class Dlib:
    """dlib's face recognition ResNet with the weights of the package `face_recognition_models`.

    Faces are aligned by five landmarks, looked for in the box that is given.
    """

    name = "dlib"
    same_person_distance = 0.45

    def __init__(self, argument: str | None = None, device: str = "cpu") -> None:
        if argument is not None:
            raise UsageError(f"expected dlib without an argument, found dlib={argument}")
        needed_for = "the face embedder dlib"
        self._dlib: Any = optional("dlib", needed_for=needed_for, install=DLIB_INSTALL)
        # Located without importing it: importing requires pkg_resources, which is deprecated.
        package = "face_recognition_models"
        folder = package_folder(package, needed_for=needed_for, install=DLIB_INSTALL) / "models"
        try:
            self._landmarks: Any = self._dlib.shape_predictor(str(folder / DLIB_LANDMARKS))
            self._network: Any = self._dlib.face_recognition_model_v1(str(folder / DLIB_NETWORK))
        except RuntimeError as error:
            reason = reason_of(error).replace(str(folder), folder.name)
            raise RoiCodecError(f"expected dlib's networks, found: {reason}") from error

    def embed(self, image: ImageArray, face: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embedding of the face in a box: float32 [128]."""
        # Its landmarks were learned on squares from the brows to the chin.
        centre_x, centre_y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
        half = (face[2] - face[0] + face[3] - face[1]) / 4
        corners = (centre_x - half, centre_y - half, centre_x + half, centre_y + half)
        box = self._dlib.rectangle(*(round(float(value)) for value in corners))
        pixels = np.ascontiguousarray(image)
        shape = self._landmarks(pixels, box)
        vector = self._network.compute_face_descriptor(pixels, shape)
        return np.asarray(vector, dtype=np.float32)


@register_face_embedder("facenet")
class FaceNet:
    """Inception-ResNet v1 of `facenet-pytorch` with weights of a local file (a state dict)."""

    name = "facenet"
    same_person_distance = 0.7

    def __init__(self, argument: str | None = None, device: str = "cpu") -> None:
        if not argument:
            raise UsageError("expected facenet=PATH with the path of its weights, found no path")
        if not Path(argument).is_file():
            raise RoiCodecError(f"expected FaceNet's weights, found no file at {argument}")
        package = optional(
            "facenet_pytorch",
            needed_for="the face embedder facenet",
            install="pip install --no-deps facenet-pytorch",
        )
        import torch

        from roi_codec_ros.common.devices import settle, torch_device

        self._torch = torch
        self._device = torch_device(device)
        try:
            state = torch.load(argument, map_location="cpu", weights_only=True)
            # The last layer classifies the persons of the training set; it is not needed.
            features = {key: v for key, v in state.items() if not key.startswith("logits.")}
            network = package.InceptionResnetV1(pretrained=None, classify=False)
            network.load_state_dict(features)
        except Exception as error:
            reason = reason_of(error, most=200)
            raise RoiCodecError(
                f"expected FaceNet's weights in {argument}, found: {reason}"
            ) from error
        self._network = settle(network, self._device)

    def embed(self, image: ImageArray, face: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embedding of the face in a box: float32 [512]."""
        from PIL import Image

        centre, half = (face[:2] + face[2:]) / 2, (face[2:] - face[:2]) * (0.5 + FACENET_MARGIN)
        box = tuple(round(float(value)) for value in (*(centre - half), *(centre + half)))
        crop = Image.fromarray(image).crop(box)  # type: ignore[arg-type]
        crop = crop.resize((FACENET_SIDE_PX, FACENET_SIDE_PX), Image.Resampling.BICUBIC)
        x = self._torch.from_numpy(np.array(crop)).to(self._device).permute(2, 0, 1)[None]
        with self._torch.inference_mode():
            vector = self._network((x.float() - 127.5) / 128.0)[0]
        return np.asarray(vector.cpu().numpy(), dtype=np.float32)
