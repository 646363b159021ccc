# SPDX-License-Identifier: Apache-2.0
"""From a camera to the newest frame worth coding. Needs neither ROS nor a network."""
