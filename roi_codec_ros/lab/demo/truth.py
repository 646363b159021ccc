# SPDX-License-Identifier: Apache-2.0
"""The result of a demo in a map: the run with its map, and how it compares with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.demo.twin_plan import TwinPlan
from roi_codec_ros.lab.simulation.filmed_hall import HallClock, Stage
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.views import GroundView

if TYPE_CHECKING:
    from roi_codec_ros.lab.demo.ledger import DemoLedger
    from roi_codec_ros.lab.demo.outputs import Run
    from roi_codec_ros.lab.demo.twin import Twin
    from roi_codec_ros.lab.evaluation.tracking_scores import Sample

FACE_FRAMES = 12  # number of a run's frames that are searched for faces
_SAMPLES_HZ = 10.0


def with_twin(run: Run, plan: TwinPlan, ledger: DemoLedger) -> Run:
    """The run with its map, where cameras have a pose and gave pictures."""
    from roi_codec_ros.lab.demo.twin import Twin

    cameras = [name for name in run.cameras if name in plan.poses]
    if not cameras:
        return run
    moments, watched = ledger.map_moments()
    views = {name: _view(plan, name, run) for name in cameras}
    twin = Twin(views, moments, watched)
    stage, clock = plan.stage, plan.clock
    if stage is None or clock is None:
        return replace(run, twin=twin)
    return replace(
        run,
        twin=replace(
            twin, truth=lambda stamp_ns: stage.at(clock.seconds(stamp_ns)), floor=stage.floor
        ),
        stamped_frames={
            name: lambda stamp_ns, name=name: stage.film(name, clock.seconds(stamp_ns))
            for name in cameras
        },
    )


def _view(plan: TwinPlan, name: str, run: Run) -> GroundView:
    height, width = run.moments[name][0].facts.original_size
    lens = plan.calibration or CameraModel.from_hfov(width, height, plan.hfov_deg)
    return GroundView(lens.for_image(width, height), plan.poses[name], plan.max_range_m)


def with_truth(run: Run, plan: TwinPlan) -> tuple[Run, dict[str, Any]]:
    """The run with its scores, and these as they stand in the report: "twin" and "faces".

    Nothing is added for a run without a known truth.
    """
    if run.twin is None or plan.stage is None or plan.clock is None:
        return run, {}
    scored = _scored(run.twin, plan.stage, plan.clock)
    faces = count_faces(run)
    figures = []
    error_m = scored["position_error_m"]["p50"]
    if error_m is not None:
        figures.append((f"{100 * error_m:.0f} cm", "off the true place (median)"))
    figures.append((f"{scored['persons_found']} of {scored['persons']}", "people followed"))
    if faces["camera"]:
        figures.append((f"{faces['anonymized']} of {faces['camera']}", "faces left"))
    run = replace(run, twin=replace(run.twin, figures=figures))
    return run, {"twin": {"pace": plan.clock.pace, **scored}, "faces": faces}


def _scored(twin: Twin, stage: Stage, clock: HallClock) -> dict[str, Any]:
    """How well the tracks followed those whom a camera's image showed."""
    from roi_codec_ros.lab.evaluation.tracking_scores import score

    try:
        scores = score(_samples(twin, stage, clock))
    except RoiCodecError as error:  # without motmetrics, or without a single track
        return {**dict.fromkeys(_SCORES), **_NOBODY, "note": str(error)}
    return {
        "persons": scores.persons,
        "persons_found": scores.persons_found,
        "position_error_m": {
            "p50": scores.position_error_p50_m,
            "p95": scores.position_error_p95_m,
        },
        "idf1": scores.idf1,
        "mota": scores.mota,
        "false_tracks": scores.false_tracks,
        "identity_switches": scores.switches,
    }


_SCORES = ("idf1", "mota", "false_tracks", "identity_switches")
_NOBODY = {"persons": 0, "persons_found": 0, "position_error_m": {"p50": None, "p95": None}}


def _samples(twin: Twin, stage: Stage, clock: HallClock) -> list[Sample]:
    """Truth and tracks under the stamps of the tracks, at most _SAMPLES_HZ of them a second."""
    from roi_codec_ros.lab.evaluation.tracking_scores import Sample

    samples: list[Sample] = []
    for moment in twin.moments:
        at_s = moment.stamp_ns / 1e9
        if samples and at_s - samples[-1].stamp < 0.99 / _SAMPLES_HZ:
            continue
        ids, xy = stage.in_view(clock.seconds(moment.stamp_ns))
        places = [person.position for person in moment.persons]
        numbers = [person.track_id for person in moment.persons]
        samples.append(
            Sample(
                at_s,
                ids,
                xy,
                np.array(numbers, np.int64),
                np.array(places, np.float64).reshape(-1, 2),
            )
        )
    return samples


def count_faces(run: Run) -> dict[str, Any]:
    """Faces that a detector finds in some of the run's frames, as filmed and as decoded.

    By MTCNN where facenet-pytorch is installed, else by OpenCV's Haar cascade.
    """
    from roi_codec_ros.lab.demo.moments import spread
    from roi_codec_ros.lab.demo.outputs import raw_picture
    from roi_codec_ros.perception.face_detectors import make_face_detector

    try:
        detector = make_face_detector("mtcnn")
    except RoiCodecError:
        detector = make_face_detector("haar")
    frames = filmed = decoded = 0
    each = max(FACE_FRAMES // max(len(run.cameras), 1), 1)
    for camera in run.cameras:
        for moment in spread(run.moments[camera], each):
            raw = raw_picture(run, camera, moment)
            if raw is not None:
                frames += 1
                filmed += len(detector.detect(raw).score)
                decoded += len(detector.detect(moment.image()).score)
    return {
        "detector": detector.name,
        "frames": frames,
        "camera": filmed,
        "anonymized": decoded,
    }


def truth_lines(content: Mapping[str, Any]) -> list[str]:
    """The comparison with the truth for the terminal; nothing without one."""
    if "twin" not in content:
        return []
    twin, faces = content["twin"], content["faces"]
    if "note" in twin:
        return [f"tracks not compared with the truth: {twin['note']}"]
    error_m = twin["position_error_m"]["p50"]
    off = "none matched" if error_m is None else f"{error_m:.2f} m off in the median"
    return [
        f"truth: {twin['persons_found']} of {twin['persons']} people followed, {off}, "
        f"IDF1 {twin['idf1']:.2f}, MOTA {twin['mota']:.2f}, {twin['false_tracks']} false tracks",
        f"faces that {faces['detector']} finds in {faces['frames']} frames: "
        f"{faces['camera']} as filmed, {faces['anonymized']} anonymized",
    ]
