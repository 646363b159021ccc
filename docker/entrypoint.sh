#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sources ROS 2 and this package, then runs what it was given.
set -eo pipefail
# shellcheck disable=SC1090,SC1091  # made by the image
source "/opt/ros/$ROS_DISTRO/setup.bash"
if [ -f /ws/src/roi_codec_ros/.venv/env.sh ]; then # the development image
  # shellcheck disable=SC1091
  source /ws/src/roi_codec_ros/.venv/env.sh
else
  # shellcheck disable=SC1091
  source /ws/install/setup.bash
  export PATH="/ws/venv/bin:$PATH"
fi
exec "$@"
