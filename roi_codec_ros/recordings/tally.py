# SPDX-License-Identifier: Apache-2.0
"""What became of a recording: frames, heads and what was left out, by camera and by minute."""

from __future__ import annotations

import base64
import heapq
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Any

from roi_codec_ros.recordings.hiding import heads_of
from roi_codec_ros.recordings.pipeline import Passage

MOST_DOUBTFUL = 24  # heads of a camera that are shown
MOST_LISTED = 1000  # frames of a camera that are listed for manual review
MOST_MARKED = 24  # of them that are shown

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


@dataclass(frozen=True, order=True)
class DoubtfulHead:
    """A head that was hidden with low confidence. thumbnail: a JPEG of the output."""

    score: float
    place: str
    thumbnail: bytes = field(compare=False, repr=False, default=b"")


@dataclass(frozen=True)
class Inspection:
    """Contents of a written frame. faces: None if not searched.

    marked: a JPEG of the frame with its faces, where there are any.
    """

    faces: list[Box] | None = None
    doubtful: tuple[DoubtfulHead, ...] = ()
    marked: bytes = field(default=b"", repr=False)


@dataclass
class CameraTally:
    """The figures of one camera, film or folder."""

    name: str
    kind: str = ""
    frames: int = 0
    frames_with_heads: int = 0
    heads: int = 0
    heads_only_held: int = 0
    hidden_share_sum: float = 0.0
    left_out: int = 0
    left_out_first: str = ""
    heads_by_minute: Counter[int] = field(default_factory=Counter)
    inspected: int = 0
    frames_with_faces: int = 0
    faces: int = 0
    listed: list[str] = field(default_factory=list)
    marked: list[tuple[str, bytes]] = field(default_factory=list, repr=False)
    doubtful: list[tuple[float, DoubtfulHead]] = field(default_factory=list, repr=False)

    def add(self, passage: Passage, place: str, minute: int = 0) -> None:
        """Count a frame. place: how it is called, for people. minute: from the start."""
        if passage.output is None:
            self.leave_out(f"{place}: {passage.reason}")
            return
        assert passage.hidden is not None and passage.judged is not None
        heads = heads_of(passage.hidden, passage.judged)
        self.frames += 1
        self.frames_with_heads += bool(heads)
        self.heads += len(heads)
        self.heads_only_held += sum(head.score == 0 for head in heads)
        self.hidden_share_sum += float(passage.hidden.mean())
        self.heads_by_minute[minute] += len(heads)
        if passage.inspection is not None:
            self._look(passage.inspection, place)

    def leave_out(self, reason: str) -> None:
        """Count a frame that is not written."""
        self.left_out += 1
        self.left_out_first = self.left_out_first or reason

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        mean_hidden = self.hidden_share_sum / self.frames if self.frames else 0.0
        return {
            "name": self.name,
            "kind": self.kind,
            "frames": self.frames,
            "frames_with_heads": self.frames_with_heads,
            "heads": self.heads,
            "heads_hidden_by_frames_around_alone": self.heads_only_held,
            "hidden_share": mean_hidden,
            "frames_left_out": self.left_out,
            "frames_left_out_first": self.left_out_first or None,
            "heads_by_minute": {str(k): v for k, v in sorted(self.heads_by_minute.items())},
            "frames_inspected": self.inspected,
            "frames_with_faces_left": self.frames_with_faces,
            "faces_left": self.faces,
            "frames_to_look_at": self.listed,
        }

    def stored(self) -> dict[str, Any]:
        """All of it, for JSON; `restore` reads it."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["marked"] = [[p, base64.b64encode(m).decode("ascii")] for p, m in self.marked]
        values["doubtful"] = [
            [head.score, head.place, base64.b64encode(head.thumbnail).decode("ascii")]
            for _, head in self.doubtful
        ]
        return values

    def restore(self, stored: dict[str, Any]) -> None:
        """Continue from the stored state of an earlier run."""
        for item in fields(self):
            setattr(self, item.name, stored[item.name])
        self.heads_by_minute = Counter({int(k): v for k, v in self.heads_by_minute.items()})
        self.marked = [(place, base64.b64decode(m)) for place, m in stored["marked"]]
        heads = [DoubtfulHead(s, p, base64.b64decode(t)) for s, p, t in stored["doubtful"]]
        self.doubtful = [(-head.score, head) for head in heads]
        heapq.heapify(self.doubtful)

    def _look(self, inspection: Inspection, place: str) -> None:
        if inspection.faces is not None:
            self.inspected += 1
            self.faces += len(inspection.faces)
            self.frames_with_faces += bool(inspection.faces)
            if inspection.faces and len(self.listed) < MOST_LISTED:
                self.listed.append(place)
            if inspection.marked and len(self.marked) < MOST_MARKED:
                self.marked.append((place, inspection.marked))
        for found in inspection.doubtful:
            head = replace(found, place=place)
            entry = (-head.score, head)
            if len(self.doubtful) < MOST_DOUBTFUL:
                heapq.heappush(self.doubtful, entry)
            else:
                heapq.heappushpop(self.doubtful, entry)


@dataclass
class Result:
    """What became of a recording.

    Attributes:
        cameras: of each topic that was rewritten, a film, a folder.
        dropped: topic and why, of those that are not written.
        kept: topics that were copied although they may show persons.
        copied: messages of each other topic.
        notes: what else there is to say.
    """

    cameras: list[CameraTally] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    copied: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "cameras": [camera.figures() for camera in self.cameras],
            "dropped": self.dropped,
            "kept": self.kept,
            "copied": dict(self.copied),
            "notes": self.notes,
        }
