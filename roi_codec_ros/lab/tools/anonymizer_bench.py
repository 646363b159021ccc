# SPDX-License-Identifier: Apache-2.0
"""Compares `roi-codec anonymize` with another anonymizer of films, alternating in one run.

Each takes every film; a face detector that has no part in either then looks for the faces that it
found in the film before. A face is left where it is found again at its place; a track, faces of
following looks that overlap, where it is left in any look. Hidden in vain is what changed far from
all faces that the detector found.

example:
  python -m roi_codec_ros.lab.tools.anonymizer_bench faces.avi clip.mp4 \
      --rival "deface {film} -o {out}" --every 5
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.films import Film
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.evaluation.average_precision import intersection_over_union
from roi_codec_ros.perception.face_detectors import FaceDetector, make_face_detector

OURS = "{python} -m roi_codec_ros.cli anonymize {film} {out} --no-audio"
SAME_PLACE_IOU = 0.3
BLOCK_PX = 16
CHANGED = 12.0  # mean difference of a block's pixels: more than coding a film again makes
HEAD_OF_FACE = 1.0  # how far around a face its head may reach, in sides of the face

Boxes = NDArray[np.float32]


@dataclass
class Score:
    """What is left of the faces of a film, by one anonymizer. Shares are of all blocks."""

    seconds: float = 0.0
    core_seconds: float = 0.0
    frames: int = 0
    looks: int = 0
    faces: int = 0
    faces_left: int = 0
    tracks: int = 0
    tracks_left: int = 0
    hidden_share: float = 0.0
    hidden_in_vain_share: float = 0.0

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        rate = {"frames_per_second": self.frames / max(self.seconds, 1e-9)}
        core = {"core_ms_per_frame": 1000 * self.core_seconds / max(self.frames, 1)}
        return {**rate, **core, **{k: v for k, v in self.__dict__.items() if "seconds" not in k}}


def timed(command: str) -> tuple[float, float]:
    """Run a command; seconds by the clock and of all cores. Raises RoiCodecError if it fails."""
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(shlex.split(command), capture_output=True, check=False)
    after = os.times()
    if done.returncode:
        raise RoiCodecError(f"expected {command} to run; found: {done.stderr.decode()[-300:]}")
    core = after.children_user + after.children_system
    core -= before.children_user + before.children_system
    return time.perf_counter() - started, core


def score(
    film: Path, hidden: Path, detector: FaceDetector, every: int, known: list[Boxes]
) -> Score:
    """Compare a film with what was made of it; every so manyth frame is looked at.

    known: faces of the film's looks, as far as they were found before; grows.
    """
    found = Score()
    before: list[tuple[Boxes, list[bool]]] = []
    for look, (image, after) in enumerate(_looks(film, hidden, every, found)):
        if look == len(known):
            known.append(detector.detect(image).xyxy)
        faces = known[look]
        seen = detector.detect(after).xyxy
        left = (intersection_over_union(faces, seen) >= SAME_PLACE_IOU).any(axis=1)
        before.append((faces, left.tolist()))
        found.looks += 1
        found.faces += len(faces)
        found.faces_left += int(left.sum())
        changed = changed_blocks(image, after)
        found.hidden_share += float(changed.mean())
        found.hidden_in_vain_share += float((changed & ~_near(faces, changed.shape)).mean())
    found.hidden_share /= max(found.looks, 1)
    found.hidden_in_vain_share /= max(found.looks, 1)
    tracks = tracked(before)
    found.tracks, found.tracks_left = len(tracks), sum(tracks)
    return found


def _looks(
    film: Path, hidden: Path, every: int, found: Score
) -> Iterator[tuple[ImageArray, ImageArray]]:
    with Film(film) as given, Film(hidden) as made:
        for number, (old, new) in enumerate(zip_longest(given, made)):
            if old is None or new is None:
                raise RoiCodecError(f"expected as many frames in {hidden} as in {film}")
            found.frames += 1
            if number % every == 0:
                yield old.image, new.image


def tracked(looks: Sequence[tuple[Boxes, list[bool]]]) -> list[bool]:
    """Of each face that is followed from look to look by its overlap, whether it is left once."""
    tracks: list[bool] = []
    last: tuple[Boxes, list[int]] = (np.zeros((0, 4), np.float32), [])
    for faces, left in looks:
        shared = intersection_over_union(faces, last[0])
        numbers: list[int] = []
        for face, is_left in enumerate(left):
            best = int(shared[face].argmax()) if len(last[1]) else -1
            if best >= 0 and shared[face, best] >= SAME_PLACE_IOU and last[1][best] not in numbers:
                number = last[1][best]
            else:
                number = len(tracks)
                tracks.append(False)
            tracks[number] |= is_left
            numbers.append(number)
        last = (faces, numbers)
    return tracks


def changed_blocks(before: ImageArray, after: ImageArray) -> NDArray[np.bool_]:
    """Blocks of 16×16 pixels whose content is another: bool [rows, columns]."""
    difference = cv2.absdiff(before, after).astype(np.float32).mean(axis=2)
    rows, columns = (side // BLOCK_PX for side in difference.shape)
    whole = difference[: rows * BLOCK_PX, : columns * BLOCK_PX]
    blocks = whole.reshape(rows, BLOCK_PX, columns, BLOCK_PX).mean(axis=(1, 3))
    return np.asarray(blocks > CHANGED, np.bool_)


def _near(faces: Boxes, grid: tuple[int, ...]) -> NDArray[np.bool_]:
    """Blocks that a head may cover whose face is one of these."""
    near = np.zeros(grid, np.bool_)
    for x0, y0, x1, y1 in faces:
        across, down = HEAD_OF_FACE * (x1 - x0), HEAD_OF_FACE * (y1 - y0)
        rows = slice(max(0, int((y0 - down) // BLOCK_PX)), int((y1 + down) // BLOCK_PX) + 1)
        columns = slice(max(0, int((x0 - across) // BLOCK_PX)), int((x1 + across) // BLOCK_PX) + 1)
        near[rows, columns] = True
    return near


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("films", type=Path, nargs="+")
    parser.add_argument("--rival", help="its command, with {film} and {out}")
    parser.add_argument("--detector", default="mtcnn")
    parser.add_argument("--every", type=int, default=5, help="look at one of N frames")
    parser.add_argument("--rounds", type=int, default=2, help="the fastest of N counts")
    args = parser.parse_args()
    detector = make_face_detector(args.detector)
    commands = {"roi-codec": OURS} | ({"rival": args.rival} if args.rival else {})
    figures: dict[str, Any] = {}
    for film in args.films:
        with tempfile.TemporaryDirectory() as scratch:
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
            for number in range(args.rounds):
                for name, command in commands.items():
                    out = Path(scratch, f"{name}_{number}.mp4")
                    names = {"python": sys.executable, "film": film, "out": out}
                    times[name].append(timed(command.format(**names)))
            known: list[Boxes] = []
            for name, taken in times.items():
                out = Path(scratch, f"{name}_0.mp4")
                found = score(film, out, detector, args.every, known)
                found.seconds = min(clock for clock, _ in taken)
                found.core_seconds = min(core for _, core in taken)
                figures[f"{film.name}, {name}"] = found.figures()
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
