# SPDX-License-Identifier: Apache-2.0
"""A camera and the server on one machine: `ros2 launch roi_codec_ros demo.launch.py source:=0`."""

from roi_codec_ros.config.ros_launch import launch_description


def generate_launch_description():
    """Arguments and nodes of demo.launch.py."""
    return launch_description("demo")
