# SPDX-License-Identifier: Apache-2.0
"""The xacro macro of a camera: its optical frame is the one that poses of cameras are of."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from roi_codec_ros.perception.ground import CameraPose

MACRO = Path(__file__).resolve().parents[1] / "urdf" / "camera.urdf.xacro"
XACRO = "{http://www.ros.org/wiki/xacro}"
NUMBERS = (0.3, -0.1, 1.2, 0.1, 0.4, -0.7)


def turn(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """URDF's: about the fixed axes x, y, z in this order."""
    about = []
    for axis, angle in enumerate((roll, pitch, yaw)):
        matrix = np.eye(3)
        j, k = (axis + 1) % 3, (axis + 2) % 3
        matrix[j, j] = matrix[k, k] = math.cos(angle)
        matrix[k, j], matrix[j, k] = math.sin(angle), -math.sin(angle)
        about.append(matrix)
    return about[2] @ about[1] @ about[0]


def expanded_by_hand(name: str, parent: str) -> ElementTree.Element:
    """The macro as xacro expands it, as far as it goes: it holds names, pi and one block."""
    text = MACRO.read_text(encoding="utf-8")
    for term, value in (("name", name), ("parent", parent), ("-pi / 2", repr(-math.pi / 2))):
        text = text.replace("${" + term + "}", value)
    macro = ElementTree.fromstring(text).find(f"{XACRO}macro")
    assert macro.get("params").split() == ["name", "parent", "*origin"]
    x, y, z, *angles = map(str, NUMBERS)
    for element in macro.iter(f"{XACRO}insert_block"):
        assert element.attrib.pop("name") == "origin"
        element.tag = "origin"
        element.set("xyz", f"{x} {y} {z}")
        element.set("rpy", " ".join(angles))
    return macro


def expanded_by_xacro(name: str, parent: str, folder: Path) -> ElementTree.Element:
    xacro = pytest.importorskip("xacro")
    x, y, z, *angles = map(str, NUMBERS)
    robot = folder / "robot.urdf.xacro"
    robot.write_text(
        '<robot name="r" xmlns:xacro="http://www.ros.org/wiki/xacro">'
        f'<xacro:include filename="{MACRO}"/><link name="{parent}"/>'
        f'<xacro:roi_codec_camera name="{name}" parent="{parent}">'
        f'<origin xyz="{x} {y} {z}" rpy="{" ".join(angles)}"/></xacro:roi_codec_camera></robot>',
        encoding="utf-8",
    )
    return ElementTree.fromstring(xacro.process_file(str(robot)).toxml())


@pytest.mark.parametrize("by", ["hand", "xacro"])
def test_the_optical_frame_is_where_the_same_numbers_put_a_camera(by, tmp_path):
    if by == "hand":
        robot = expanded_by_hand("front", "base_link")
    else:
        robot = expanded_by_xacro("front", "base_link", tmp_path)
    joints = {joint.find("child").get("link"): joint for joint in robot.iter("joint")}

    rotation, at, link = np.eye(3), np.zeros(3), "front_optical_frame"
    while link in joints:
        origin = joints[link].find("origin")
        turned = turn(*map(float, origin.get("rpy").split()))
        moved = np.array(list(map(float, origin.get("xyz").split())))
        rotation, at = turned @ rotation, moved + turned @ at
        link = joints[link].find("parent").get("link")

    pose = CameraPose.from_xyz_rpy(*NUMBERS)
    assert link == "base_link"
    assert rotation == pytest.approx(pose.rotation, abs=1e-9)
    assert at == pytest.approx(pose.translation)
