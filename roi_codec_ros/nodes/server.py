# SPDX-License-Identifier: Apache-2.0
"""server_node: decoder and detector in one process, so that no image crosses DDS between them.

    <camera>/latent ─► decoder ─ image in memory ─► detector ─► <camera>/persons

Both keep their names, parameters, lifecycles and diagnostics; images are published for
subscribers. The detector only searches frames from this decoder: for bags of images and other
publishers use detector_node.
"""

from __future__ import annotations

from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.decoder import DecoderNode
from roi_codec_ros.nodes.detector import DetectorNode


def server_nodes() -> list[ManagedNode]:
    """Create the nodes; the detector first, so that it is ready for the decoder's frames."""
    detector = DetectorNode(subscribes=False)
    decoder = DecoderNode()
    decoder.hand_to(detector)
    return [detector, decoder]
