# SPDX-License-Identifier: Apache-2.0
"""Markers for rviz: persons as labelled cylinders, their velocities, cameras' view cones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from geometry_msgs.msg import Point, Quaternion
from rclpy.duration import Duration
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from roi_codec_ros.msg import Person, PersonArray
from roi_codec_ros.nodes.conversions import point_from_array
from roi_codec_ros.perception.views import GroundView

DIAMETER_M = 0.5
TEXT_HEIGHT_M = 0.25
BODY = ColorRGBA(r=0.2, g=0.8, b=0.4, a=0.7)
TEXT = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
ARROW = ColorRGBA(r=1.0, g=0.7, b=0.1, a=0.9)
ARROW_S = 1.0  # an arrow ends at the predicted position after this time
SLOWEST_ARROW_M_S = 0.1
WATCHING = ColorRGBA(r=0.3, g=0.6, b=1.0, a=0.9)
BLIND = ColorRGBA(r=1.0, g=0.2, b=0.2, a=0.9)
CONE_M = 1.5  # length of a view cone along the camera's axis
LINE_M = 0.02
# A cylinder stands along its z; in an optical frame up is -y: a quarter turn about x.
UPRIGHT = Quaternion(x=math.sqrt(0.5), y=0.0, z=0.0, w=math.sqrt(0.5))


def person_markers(persons: PersonArray, height_m: float, lifetime_s: float) -> MarkerArray:
    """Markers at the feet of persons with a position in the camera's optical frame (y down).

    They vanish at the end of their lifetime.
    """
    array = MarkerArray()
    for index, person in enumerate(persons.persons):
        if person.position_valid:
            array.markers.extend(_pair(persons, index, person, height_m))
    return _finished(array, persons.header, lifetime_s)


def map_markers(
    persons: PersonArray,
    views: Iterable[tuple[str, GroundView, bool]],
    height_m: float,
    lifetime_s: float,
) -> MarkerArray:
    """Markers of tracked persons in the map (z up), and of cameras: name, view, state.

    All vanish at the end of their lifetime unless renewed.
    """
    array = MarkerArray()
    for person in persons.persons:
        array.markers.extend(_standing(person, height_m))
    for index, (name, view, watching) in enumerate(views):
        array.markers.extend(_cone(index, name, view, WATCHING if watching else BLIND))
    return _finished(array, persons.header, lifetime_s)


def _finished(array: MarkerArray, header: Header, lifetime_s: float) -> MarkerArray:
    lifetime = Duration(seconds=lifetime_s).to_msg()
    for marker in array.markers:
        marker.header = header
        marker.lifetime = lifetime
        marker.action = Marker.ADD
    return array


def _standing(person: Person, height_m: float) -> Iterator[Marker]:
    feet, velocity = person.position, person.velocity
    body = Marker(ns="persons", id=person.track_id, type=Marker.CYLINDER, color=BODY)
    body.pose.position = Point(x=feet.x, y=feet.y, z=feet.z + height_m / 2.0)
    body.scale.x = body.scale.y = DIAMETER_M
    body.scale.z = height_m
    yield body
    text = Marker(ns="persons/text", id=person.track_id, type=Marker.TEXT_VIEW_FACING, color=TEXT)
    text.pose.position = Point(x=feet.x, y=feet.y, z=feet.z + height_m + TEXT_HEIGHT_M)
    text.scale.z = TEXT_HEIGHT_M
    text.text = str(person.track_id)
    yield text
    if math.hypot(velocity.x, velocity.y) >= SLOWEST_ARROW_M_S:
        arrow = Marker(ns="persons/velocity", id=person.track_id, type=Marker.ARROW, color=ARROW)
        middle = feet.z + height_m / 2.0
        arrow.points = [
            Point(x=feet.x, y=feet.y, z=middle),
            Point(x=feet.x + ARROW_S * velocity.x, y=feet.y + ARROW_S * velocity.y, z=middle),
        ]
        arrow.scale.x, arrow.scale.y, arrow.scale.z = 0.06, 0.15, 0.2  # shaft, head, head's length
        yield arrow


def _cone(index: int, name: str, view: GroundView, color: ColorRGBA) -> Iterator[Marker]:
    """Lines from the camera to the corners of its image and between these, and its name."""
    camera, pose = view.camera, view.pose
    corners = [[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]]
    rays = camera.undistort(corners)
    at = point_from_array(pose.translation)
    if np.isfinite(rays).all():  # a lens model may not extend to the corners
        ends = pose.translation + CONE_M * rays @ pose.rotation.T
        points = [point_from_array(end) for end in ends]
        lines = Marker(ns="cameras", id=index, type=Marker.LINE_LIST, color=color)
        lines.scale.x = LINE_M
        for corner, following in zip(points, points[1:] + points[:1], strict=True):
            lines.points += [at, corner, corner, following]
        yield lines
    text = Marker(ns="cameras/text", id=index, type=Marker.TEXT_VIEW_FACING, color=color)
    text.pose.position = Point(x=at.x, y=at.y, z=at.z + TEXT_HEIGHT_M)
    text.scale.z = TEXT_HEIGHT_M
    text.text = name
    yield text


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
