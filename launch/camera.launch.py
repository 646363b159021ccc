# SPDX-License-Identifier: Apache-2.0
"""One camera: `ros2 launch roi_codec_ros camera.launch.py name:=front source:=/dev/video0`."""

from roi_codec_ros.config.ros_launch import launch_description


def generate_launch_description():
    """Arguments and nodes of camera.launch.py."""
    return launch_description("camera")
