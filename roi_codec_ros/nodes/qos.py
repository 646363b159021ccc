# SPDX-License-Identifier: Apache-2.0
"""Quality of service: best effort for latents, reliable for images, persons and diagnostics."""

from __future__ import annotations

from rcl_interfaces.msg import SetParametersResult
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

LARGEST_DEPTH = 10_000


# Profiles are made anew each time: an override is written into the profile it applies to.
def latents() -> QoSProfile:
    """Latents: a few may wait, so that none is lost that a later one builds on."""
    return _best_effort(depth=10)


def newest() -> QoSProfile:
    """For topics that accompany latents: only the newest message counts."""
    return _best_effort(depth=1)


def _best_effort(depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def images() -> QoSProfile:
    """Decoded images and their camera info: only the newest counts, for whoever asks.

    Reliable, as REP 2003 has it for publishers of images: subscribers of either kind get them, and
    each decides for itself. With a depth of 1 a slow one holds up nobody.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
    )


def recent(*, reliable: bool, latched: bool) -> QoSProfile:
    """Images of a driver: a few may wait, so that none is lost while another is taken."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=5,
        reliability=(ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT),
        durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE),
    )


def reliable() -> QoSProfile:
    """Persons, markers and diagnostics."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=10,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
    )


def latched() -> QoSProfile:
    """For what rarely changes: late subscribers get the last message at once."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def is_latched(profile: QoSProfile) -> bool:
    """Whether a publisher offers what `latched` asks for."""
    return bool(
        profile.reliability == ReliabilityPolicy.RELIABLE
        and profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    )


def silent_events() -> SubscriptionEventCallbacks:
    """For a subscription beside another one that some publishers cannot serve: no warnings."""
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def overridable(*, reliability: bool = True) -> QoSOverridingOptions:
    """Declares `qos_overrides.<topic>.<publisher|subscription>.{history,depth,reliability}`."""
    kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
    if reliability:
        kinds.append(QoSPolicyKind.RELIABILITY)
    return QoSOverridingOptions(kinds, callback=_check)


def _check(profile: QoSProfile) -> SetParametersResult:
    """Refuse what the middleware would refuse in many words."""
    good = 0 <= profile.depth <= LARGEST_DEPTH
    return SetParametersResult(
        successful=good,
        reason="" if good else f"expected a depth of 0 to {LARGEST_DEPTH}, found {profile.depth}",
    )
