# SPDX-License-Identifier: Apache-2.0
"""All cameras of a site: `ros2 launch roi_codec_ros cameras.launch.py config:=cameras.yaml`."""

from roi_codec_ros.config.ros_launch import launch_description


def generate_launch_description():
    """Arguments and nodes of cameras.launch.py."""
    return launch_description("cameras")
