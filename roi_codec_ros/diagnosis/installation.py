# SPDX-License-Identifier: Apache-2.0
"""What is installed here, what works and how fast: packages, kernels, models, runtimes."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.plugins import import_complaint
from roi_codec_ros.diagnosis.network import (
    BAD,
    GOOD,
    POOR,
    Finding,
    look_at_buffers,
    look_at_clock,
    look_at_dds,
)

T = TypeVar("T")
Look = Callable[[], list[Finding]]
TIMED_MODEL = "fast"
SIZE = (480, 640)
RUNS = 5
BOARD = Path("/proc/device-tree/model")  # of small computers


def look_at_everything(time_server: str | None) -> list[Finding]:
    """All findings, in the order of a page. time_server: host of an NTP server to ask, or None."""
    looks: dict[str, Look] = {**LOOKS, "clock": partial(look_at_clock, time_server)}
    return [finding for subject, look in looks.items() for finding in _found(subject, look)]


def _found(subject: str, look: Look) -> list[Finding]:
    """What a look finds, also where a package is missing that it needs."""
    try:
        return look()
    except ImportError as error:
        complaint = import_complaint(error)
        if complaint is None:
            raise
        return [Finding(subject, BAD, complaint)]


def look_at_machine() -> list[Finding]:
    """Hardware, system, packages and ROS."""
    from roi_codec_ros.common.machine import describe_machine

    about = describe_machine()
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    ros = os.environ.get("ROS_DISTRO", "")
    board = BOARD.read_text(encoding="utf-8").strip("\0\n") + ", " if BOARD.is_file() else ""
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    hardware = f"{board}{about['processor']}, {about['cores']} cores, {memory_gb:.0f} GB"
    return [
        Finding("machine", GOOD, hardware),
        Finding("system", GOOD, f"{about['system']}, Python {about['python']}"),
        Finding("packages", GOOD, packages),
        Finding("ros", GOOD, f"ROS 2 {ros}")
        if importlib.util.find_spec("rclpy")
        else Finding("ros", POOR, "not sourced: nodes do not run in this shell"),
    ]


def look_at_kernel() -> list[Finding]:
    """Whether the C++ kernels were built."""
    from roi_codec_ros.codec.kernels import kernel_complaint

    complaint = kernel_complaint()
    return [Finding("entropy coder", POOR if complaint else GOOD, complaint or "the C++ kernels")]


def look_at_opencv() -> list[Finding]:
    """Its version, GStreamer, and wheels that overwrite each other."""
    import cv2

    from roi_codec_ros.common.machine import describe_machine
    from roi_codec_ros.common.opencv import has_gstreamer

    streams = has_gstreamer()
    text = f"{cv2.__version__}, GStreamer {'yes' if streams else 'no'}"
    if not streams:
        text += ": pipelines as `source` need the distribution's"
    wheels = [w for w in describe_machine()["packages"] if w.startswith("opencv-")]
    if len(wheels) > 1:
        text += f"; {' and '.join(wheels)} overwrite each other: uninstall both, install one"
    return [Finding("opencv", POOR if len(wheels) > 1 else GOOD, text)]


def look_at_models() -> list[Finding]:
    """Installed models, and those that cannot be read."""
    from roi_codec_ros.codec import list_models

    entries = list_models()
    good = [entry.path.stem for entry in entries if entry.model is not None]
    broken = [entry.path.stem for entry in entries if entry.model is None]
    findings = [Finding("models", GOOD if good else BAD, ", ".join(good) or "none")]
    if broken:
        findings.append(Finding("models", POOR, f"not readable: {', '.join(broken)}"))
    return findings


def look_at_regions() -> list[Finding]:
    """The network that every camera runs, by each runtime that is installed."""
    import numpy as np

    from roi_codec_ros.common.graph_sessions import onnxruntime_devices
    from roi_codec_ros.regions import load_regions

    image = np.full((*SIZE, 3), 127, np.uint8)
    findings = []
    for module, backend in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        if importlib.util.find_spec(module) is None:
            continue
        try:
            finder = load_regions(backend=backend)
            text = f"{_median_ms(finder.find, image):.1f} ms for the regions of 640×480"
            if backend == "onnxruntime":
                text += f"; devices {', '.join(onnxruntime_devices())}"
            findings.append(Finding(backend, GOOD, text))
        except RoiCodecError as error:
            findings.append(Finding(backend, BAD, str(error)))
    if not findings:
        findings.append(
            Finding("onnxruntime", BAD, "neither onnxruntime nor openvino: cameras cannot encode")
        )
    return findings


def look_at_decoders() -> list[Finding]:
    """The network that makes a server's pictures, by each of its backends."""
    import numpy as np

    from roi_codec_ros.codec import Decoder, Encoder, load_model
    from roi_codec_ros.common.graph_choice import AUTO, SERVER_BACKENDS

    try:
        model = load_model(TIMED_MODEL)
        payload = Encoder(model).encode(np.full((*SIZE, 3), 127, np.uint8)).data
    except RoiCodecError as error:
        return [Finding("decoder", POOR, f"not timed: {error}")]
    times, missing = [], []
    for backend in SERVER_BACKENDS:
        if backend == AUTO:
            continue
        try:
            decoder = Decoder(model, backend=backend)
            times.append(f"{backend} {_median_ms(decoder.decode, payload):.1f} ms")
        except RoiCodecError:
            missing.append(backend)
    text = f"{', '.join(times) or 'none'} for 640×480"
    text += f"; not here: {', '.join(missing)}" if missing else ""
    return [Finding("decoder", GOOD if times else POOR, text)]


def _median_ms(step: Callable[[T], object], given: T) -> float:
    step(given)
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        step(given)
        taken.append(1e3 * (time.perf_counter() - started))
    return sorted(taken)[RUNS // 2]


def look_at_cameras() -> list[Finding]:
    """Devices that are there; none is opened."""
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return [Finding("cameras", GOOD, ", ".join(found) or "no /dev/video… here")]


LOOKS: dict[str, Look] = {
    "machine": look_at_machine,
    "opencv": look_at_opencv,
    "entropy coder": look_at_kernel,
    "models": look_at_models,
    "regions": look_at_regions,
    "decoder": look_at_decoders,
    "cameras": look_at_cameras,
    "middleware": look_at_dds,
    "buffers": look_at_buffers,
}
