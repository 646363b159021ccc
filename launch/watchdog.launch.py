# SPDX-License-Identifier: Apache-2.0
"""What stops a robot when its cameras fail: `ros2 launch roi_codec_ros watchdog.launch.py`."""

from roi_codec_ros.config.ros_launch import launch_description


def generate_launch_description():
    """Arguments and nodes of watchdog.launch.py."""
    return launch_description("watchdog")
