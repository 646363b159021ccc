# SPDX-License-Identifier: Apache-2.0
"""server_node: decoder and detector in one process, so that no image crosses DDS between them.

    <camera>/latent ─► decoder ─ image in memory ─► detector ─► <camera>/persons

Both are the nodes that they are alone, with their names, parameters, lifecycles and diagnostics;
images are published to whoever subscribes. The detector looks at what this decoder hands it only:
for bags of images, and other publishers, there is detector_node.
"""

from __future__ import annotations

from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.decoder import DecoderNode
from roi_codec_ros.nodes.detector import DetectorNode


def server_nodes() -> list[ManagedNode]:
    """The detector first: when frames come, somebody is there to take them."""
    detector = DetectorNode(subscribes=False)
    decoder = DecoderNode()
    decoder.hand_to(detector)
    return [detector, decoder]
