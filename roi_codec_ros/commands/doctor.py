# SPDX-License-Identifier: Apache-2.0
"""Report what is installed here, what works and how fast: one page to paste into a bug report.

It names no host and opens no camera. Status 1 if something that every use needs does not work.

example:
  roi-codec doctor
  roi-codec doctor --server 10.0.0.1 --json doctor.json
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, outputs
from roi_codec_ros.commands.doctor_network import (
    BAD,
    GOOD,
    POOR,
    Finding,
    look_at_buffers,
    look_at_clock,
    look_at_dds,
)
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.plugins import import_complaint

T = TypeVar("T")
Look = Callable[[], list[Finding]]
TIMED_MODEL = "fast"
SIZE = (480, 640)
RUNS = 5
BOARD = Path("/proc/device-tree/model")  # of small computers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--server",
        metavar="HOST[:PORT]",
        help="ask its time server (NTP) how far this machine's clock is from the server's",
    )
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError if something that every use needs does not work."""
    files = outputs(args, "json")
    looks: dict[str, Look] = {**LOOKS, "clock": partial(look_at_clock, args.server)}
    findings = [finding for subject, look in looks.items() for finding in _found(subject, look)]
    rows = [(f.subject, "" if f.level == GOOD else f.level, f.text) for f in findings]
    width = max(len(subject) for subject, _, _ in rows)
    for subject, level, text in rows:
        print(f"{subject:<{width}}  {level:<8} {text}")
    if args.json:
        files["json"].write_json({"findings": [asdict(finding) for finding in findings]})
    bad = [finding.subject for finding in findings if finding.level == BAD]
    if bad:
        raise RoiCodecError(f"expected all of it to work, found trouble with {', '.join(bad)}")


def _found(subject: str, look: Look) -> list[Finding]:
    """What a look finds, also where a package is missing that it needs."""
    try:
        return look()
    except ImportError as error:
        complaint = import_complaint(error)
        if complaint is None:
            raise
        return [Finding(subject, BAD, complaint)]


def _machine() -> list[Finding]:
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


def _kernel() -> list[Finding]:
    from roi_codec_ros.codec.kernels import kernel_complaint

    complaint = kernel_complaint()
    return [Finding("entropy coder", POOR if complaint else GOOD, complaint or "the C++ kernels")]


def _opencv() -> list[Finding]:
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


def _models() -> list[Finding]:
    from roi_codec_ros.codec import list_models

    entries = list_models()
    good = [entry.path.stem for entry in entries if entry.model is not None]
    broken = [entry.path.stem for entry in entries if entry.model is None]
    findings = [Finding("models", GOOD if good else BAD, ", ".join(good) or "none")]
    if broken:
        findings.append(Finding("models", POOR, f"not readable: {', '.join(broken)}"))
    return findings


def _regions() -> list[Finding]:
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


def _decoders() -> list[Finding]:
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


def _cameras() -> list[Finding]:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return [Finding("cameras", GOOD, ", ".join(found) or "no /dev/video… here")]


LOOKS: dict[str, Look] = {
    "machine": _machine,
    "opencv": _opencv,
    "entropy coder": _kernel,
    "models": _models,
    "regions": _regions,
    "decoder": _decoders,
    "cameras": _cameras,
    "middleware": look_at_dds,
    "buffers": look_at_buffers,
}
