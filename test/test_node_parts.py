# SPDX-License-Identifier: Apache-2.0
"""The small parts of the nodes that need no ROS: newest-wins slots, figures, size matching."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from roi_codec_ros.stream.newest import NewestByKey
from roi_codec_ros.stream.original_sizes import OriginalSizes
from roi_codec_ros.stream.statistics import SlidingWindow, Tally


def test_a_newer_item_replaces_the_one_that_waits():
    slot = NewestByKey()

    assert [slot.put("a", number) for number in (1, 2, 3)] == [False, True, True]
    assert slot.take(0.0) == ("a", 3)
    assert slot.take(0.0) is None


def test_no_key_starves_another():
    slot = NewestByKey()
    for key, item in (("a", 1), ("b", 1), ("a", 2)):
        slot.put(key, item)

    assert [slot.take(0.0), slot.take(0.0)] == [("a", 2), ("b", 1)]


def test_all_that_waits_is_taken_in_the_order_of_waiting():
    slot = NewestByKey()
    for key, item in (("a", 1), ("b", 1), ("c", 1), ("a", 2)):
        slot.put(key, item)

    assert slot.take_all(0.0, at_most=2) == [("a", 2), ("b", 1)]
    slot.put("a", 3)  # has had its turn: behind c
    assert slot.take_all(0.0, at_most=8) == [("c", 1), ("a", 3)]
    assert slot.take_all(0.0, at_most=8) == []


def test_there_is_room_once_something_was_taken():
    slot = NewestByKey()
    slot.put("a", 1)
    slot.put("b", 1)

    assert not slot.wait_for_room(2, timeout_s=0.0)
    threading.Timer(0.05, slot.take, (0.0,)).start()
    assert slot.wait_for_room(2, timeout_s=30.0)


def test_nobody_waits_for_room_where_nothing_is_taken_any_longer():
    slot = NewestByKey()
    slot.put("a", 1)
    threading.Timer(0.05, slot.close).start()

    assert slot.wait_for_room(1, timeout_s=30.0)


def test_closing_wakes_who_waits_and_forgets():
    slot = NewestByKey()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(slot.take(60.0)))
    thread.start()

    slot.close()
    thread.join(30.0)

    assert taken == [None]
    assert not slot.put("a", 1)
    assert slot.take(0.0) is None


def test_window_forgets_what_is_old():
    now = [0.0]
    window = SlidingWindow(span_s=5.0, clock=lambda: now[0])
    for second in range(10):
        now[0] = float(second)
        window.add(second)

    now[0] = 9.5
    assert window.rate_hz == pytest.approx(1.0)  # 5, 6, 7, 8, 9
    assert window.mean == pytest.approx(7.0)
    assert window.percentile(50) == pytest.approx(7.0)
    assert window.total_per_s == pytest.approx(7.0)


def test_window_that_has_just_begun_counts_over_its_age():
    now = [0.0]
    window = SlidingWindow(span_s=5.0, clock=lambda: now[0])
    for tenth in range(10):
        now[0] = tenth / 10
        window.add(1.0)

    now[0] = 1.0
    assert window.rate_hz == pytest.approx(10.0)


def test_an_empty_window_has_no_figures():
    window = SlidingWindow()

    assert window.rate_hz == 0.0
    assert math.isnan(window.mean)
    assert math.isnan(window.percentile(95))
    assert window.total_per_s == 0.0


def test_tally_counts_by_cause():
    tally = Tally()

    assert [tally.add("b"), tally.add("a"), tally.add("b")] == [1, 1, 2]
    assert tally.as_dict() == {"a": 1, "b": 2}
    assert tally["never"] == 0


def test_size_is_found_by_stamp():
    sizes = OriginalSizes()
    sizes.add(1, (360, 640), (1080, 1920))
    sizes.add(2, (360, 640), (720, 1280))

    assert sizes.find(1, (360, 640)) == (1080, 1920)
    assert sizes.find(2, (360, 640)) == (720, 1280)


def test_size_is_found_by_coded_size_only_where_that_is_unique():
    sizes = OriginalSizes()
    sizes.add(1, (360, 640), (1080, 1920))
    assert sizes.find(9, (360, 640)) == (1080, 1920)

    sizes.add(2, (360, 640), (720, 1280))
    assert sizes.find(9, (360, 640)) is None
    assert sizes.find(9, (1, 1)) is None


def test_a_size_without_pixels_is_none():
    sizes = OriginalSizes()
    sizes.add(1, (360, 640), (0, 640))

    assert sizes.find(1, (360, 640)) is None


def test_sizes_that_somebody_makes_up_do_not_pile_up():
    sizes = OriginalSizes(remembered=2)
    for stamp in range(100):
        sizes.add(stamp, (360, 640), (stamp, stamp))
        sizes.add(stamp, (stamp, 1), (7, 7))

    assert sizes.find(200, (360, 640)) is None
    assert sizes.find(200, (99, 1)) == (7, 7)
    assert sizes.find(200, (97, 1)) is None
    assert len(sizes._by_stamp) == len(sizes._by_coded_size) == 2


def test_size_that_arrives_late_is_waited_for():
    sizes = OriginalSizes()
    threading.Timer(0.05, sizes.add, (1, (360, 640), (1080, 1920))).start()

    assert sizes.find(1, (360, 640), timeout_s=30.0) == (1080, 1920)


def test_old_stamps_are_forgotten():
    sizes = OriginalSizes(remembered=2)
    for stamp in (1, 2, 3):
        sizes.add(stamp, (stamp, stamp), (10 * stamp, 10 * stamp))
        sizes.add(stamp, (5, 5), (stamp, stamp))

    assert sizes.find(1, (5, 5)) is None
    assert sizes.find(3, (5, 5)) == (3, 3)


def test_what_of_a_picture_is_missing_is_found_by_its_stamp_else_as_of_the_one_before():
    hole = np.zeros((2, 3), bool)
    hole[1, 2] = True
    sizes = OriginalSizes()
    sizes.add(1, (32, 48), (64, 96))
    sizes.add(2, (32, 48), (64, 96), hole)

    assert sizes.unknown(1) is None
    assert sizes.unknown(2) is hole
    assert sizes.unknown(3) is hole, "its frame data were lost"
    sizes.add(4, (32, 48), (64, 96))
    assert sizes.unknown(5) is None
