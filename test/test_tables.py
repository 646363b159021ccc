# SPDX-License-Identifier: Apache-2.0
"""Tables for the terminal."""

from __future__ import annotations

from roi_codec_ros.common.tables import number, text_table


def test_names_are_left_and_figures_right():
    lines = text_table(["codec", "ms"], [["fast", 3.5], ["nano", "–"]]).splitlines()

    assert [line.split() for line in lines] == [["codec", "ms"], ["fast", "3.5"], ["nano", "–"]]
    assert {line.index(line.split()[0]) for line in lines} == {0}
    assert len({len(line) for line in lines}) == 1


def test_texts_that_look_like_numbers_stay_as_they_are():
    assert text_table([], [["1e3", "0.10"]]) == "1e3  0.10"


def test_a_table_without_rows_is_its_header():
    assert text_table(["codec", "ms"], []).split() == ["codec", "ms"]


def test_what_was_not_measured_is_a_dash():
    assert (number(None, ".1f"), number(0.25, ".0%")) == ("–", "25%")
