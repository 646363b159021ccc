# SPDX-License-Identifier: Apache-2.0
"""Quality of service: best effort for latents, reliable for images, persons and diagnostics."""

from __future__ import annotations

from rcl_interfaces.msg import SetParametersResult
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

LARGEST_DEPTH = 10_000


# A new profile each time: overrides are written into the profile.
def latents() -> QoSProfile:
    """For latents: a short queue, since later ones build on earlier ones."""
    return _profile(10, reliable=False)


def newest() -> QoSProfile:
    """For topics that accompany latents: only the newest message counts."""
    return _profile(1, reliable=False)


def _profile(depth: int, *, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def images() -> QoSProfile:
    """For decoded images and their camera info: only the newest message counts.

    Reliable, as REP 2003 recommends for publishers of images: both reliable and best-effort
    subscribers receive them. With a depth of 1 a slow subscriber does not block others.
    """
    return _profile(1)


def recent(*, reliable: bool, latched: bool) -> QoSProfile:
    """For images of a driver: a short queue, so that none is lost while another is processed."""
    return _profile(5, reliable=reliable, latched=latched)


def reliable() -> QoSProfile:
    """For persons, markers and diagnostics."""
    return _profile(10)


def latched() -> QoSProfile:
    """For topics that rarely change: late subscribers get the last message at once."""
    return _profile(1, latched=True)


def is_latched(profile: QoSProfile) -> bool:
    """Whether a publisher satisfies a `latched` subscription."""
    return bool(
        profile.reliability == ReliabilityPolicy.RELIABLE
        and profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    )


# An executor looks at each event handler whenever anything arrives: without them, a server of many
# cameras has time for its frames. `mismatches.py` gives the warnings of the default ones.


def silent_events() -> SubscriptionEventCallbacks:
    """A subscription without event handlers."""
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def silent_publisher_events() -> PublisherEventCallbacks:
    """A publisher without event handlers."""
    return PublisherEventCallbacks(use_default_callbacks=False)


def overridable(*, reliability: bool = True) -> QoSOverridingOptions:
    """Declares `qos_overrides.<topic>.<publisher|subscription>.{history,depth,reliability}`."""
    kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
    if reliability:
        kinds.append(QoSPolicyKind.RELIABILITY)
    return QoSOverridingOptions(kinds, callback=_check)


def _check(profile: QoSProfile) -> SetParametersResult:
    """Refuse invalid profiles with a clear message, before the middleware does."""
    good = 0 <= profile.depth <= LARGEST_DEPTH
    return SetParametersResult(
        successful=good,
        reason="" if good else f"expected a depth of 0 to {LARGEST_DEPTH}, found {profile.depth}",
    )
