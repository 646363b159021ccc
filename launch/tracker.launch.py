# SPDX-License-Identifier: Apache-2.0
"""One map of all servers' cameras: `ros2 launch roi_codec_ros tracker.launch.py cameras:=a,b`."""

from roi_codec_ros.config.ros_launch import launch_description


def generate_launch_description():
    """Arguments and nodes of tracker.launch.py."""
    return launch_description("tracker")
