# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes, thin layers over codec and perception. The only folder that imports rclpy."""
