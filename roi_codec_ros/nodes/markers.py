# SPDX-License-Identifier: Apache-2.0
"""Persons as rviz shows them: a cylinder from feet to head and a line of text."""

from __future__ import annotations

import math
from collections.abc import Iterator

from geometry_msgs.msg import Point, Quaternion
from rclpy.duration import Duration
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from roi_codec_ros.msg import Person, PersonArray

DIAMETER_M = 0.5
TEXT_HEIGHT_M = 0.25
BODY = ColorRGBA(r=0.2, g=0.8, b=0.4, a=0.7)
TEXT = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
# A cylinder stands along its z; in an optical frame up is -y: a quarter turn about x.
UPRIGHT = Quaternion(x=math.sqrt(0.5), y=0.0, z=0.0, w=math.sqrt(0.5))


def person_markers(persons: PersonArray, height_m: float, lifetime_s: float) -> MarkerArray:
    """Markers of those with a position in the camera's optical frame (y down), at their feet.

    Markers of persons who are gone vanish by their lifetime.
    """
    array = MarkerArray()
    for index, person in enumerate(persons.persons):
        if person.position_valid:
            array.markers.extend(_pair(persons, index, person, height_m))
    lifetime = Duration(seconds=lifetime_s).to_msg()
    for marker in array.markers:
        marker.header = persons.header
        marker.lifetime = lifetime
        marker.action = Marker.ADD
    return array


def _pair(persons: PersonArray, index: int, person: Person, height_m: float) -> Iterator[Marker]:
    feet = person.position
    body = Marker(ns=persons.camera, id=index, type=Marker.CYLINDER, color=BODY)
    body.pose.position = Point(x=feet.x, y=feet.y - height_m / 2.0, z=feet.z)
    body.pose.orientation = UPRIGHT
    body.scale.x = body.scale.y = DIAMETER_M
    body.scale.z = height_m
    yield body
    text = Marker(ns=f"{persons.camera}/text", id=index, type=Marker.TEXT_VIEW_FACING, color=TEXT)
    text.pose.position = Point(x=feet.x, y=feet.y - height_m - TEXT_HEIGHT_M, z=feet.z)
    text.scale.z = TEXT_HEIGHT_M
    text.text = f"{person.score:.2f}, {math.hypot(feet.x, feet.z):.1f} m"
    yield text
