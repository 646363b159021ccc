# SPDX-License-Identifier: Apache-2.0
"""What can still be in time."""

from __future__ import annotations

import pytest

from roi_codec_ros.stream.statistics import Expectation, in_time


@pytest.mark.parametrize(
    ("waited_ms", "steps_ms", "deadline_ms", "expected"),
    [
        (0.0, 40.0, 100.0, True),
        (60.0, 40.0, 100.0, True),
        (60.1, 40.0, 100.0, False),
        (1e6, 40.0, 0.0, True),  # no deadline
    ],
)
def test_what_waited_and_what_it_takes_yet_count(waited_ms, steps_ms, deadline_ms, expected):
    assert in_time(waited_ms, steps_ms, deadline_ms) is expected


def test_a_step_is_expected_to_take_what_it_took_lately_and_nothing_after_a_rest():
    """So that a frame is tried again where all of them were late."""
    now = [0.0]
    expectation = Expectation(clock=lambda: now[0])
    assert expectation.ms == 0.0
    for took_ms in (10.0, 30.0, 500.0):
        expectation.add(took_ms)

    assert expectation.ms == 30.0
    now[0] = 60.0
    assert expectation.ms == 0.0
