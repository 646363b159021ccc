# SPDX-License-Identifier: Apache-2.0
"""A camera pipeline that is private by construction."""

from __future__ import annotations

from pkgutil import extend_path

# The source tree and the generated messages (roi_codec_ros.msg) are two folders of one package.
__path__ = extend_path(__path__, __name__)
