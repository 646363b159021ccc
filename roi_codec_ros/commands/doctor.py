# SPDX-License-Identifier: Apache-2.0
"""Report what is installed here, what works and how fast: one page to paste into a bug report.

It names no host and opens no camera. Status 1 if something that every use needs does not work.

example:
  roi-codec doctor
  roi-codec doctor --json doctor.json
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, outputs
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.plugins import import_complaint

if TYPE_CHECKING:
    import numpy as np

GOOD, POOR, BAD = "good", "look at", "bad"
SIZE = (480, 640)
RUNS = 5
RECEIVE_BUFFER = Path("/proc/sys/net/core/rmem_max")
ENOUGH_BUFFER_BYTES = 2**20  # a frame of an image in fragments
SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_MB = 64


@dataclass(frozen=True)
class Finding:
    """One line. level: GOOD, POOR (works, but not as it could) or BAD."""

    subject: str
    level: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError if something that every use needs does not work."""
    files = outputs(args, "json")
    findings = [finding for subject, look in LOOKS.items() for finding in _found(subject, look)]
    rows = [(f.subject, "" if f.level == GOOD else f.level, f.text) for f in findings]
    width = max(len(subject) for subject, _, _ in rows)
    for subject, level, text in rows:
        print(f"{subject:<{width}}  {level:<8} {text}")
    if args.json:
        files["json"].write_json({"findings": [asdict(finding) for finding in findings]})
    bad = [finding.subject for finding in findings if finding.level == BAD]
    if bad:
        raise RoiCodecError(f"expected all of it to work, found trouble with {', '.join(bad)}")


def _found(subject: str, look: Callable[[], list[Finding]]) -> list[Finding]:
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
    middleware = os.environ.get("RMW_IMPLEMENTATION", "the default middleware")
    return [
        Finding("machine", GOOD, f"{about['processor']}, {about['cores']} cores"),
        Finding("system", GOOD, f"{about['system']}, Python {about['python']}"),
        Finding("packages", GOOD, packages),
        Finding("ros", GOOD, f"ROS 2 {ros}, {middleware}")
        if importlib.util.find_spec("rclpy")
        else Finding("ros", POOR, "not sourced: nodes do not run in this shell"),
    ]


def _kernel() -> list[Finding]:
    from roi_codec_ros.codec.rans import kernel_complaint

    complaint = kernel_complaint()
    return [Finding("entropy coder", POOR if complaint else GOOD, complaint or "the C++ kernel")]


def _opencv() -> list[Finding]:
    import cv2

    from roi_codec_ros.common.opencv import has_gstreamer

    streams = has_gstreamer()
    text = f"{cv2.__version__}, GStreamer {'yes' if streams else 'no'}"
    if streams:
        return [Finding("opencv", GOOD, text)]
    return [Finding("opencv", GOOD, f"{text}: pipelines as `source` need the distribution's")]


def _models() -> list[Finding]:
    from roi_codec_ros.codec import list_models

    entries = list_models()
    good = [entry.path.stem for entry in entries if entry.model is not None]
    broken = [entry.path.stem for entry in entries if entry.model is None]
    findings = [Finding("models", GOOD if good else BAD, ", ".join(good) or "none")]
    if broken:
        findings.append(Finding("models", POOR, f"not readable: {', '.join(broken)}"))
    return findings


def _backends() -> list[Finding]:
    """The network that every camera runs, by each runtime that is installed."""
    import numpy as np

    from roi_codec_ros.regions import load_regions

    image = np.full((*SIZE, 3), 127, np.uint8)
    findings = []
    for module, backend in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        if importlib.util.find_spec(module) is None:
            continue
        try:
            finder = load_regions(backend=backend)
            text = f"{_median_ms(finder.find, image):.1f} ms for the regions of 640×480"
            findings.append(Finding(backend, GOOD, text))
        except RoiCodecError as error:
            findings.append(Finding(backend, BAD, str(error)))
    if not findings:
        findings.append(
            Finding("onnxruntime", BAD, "neither onnxruntime nor openvino: cameras can not encode")
        )
    return findings


def _median_ms(step: Callable[[np.ndarray], object], image: np.ndarray) -> float:
    step(image)
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        step(image)
        taken.append(1e3 * (time.perf_counter() - started))
    return sorted(taken)[RUNS // 2]


def _cameras() -> list[Finding]:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return [Finding("cameras", GOOD, ", ".join(found) or "no /dev/video… here")]


def _transport() -> list[Finding]:
    """What loses large messages of DDS."""
    findings = []
    try:
        bytes_ = int(RECEIVE_BUFFER.read_text())
        level = GOOD if bytes_ >= ENOUGH_BUFFER_BYTES else POOR
        advice = (
            "" if level == GOOD else "; images lose fragments: sysctl net.core.rmem_max=8388608"
        )
        findings.append(Finding("udp buffer", level, f"{bytes_ / 1024:.0f} KiB{advice}"))
    except (OSError, ValueError):
        findings.append(Finding("udp buffer", POOR, f"{RECEIVE_BUFFER} can not be read"))
    try:
        space = os.statvfs(SHARED_MEMORY)
        free_mb = space.f_bavail * space.f_frsize / 1e6
        level = GOOD if free_mb >= ENOUGH_SHARED_MB else POOR
        advice = "" if level == GOOD else "; in a container: --shm-size=1g, or --ipc=host"
        findings.append(Finding("shared memory", level, f"{free_mb:.0f} MB free{advice}"))
    except OSError:
        findings.append(Finding("shared memory", POOR, f"no {SHARED_MEMORY}"))
    return findings


LOOKS: dict[str, Callable[[], list[Finding]]] = {
    "machine": _machine,
    "opencv": _opencv,
    "entropy coder": _kernel,
    "models": _models,
    "backends": _backends,
    "cameras": _cameras,
    "transport": _transport,
}
