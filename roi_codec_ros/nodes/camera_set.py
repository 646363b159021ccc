# SPDX-License-Identifier: Apache-2.0
"""The cameras of a server node, which may be added and removed at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from roi_codec_ros.nodes.guarded import GuardedNode

Camera = TypeVar("Camera")


class CameraSet(Mapping[str, Camera], Generic[Camera]):
    """Cameras by name. The mapping is replaced as a whole, so that threads may read it at any
    time.
    """

    def __init__(self, node: GuardedNode, make: Callable[[str], Camera]) -> None:
        """make: creates one camera with its publishers and subscriptions, which end with it."""
        self._node, self._make = node, make
        self._cameras: dict[str, Camera] = {}
        self._destroyers: dict[str, list[Callable[[], Any]]] = {}

    def become(self, names: Sequence[str]) -> None:
        """Keep exactly the cameras of these names: create new ones, release the others.

        Cameras that stay are not touched.
        """
        cameras = {}
        for name in names:
            if name in self._cameras:
                cameras[name] = self._cameras[name]
            else:
                cameras[name], self._destroyers[name] = self._node.making(
                    lambda name=name: self._make(name)  # type: ignore[misc]
                )
        gone = [name for name in self._cameras if name not in cameras]
        self._cameras = cameras
        for name in gone:
            self._node.destroy_soon(self._destroyers.pop(name))

    def __getitem__(self, name: str) -> Camera:
        return self._cameras[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)
