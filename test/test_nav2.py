# SPDX-License-Identifier: Apache-2.0
"""The snippets for Nav2 fit each other, the page that explains them, and the clouds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SNIPPETS = yaml.safe_load((ROOT / "config" / "nav2_persons.yaml").read_text(encoding="utf-8"))
MONITOR = SNIPPETS["collision_monitor"]["ros__parameters"]
COSTMAP = SNIPPETS["local_costmap"]["local_costmap"]["ros__parameters"]
LAYER = COSTMAP["persons_layer"]
PAGE = (ROOT / "docs" / "navigation.md").read_text(encoding="utf-8")


def keys(tree: dict) -> Iterator[str]:
    """Names of parameters; a mapping's own name is that of a zone, a source or a layer."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from keys(value)
        else:
            yield key


def test_what_is_named_is_there():
    assert MONITOR["observation_sources"] == ["persons"]
    assert set(MONITOR["polygons"]) <= set(MONITOR)
    assert LAYER["observation_sources"] == "persons"
    assert "persons" in MONITOR
    assert "persons" in LAYER


def test_the_page_explains_every_line():
    monitor, layer = PAGE.split("## A costmap layer that forgets")

    assert not [key for key in keys(MONITOR) if f"`{key}`" not in monitor]
    assert not [key for key in keys(COSTMAP) if f"`{key}`" not in layer]


def test_both_releases_act_on_the_same_number_of_points():
    for name in MONITOR["polygons"]:
        assert MONITOR[name]["min_points"] == MONITOR[name]["max_points"] + 1
        assert MONITOR[name]["type"] == "circle"


def test_every_ring_lies_between_the_heights():
    pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
    pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")
    from roi_codec_ros.nodes.map_messages import RING_HEIGHTS_M

    source, layer = MONITOR["persons"], LAYER["persons"]
    for low, high in (
        (source["min_height"], source["max_height"]),
        (layer["min_obstacle_height"], layer["max_obstacle_height"]),
    ):
        assert low < min(RING_HEIGHTS_M)
        assert max(RING_HEIGHTS_M) < high


@pytest.mark.parametrize("bearing", np.linspace(0.0, 2 * np.pi, 25).tolist())
def test_a_person_well_inside_a_zone_has_enough_points_there(bearing):
    pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
    pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")
    from roi_codec_ros.nodes.map_messages import person_rings

    for name in MONITOR["polygons"]:
        zone = MONITOR[name]
        reach = zone["radius"] + 0.2  # the middle of the person; their ring reaches 0.3 m nearer
        points = person_rings([[reach * np.cos(bearing), reach * np.sin(bearing)]], 0.3)
        inside = np.hypot(points[:, 0], points[:, 1]) < zone["radius"]
        assert inside.sum() >= zone["min_points"]
