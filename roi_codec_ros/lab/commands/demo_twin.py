# SPDX-License-Identifier: Apache-2.0
"""The demo in a map: cameras of known pose, the simulated hall, and how its truth is held against.

Used by `roi-codec demo`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from roi_codec_ros.commands.common import not_negative, positive_real
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import write
from roi_codec_ros.common.share import local_path
from roi_codec_ros.lab.simulation.filmed_hall import MAX_RANGE_M, HallClock, Stage
from roi_codec_ros.perception.cameras import CameraModel, read_calibration
from roi_codec_ros.perception.ground import MAX_RANGE_M as FARTHEST_M
from roi_codec_ros.perception.ground import CameraPose
from roi_codec_ros.perception.poses import parse_camera_poses
from roi_codec_ros.perception.views import GroundView

if TYPE_CHECKING:
    from roi_codec_ros.lab.demo.ledger import DemoLedger
    from roi_codec_ros.lab.demo.outputs import Run
    from roi_codec_ros.lab.demo.twin import Twin
    from roi_codec_ros.lab.evaluation.tracking_scores import Sample

HFOV_DEG = 60.0
FACE_FRAMES = 12  # so many of a run's frames are searched for faces
_SAMPLES_HZ = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a demo in a map."""
    parser.add_argument(
        "--simulate",
        action=argparse.BooleanOptionalAction,
        help="film people who walk through a simulated hall, so that their places are known "
        "(default: with two cameras or more and without --source)",
    )
    parser.add_argument(
        "--pace",
        type=positive_real,
        default=1.0,
        metavar="X",
        help="seconds of the hall, or of a video file, in a second: below 1 for slow machines "
        "(default 1)",
    )
    parser.add_argument(
        "--seed",
        type=not_negative,
        default=0,
        metavar="N",
        help="how people walk in the hall (default 0)",
    )
    parser.add_argument(
        "--pose",
        action="append",
        default=[],
        metavar="POSE",
        help='where a camera of --source is, as "camera: x y z roll pitch yaw" (metres, radians) '
        'or "camera: pose.yaml" as calibrate-ground writes it; without a name: of all cameras',
    )
    lens = parser.add_mutually_exclusive_group()
    lens.add_argument(
        "--calibration",
        metavar="FILE",
        help="lens of --source, as the camera_calibration package writes it",
    )
    lens.add_argument(
        "--hfov",
        type=positive_real,
        metavar="DEG",
        help=f"horizontal field of view of --source, without distortion (default {HFOV_DEG:g})",
    )


@dataclass(frozen=True, eq=False)
class TwinPlan:
    """Cameras of known pose, and how the graph is told.

    poses: none for a demo without a map. stage, clock: of the simulated hall.
    """

    poses: Mapping[str, CameraPose]
    camera_parameters: dict[str, Any]
    server_parameters: dict[str, Any]
    stage: Stage | None = None
    clock: HallClock | None = None
    calibration: CameraModel | None = None
    hfov_deg: float = HFOV_DEG
    max_range_m: float = FARTHEST_M

    def filming(self, rate_hz: float) -> list[str] | None:
        """The argv of the process that films the hall; None without a hall."""
        from roi_codec_ros.lab.demo.filming import filming_command

        if self.clock is None:
            return None
        return filming_command(self.clock, list(self.poses), rate_hz)


def simulates(args: argparse.Namespace) -> bool:
    """Whether the hall is what the demo films. Raises UsageError for options that don't fit."""
    chosen = args.simulate
    if chosen is None:
        chosen = args.source is None and args.cameras > 1 and not args.pose
    if chosen and args.source is not None:
        raise UsageError(f"expected --simulate or --source, found both ({args.source})")
    if args.source is None and (args.pose or args.calibration or args.hfov):
        raise UsageError("expected --pose, --calibration and --hfov with --source, found none")
    if not args.pose and (args.calibration or args.hfov):
        raise UsageError("expected --pose with --calibration or --hfov, found none")
    return bool(chosen)


def plan_twin(args: argparse.Namespace, names: Sequence[str]) -> TwinPlan:
    """What the options say of a map. Raises RoiCodecError."""
    if simulates(args):
        return _plan_hall(args, names)
    if not args.pose:
        return TwinPlan({}, {}, {})
    entries = [
        entry
        for text in args.pose
        for entry in ([text] if ":" in text else [f"{name}: {text}" for name in names])
    ]
    poses = parse_camera_poses(entries)
    if unknown := sorted(set(poses) - set(names)):
        raise UsageError(
            f"--pose: expected cameras among {', '.join(names)}, found {', '.join(unknown)}"
        )
    plan = TwinPlan(poses, {}, {"camera_poses": _entries(poses)})
    if args.calibration:
        path = local_path(args.calibration).resolve()
        return replace(
            plan,
            calibration=read_calibration(path).camera,
            camera_parameters={"camera_info_file": str(path)},
        )
    hfov_deg = args.hfov or HFOV_DEG
    CameraModel.from_hfov(4, 3, hfov_deg)  # refuses what can not be
    server = {**plan.server_parameters, "assumed_hfov_deg": hfov_deg}
    return replace(plan, hfov_deg=hfov_deg, server_parameters=server)


def _plan_hall(args: argparse.Namespace, names: Sequence[str]) -> TwinPlan:
    stage = Stage(names, seed=args.seed)
    stage.film(names[0], 0.0)  # says now what the process that films would say later
    calibration = args.out / ".source" / "hall.yaml"
    write(calibration, calibration_yaml(stage.lens).encode())
    return TwinPlan(
        stage.poses,
        # The hall is filmed at the rate that was asked for.
        {"camera_info_file": str(calibration.resolve()), "rate_hz": 0.0},
        {"camera_poses": _entries(stage.poses), "max_range_m": MAX_RANGE_M},
        stage,
        HallClock(args.seed, time.time_ns(), args.pace),
        stage.lens,
        max_range_m=MAX_RANGE_M,
    )


def _entries(poses: Mapping[str, CameraPose]) -> list[str]:
    return [
        f"{name}: {' '.join(f'{number:.9g}' for number in pose.to_xyz_rpy())}"
        for name, pose in poses.items()
    ]


def calibration_yaml(lens: CameraModel) -> str:
    """A lens as the camera_calibration package writes it."""
    matrix = lens.matrix.ravel().tolist()
    return yaml.safe_dump(
        {
            "image_width": lens.width,
            "image_height": lens.height,
            "camera_matrix": {"rows": 3, "cols": 3, "data": matrix},
            "distortion_model": lens.distortion_model,
            "distortion_coefficients": {
                "rows": 1,
                "cols": len(lens.distortion),
                "data": list(lens.distortion),
            },
        },
        sort_keys=False,
    )


# ---------------------------------------------------------------------------------------- results


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
    from roi_codec_ros.lab.faces.face_detectors import make_face_detector

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
