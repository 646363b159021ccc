# SPDX-License-Identifier: Apache-2.0
"""Detects other publishers on topics that belong to one node."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from roi_codec_ros.nodes.mismatches import UNDISCOVERED

if TYPE_CHECKING:
    from rclpy.node import Node

# A killed process remains in the graph until its lease ends, under its successor's name; and of
# any publisher the node may become known later.
PATIENCE_S = 30.0


class Rivals:
    """Watches the topics of one node for other publishers."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._unsure_since: dict[str, float] = {}

    def found(self, topics: Collection[str]) -> str:
        """A message that names them by topic; empty if there are none."""
        shared = [topic for topic in sorted(topics) if self._node.count_publishers(topic) > 1]
        found = {topic: names for topic in shared if (names := self._others(topic))}
        for topic in set(self._unsure_since).difference(shared):
            del self._unsure_since[topic]
        if not found:
            return ""
        whom = "; ".join(f"{', '.join(names)} on {topic}" for topic, names in found.items())
        return f"expected no other publisher on topics of this node, found {whom}"

    def _others(self, topic: str) -> list[str]:
        own = self._node.get_fully_qualified_name()
        infos = self._node.get_publishers_info_by_topic(topic)
        names = [_full_name(info) for info in infos if info.node_name != UNDISCOVERED]
        others = sorted({name for name in names if name != own})
        unsure = [f"another {own}"] if names.count(own) > 1 else []
        unsure += ["one of an unknown node"] if len(names) < len(infos) else []
        if not unsure:
            self._unsure_since.pop(topic, None)
            return others
        since_s = self._unsure_since.setdefault(topic, time.monotonic())
        return others + unsure if time.monotonic() - since_s > PATIENCE_S else others


def _full_name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
