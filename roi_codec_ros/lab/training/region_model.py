# SPDX-License-Identifier: Apache-2.0
"""From a trained regions network to its file: graphs, thresholds, card."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.onnx_builder import require_onnx
from roi_codec_ros.common.onnx_int8 import WHOLE_NETWORK, quantise
from roi_codec_ros.lab.training.region_labels import RegionLabels
from roi_codec_ros.regions import RegionFinder, Regions, Thresholds, hidden_blocks
from roi_codec_ros.regions.blocks import covered_share, touched_blocks
from roi_codec_ros.regions.finder import METADATA_KEY, halved, open_regions
from roi_codec_ros.regions.graph import FACES_KEY, build_graph, trained_weights, yunet_weights

# Of the heads on photographs held out, with a face or without, at least so many are hidden. That
# of faces is not chosen: below it YuNet hides collars and signs.
WANTED_RECALL = 0.95
HEAD_CANDIDATES = (0.98, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
# A head counts as hidden where this share of its inner part is: of what tells who somebody is.
HIDDEN_SHARE, MARGIN = 0.8, 0.2


def region_files(
    arrays: Mapping[str, np.ndarray], card: Mapping[str, Any], images: Sequence[np.ndarray]
) -> dict[str, bytes]:
    """The files ``regions`` (float32) and ``regions-int8``.

    Args:
        arrays: weights by name, ``map.…`` and ``face.…``.
        card: what their metadata say.
        images: uint8 [H, W, 3], to calibrate the integers on.
    """
    metadata = {METADATA_KEY: json.dumps(card, sort_keys=True)}
    wide = build_graph(arrays, metadata, half=False)
    return {
        "regions": build_graph(arrays, metadata).SerializeToString(),
        "regions-int8": quantise(
            wide,
            map(halved, images),
            operators=WHOLE_NETWORK,
            keep_last=False,
            cut_off=False,
        ).SerializeToString(),
    }


def face_arrays(path: Path) -> dict[str, np.ndarray]:
    """YuNet's weights of its published ONNX file. Raises RoiCodecError for another file."""
    try:
        return yunet_weights(path.read_bytes())
    except Exception as error:  # onnx raises what protobuf raises
        raise RoiCodecError(
            f"expected YuNet's ONNX file at {path}, found: {reason_of(error, most=200)}"
        ) from error


def stored_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The weights of a file that `build_graph` made, by name, to start a training from.

    Raises KeyError for another file.
    """
    onnx = require_onnx()
    model = onnx.load_from_string(content)
    texts = {item.key: item.value for item in model.metadata_props}
    faces = onnx.load_from_string(base64.b64decode(texts.get(FACES_KEY, "")))
    stored = {
        item.name: onnx.numpy_helper.to_array(item).astype(np.float32)
        for graph in (model.graph, faces.graph)
        for item in graph.initializer
        if item.name.startswith(("map.", "face."))
    }
    return trained_weights(stored)


def with_thresholds(content: bytes, thresholds: Thresholds, **entries: Any) -> bytes:
    """The file with these thresholds, and further entries, in its card."""
    onnx = require_onnx()
    model = onnx.load_from_string(content)
    for item in model.metadata_props:
        if item.key == METADATA_KEY:
            card = {**json.loads(item.value), "thresholds": asdict(thresholds), **entries}
            item.value = json.dumps(card, sort_keys=True)
    return model.SerializeToString()


def open_finder(content: bytes, where: str) -> RegionFinder:
    """A finder of a file's content, by onnxruntime on one thread."""
    return open_regions(content, where=where, threads=1)


def choose_thresholds(
    found: Sequence[Regions],
    labels: Sequence[RegionLabels],
    wanted_recall: float = WANTED_RECALL,
) -> tuple[Thresholds, dict[str, float]]:
    """The head threshold with the fewest false positives among those with enough recall.

    Args:
        found: of photographs that were not trained on, with faces down to the lowest candidate.
        labels: theirs.

    Returns:
        The thresholds, and on these photographs: ``recall`` of heads, and ``in_vain``, the share
        of blocks hidden where no head is.
    """
    best: tuple[float, float, Thresholds] | None = None
    for head in HEAD_CANDIDATES:
        doubtful = min(head, Thresholds.doubtful_head)
        tried = replace(Thresholds(), head=head, doubtful_head=doubtful)
        recall, in_vain = hidden_heads(found, labels, tried)
        # Below the wanted recall the best recall counts; above it, the fewest false positives.
        key = (-min(recall, wanted_recall), in_vain)
        if best is None or key < best[:2]:
            best = (*key, tried)
    if best is None:
        raise RoiCodecError("expected photographs to choose thresholds on, found none")
    recall, in_vain = hidden_heads(found, labels, best[2])
    return best[2], {"recall": recall, "in_vain": in_vain}


def hidden_heads(
    found: Iterable[Regions], labels: Iterable[RegionLabels], thresholds: Thresholds
) -> tuple[float, float]:
    """Share of sure heads that are hidden, and of all blocks that are hidden where none is."""
    heads = hidden_count = blocks = in_vain = 0
    for regions, label in zip(found, labels, strict=True):
        hidden = hidden_blocks(regions, thresholds)
        rows, columns = hidden.shape
        sure = label.heads[label.heads[:, 4] >= 1.0, :4]
        for box in grown(sure, -MARGIN):
            heads += 1
            hidden_count += share_in(box, hidden) >= HIDDEN_SHARE
        around = touched_blocks(grown(label.heads[:, :4]), rows, columns)
        unknown = touched_blocks(label.unknown, rows, columns)
        in_vain += int((hidden & ~around & ~unknown).sum())
        blocks += hidden.size
    return hidden_count / max(heads, 1), in_vain / max(blocks, 1)


def grown(boxes: np.ndarray, share: float = 0.15) -> np.ndarray:
    """Boxes [N, 4] of which every side lies further out by a share of their extent."""
    extent = np.tile(boxes[:, 2:] - boxes[:, :2], 2) * [-share, -share, share, share]
    return np.asarray(boxes + extent, np.float32)


def share_in(box: np.ndarray, blocks: np.ndarray) -> float:
    """Share of a box (of what of it lies in the picture) that lies in blocks, bool [h, w]."""
    share = covered_share(box, *blocks.shape)
    total = float(share.sum())
    return float((share * blocks).sum()) / total if total else 0.0
