# SPDX-License-Identifier: Apache-2.0
"""Hands work between threads, keeping only the newest item of each key."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestByKey(Generic[Item]):
    """One waiting item per key (a camera); a newer item replaces it.

    Keys are served in the order in which their items began to wait, so that no camera starves
    another.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, Item] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, key: str, item: Item) -> bool:
        """Add an item; True if it replaced a waiting one."""
        with self._changed:
            if self._closed:
                return False
            replaced = key in self._waiting
            self._waiting[key] = item
            self._changed.notify_all()
            return replaced

    def take(self, timeout_s: float) -> tuple[str, Item] | None:
        """Take the next key and item; None after the timeout or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout_s)
            if self._closed or not self._waiting:
                return None
            self._changed.notify_all()
            return self._waiting.popitem(last=False)

    def take_all(self, timeout_s: float, at_most: int) -> list[tuple[str, Item]]:
        """All waiting items, or the first `at_most`; none after the timeout or once closed."""
        first = self.take(timeout_s)
        taken = [] if first is None else [first]
        while taken and len(taken) < at_most and (item := self.take(0.0)) is not None:
            taken.append(item)
        return taken

    def wait_for_room(self, at_most: int, timeout_s: float) -> bool:
        """Wait until fewer than `at_most` wait, or it is closed; False after the timeout."""
        with self._changed:
            return self._changed.wait_for(
                lambda: len(self._waiting) < at_most or self._closed, timeout_s
            )

    def close(self) -> None:
        """Drop all waiting items and wake all takers."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
