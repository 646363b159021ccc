# SPDX-License-Identifier: Apache-2.0
"""Capabilities of the installed OpenCV: its wheels lack some that distributions build in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import cv2

from roi_codec_ros.common.errors import UsageError

_ERRORS = 2  # cv::utils::logging::LOG_LEVEL_ERROR


def has_gstreamer() -> bool:
    """Whether OpenCV runs GStreamer pipelines here."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """OpenCV without its warnings, unless OPENCV_LOG_LEVEL says what is to be seen of them."""
    if "OPENCV_LOG_LEVEL" in os.environ or not hasattr(cv2, "setLogLevel"):
        yield
        return
    before = cv2.setLogLevel(_ERRORS)
    try:
        yield
    finally:
        cv2.setLogLevel(before)


def check_pipeline(address: str) -> None:
    """Raises UsageError for a GStreamer pipeline where this OpenCV runs none."""
    if "!" in address and not has_gstreamer():
        raise UsageError(
            f"expected an OpenCV with GStreamer for a pipeline as source, found {cv2.__version__} "
            "without, as all wheels of pip are: use the distribution's (python3-opencv, "
            "docs/install.md), or a device or an rtsp:// address as source"
        )
