# SPDX-License-Identifier: Apache-2.0
"""Re-identification: can a face recognizer still name faces that went through the codec?

```
  originals ─► large, clear faces = identities ─┬────────────────────────────► gallery embeddings
                                                └► mirrored, brighter or darker,      │
  other scenes ◄── pasted, 32 to 96 px ◄────────── scaled: probes                     │ nearest?
       └► nothing, JPEG, codec, negative, attackers ─► embeddings at the paste ───────┘
```
Each identity has one picture only, from which gallery and probes are both made: the easiest probe
there can be. What is measured is whether any signal of identity survives, not how well strangers'
later photographs would be matched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import failure_reason
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.methods import Method
from roi_codec_ros.lab.evaluation.results import Failure
from roi_codec_ros.lab.faces.face_embedders import FaceEmbedder
from roi_codec_ros.lab.privacy.audit import ShownHead
from roi_codec_ros.lab.privacy.probes import (
    FACE_SIZE_PX,
    PATCH_MARGIN,
    Identity,
    Probe,
    paste_probes,
)
from roi_codec_ros.lab.privacy.versions import Attacker, make_versions, negated

PROBE_SIZES_PX = (96, 64, 48, 32)  # the largest is placed first, while there is room
FAR = 1e-3
SHOWN_SIZES = 2
SHOWN_PROBES = 8


@dataclass(eq=False)
class Reidentification:
    """What was measured.

    distances[source]: one row a probe, its distance to each identity of the gallery.
    shown: the first large probes, as they look in each source.
    """

    embedder: str
    identities: Sequence[Identity]
    probes: list[Probe] = field(default_factory=list)
    distances: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    shown: list[ShownHead] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def reidentify(
    identities: Sequence[Identity],
    scenes: Sequence[Annotation],
    method: Method,
    embedder: FaceEmbedder,
    *,
    attackers: Sequence[Attacker] = (),
    placements: int = 1,
    seed: int = 1,
    on_scene: Callable[[], None] | None = None,
) -> Reidentification:
    """Paste every identity at every size into scenes, and run recognition on the result.

    placements: how often; each time elsewhere, in another scene as far as there are enough. As
    many scenes as identities, each with one face of every size, of different identities.
    Raises RoiCodecError where there is nobody to tell apart, no scene, or no probe that worked.
    """
    if len(identities) < 2 or not scenes:
        raise RoiCodecError(
            f"expected two clear faces or more of {FACE_SIZE_PX:.0f} px and a scene without any, "
            f"found {len(identities)} faces and {len(scenes)} scenes"
        )
    result = Reidentification(embedder.name, identities)
    gallery = np.stack([identity.embedding for identity in identities])
    order = np.random.default_rng(seed).permutation(len(scenes))
    for number in range(len(identities) * placements):
        scene = scenes[order[number % len(scenes)]]
        rng = np.random.default_rng((seed, number))
        wanted = [
            ((number + shift) % len(identities), size_px)
            for shift, size_px in enumerate(PROBE_SIZES_PX)
        ]
        try:
            image, probes = paste_probes(read_annotated(scene), identities, wanted, rng)
            made = make_versions(image, method, attackers).pictures
            attacked = [source for source in made if source.startswith("attacker_")]
            pictures = {
                **{source: made[source] for source in made if source not in attacked},
                "negated": negated(made["decoded"]),
                **{source: made[source] for source in attacked},
            }
            rows = {
                source: [
                    np.linalg.norm(gallery - embedder.embed(picture, probe.face), axis=1)
                    for probe in probes
                ]
                for source, picture in pictures.items()
            }
        except Exception as error:  # noqa: BLE001  # as in the audit: named, and left out
            result.failures.append(Failure(scene.image_id, failure_reason(error)))
        else:
            result.probes += probes
            result.shown += [_shown(probe, pictures) for probe in probes[:SHOWN_SIZES]]
            del result.shown[SHOWN_PROBES:]
            for source, distances in rows.items():
                result.distances.setdefault(source, []).extend(distances)
        if on_scene is not None:
            on_scene()
    if not result.probes:
        first = f"; the first failure is {result.failures[0]}" if result.failures else ""
        raise RoiCodecError(f"expected faces pasted into scenes, found no room for any{first}")
    return result


def _shown(probe: Probe, pictures: dict[str, ImageArray]) -> ShownHead:
    margin = (probe.face[2:] - probe.face[:2]) * PATCH_MARGIN
    left, top = np.maximum(probe.face[:2] - margin, 0).astype(int)
    right, bottom = (probe.face[2:] + margin).astype(int)
    crops = {name: picture[top:bottom, left:right].copy() for name, picture in pictures.items()}
    return ShownHead(probe.size_px, crops)


def rank1_hits(distances: NDArray[np.floating], truth: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which probes are nearer to their own identity than to any other; ties are no hits.

    distances: [P, I] of probes to identities; truth: [P], index of each probe's own identity.
    """
    rows = np.arange(len(truth))
    others = distances.astype(np.float64)
    others[rows, truth] = np.inf
    return np.asarray(distances[rows, truth] < others.min(axis=1))


def accepted_at_far(
    distances: NDArray[np.floating], truth: NDArray[np.integer], far: float = FAR
) -> NDArray[np.bool_]:
    """Which probes are accepted as their own identity at a rate of false accepts of `far` or less.

    The threshold is the largest at which ⌊far · pairs⌋ or fewer of all pairs of a probe and
    another's gallery picture are nearer than it; with less than 1 / far pairs, none is.
    """
    rows = np.arange(len(truth))
    impostor = np.ones(distances.shape, dtype=bool)
    impostor[rows, truth] = False
    impostors = np.sort(distances[impostor])
    allowed = int(far * len(impostors) + 1e-9)
    threshold = impostors[min(allowed, len(impostors) - 1)]
    return np.asarray(distances[rows, truth] < threshold)


def reid_report(result: Reidentification) -> dict[str, Any]:
    """Counts of probes, by source and by size of the pasted face; `chance` is the rank-1 of one
    who guesses, in probes."""
    truth = np.array([probe.identity for probe in result.probes])
    sizes = np.array([probe.size_px for probe in result.probes])
    people = len(result.identities)
    hits = {}
    for source, rows in result.distances.items():
        distances = np.stack(rows)
        hits[source] = {
            "rank1": rank1_hits(distances, truth),
            "tar_at_far_1e3": accepted_at_far(distances, truth),
        }
    by_size = {}
    for size in sorted(set(sizes.tolist())):
        of_size = sizes == size
        by_size[str(size)] = {
            "probes": int(of_size.sum()),
            "chance": float(of_size.sum() / people),
            **{
                source: {name: int(hit[of_size].sum()) for name, hit in both.items()}
                for source, both in hits.items()
            },
        }
    return {
        "embedder": result.embedder,
        "identities": people,
        "probes": len(truth),
        "impostor_pairs": len(truth) * (people - 1),
        "chance": len(truth) / people,
        **{
            source: {name: int(hit.sum()) for name, hit in both.items()}
            for source, both in hits.items()
        },
        "by_size": by_size,
        "failures": [{"image": f.image, "reason": f.reason} for f in result.failures],
    }
