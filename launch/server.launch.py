# SPDX-License-Identifier: Apache-2.0
"""The server: `ros2 launch roi_codec_ros server.launch.py cameras:=front,back`."""

from roi_codec_ros.config.ros_launch import launch_description


def generate_launch_description():
    """Arguments and nodes of server.launch.py."""
    return launch_description("server")
