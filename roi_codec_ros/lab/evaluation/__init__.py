# SPDX-License-Identifier: Apache-2.0
"""What survives a codec: detection scores, distortion, bits and time."""
