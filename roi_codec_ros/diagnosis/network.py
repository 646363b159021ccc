# SPDX-License-Identifier: Apache-2.0
"""What there is to say of DDS, of the system's buffers and of the clock."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.system_clock import clock_offset, kernel_error_s

GOOD, POOR, BAD = "good", "look at", "bad"
SETTINGS = Path("/proc/sys/net")
ENOUGH_BUFFER_BYTES = 2**20  # a frame of an image in fragments
# Setting below SETTINGS → (least, what is lost below it, advice).
BUFFERS = {
    "core/rmem_default": (ENOUGH_BUFFER_BYTES, "what comes in a burst", 4194304),
    "core/rmem_max": (ENOUGH_BUFFER_BYTES, "what comes in a burst", 4194304),
    "core/wmem_max": (ENOUGH_BUFFER_BYTES, "what is sent in a burst", 4194304),
    "ipv4/ipfrag_high_thresh": (2**22, "datagrams in fragments", 134217728),
}
SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_MB = 64
MOST_OFFSET_S = 0.05  # a person walks 7 cm meanwhile
# Variables that name a profile of a middleware.
PROFILES = {
    "rmw_fastrtps": ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"),
    "rmw_cyclonedds": ("CYCLONEDDS_URI",),
    "rmw_zenoh": ("ZENOH_SESSION_CONFIG_URI", "ZENOH_ROUTER_CONFIG_URI"),
}
DISCOVERY = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY")


@dataclass(frozen=True)
class Finding:
    """One line. level: GOOD, POOR (works, but not as it could) or BAD."""

    subject: str
    level: str
    text: str


def look_at_dds() -> list[Finding]:
    """The middleware that nodes of this shell would use, its profile, and whom it would find."""
    if importlib.util.find_spec("rclpy") is None:
        return []
    from roi_codec_ros.nodes.ros_start import middleware_name

    middleware = middleware_name()
    chosen = " by RMW_IMPLEMENTATION" if os.environ.get("RMW_IMPLEMENTATION") else ", the default"
    findings = [Finding("middleware", GOOD, f"{middleware}{chosen}"), *_profiles(middleware)]
    said = [f"{name}={os.environ[name]}" for name in DISCOVERY if os.environ.get(name)]
    said += ["ROS_STATIC_PEERS is set"] if os.environ.get("ROS_STATIC_PEERS") else []
    narrow = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "") in ("LOCALHOST", "OFF")
    alone = narrow or os.environ.get("ROS_LOCALHOST_ONLY") == "1"
    text = f"{', '.join(said) or 'nothing set: domain 0'}{'; no other machine' if alone else ''}"
    return [*findings, Finding("discovery", GOOD, text)]


def _profiles(middleware: str) -> list[Finding]:
    """The profile files that the environment names for a middleware; are they there?"""
    family = next((name for name in PROFILES if middleware.startswith(name)), None)
    names = [n for n in PROFILES.get(family or "", ()) if os.environ.get(n)]
    if not names:
        ours = "config/fastdds.xml of this package" if family == "rmw_fastrtps" else "none"
        return [Finding("profile", GOOD, f"not named in the environment: nodes take {ours}")]
    findings = []
    for name in names:
        value = os.environ[name].removeprefix("file://")
        there = value.startswith("<") or Path(value).is_file()
        text = f"{name} is set" if there else f"{name} names no file: the middleware ignores it"
        findings.append(Finding("profile", GOOD if there else POOR, text))
    return findings


def look_at_buffers() -> list[Finding]:
    """Settings of the system that lose large messages."""
    findings = []
    for name, (least, lost, advice) in BUFFERS.items():
        key = "net." + name.replace("/", ".")
        try:
            found = int((SETTINGS / name).read_text())
        except (OSError, ValueError):
            findings.append(Finding(key, POOR, "cannot be read"))
            continue
        text = f"{found / 1024:.0f} KiB"
        if found < least:
            text += f"; {lost} is lost: sysctl {key}={advice}"
        findings.append(Finding(key, GOOD if found >= least else POOR, text))
    return [*findings, _shared_memory()]


def _shared_memory() -> Finding:
    try:
        space = os.statvfs(SHARED_MEMORY)
    except OSError:
        return Finding("shared memory", POOR, f"no {SHARED_MEMORY}")
    free_mb = space.f_bavail * space.f_frsize / 1e6
    if free_mb >= ENOUGH_SHARED_MB:
        return Finding("shared memory", GOOD, f"{free_mb:.0f} MB free")
    advice = "in a container: --shm-size=1g, or --ipc=host"
    return Finding("shared memory", POOR, f"{free_mb:.0f} MB free; {advice}")


def look_at_clock(server: str | None) -> list[Finding]:
    """Whether the clock is kept right, and how far it is from a server's."""
    try:
        error_s = kernel_error_s()
        if error_s is None:
            advice = "install chrony, or ages and tracks of several machines mean nothing"
            findings = [Finding("clock", POOR, f"not synchronised by a time server: {advice}")]
        else:
            findings = [Finding("clock", GOOD, f"kept right, to {1e3 * error_s:.0f} ms at worst")]
    except OSError as error:
        findings = [Finding("clock", POOR, f"the kernel does not say ({reason_of(error)})")]
    if server is None:
        return findings
    try:
        found = clock_offset(server)
    except RoiCodecError as error:
        return [*findings, Finding("clock offset", POOR, str(error))]
    text = (
        f"the server's clock is {1e3 * found.offset_s:+.1f} ms ahead (by an exchange of "
        f"{1e3 * found.delay_s:.1f} ms)"
    )
    level = GOOD if abs(found.offset_s) <= MOST_OFFSET_S else POOR
    return [*findings, Finding("clock offset", level, text)]
