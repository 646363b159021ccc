# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes: thin over codec and perception, and the only folder that imports rclpy."""
