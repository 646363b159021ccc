# SPDX-License-Identifier: Apache-2.0
"""Tracks in the map as messages."""

from __future__ import annotations

import math

from geometry_msgs.msg import Pose, PoseArray, Quaternion
from std_msgs.msg import Header

from roi_codec_ros.msg import Person, PersonArray
from roi_codec_ros.perception.tracking import Tracks

SLOWEST_HEADING_M_S = 0.2  # below it a velocity says nothing about where someone looks


def persons_from_tracks(tracks: Tracks, header: Header) -> PersonArray:
    """Boxes and scores belong to single cameras: they are 0 here, as is the image size."""
    message = PersonArray(header=header)
    for row in range(len(tracks)):
        person = Person(track_id=int(tracks.id[row]), position_valid=True)
        person.position.x, person.position.y = tracks.xy[row].tolist()
        person.position_covariance = tracks.covariance[row].ravel()
        person.velocity.x, person.velocity.y = tracks.velocity[row].tolist()
        person.cameras = list(tracks.cameras[row])
        message.persons.append(person)
    return message


def poses_from_persons(persons: PersonArray) -> PoseArray:
    """Poses on the ground; those who walk look ahead, all others along the map's x."""
    return PoseArray(
        header=persons.header,
        poses=[
            Pose(position=person.position, orientation=heading(person))
            for person in persons.persons
        ],
    )


def heading(person: Person) -> Quaternion:
    """A turn about z into the direction of the velocity; none for who hardly moves."""
    x, y = person.velocity.x, person.velocity.y
    yaw = math.atan2(y, x) if math.hypot(x, y) >= SLOWEST_HEADING_M_S else 0.0
    return Quaternion(x=0.0, y=0.0, z=math.sin(yaw / 2.0), w=math.cos(yaw / 2.0))
