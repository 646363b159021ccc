# SPDX-License-Identifier: Apache-2.0
"""An audit from the data set to the report: of a codec, or of a regions model alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from roi_codec_ros.codec.models import Model, find_model, load_model
from roi_codec_ros.codec.policy import model_policy
from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, UsageError
from roi_codec_ros.common.graph_runtime import find_graph
from roi_codec_ros.common.machine import describe_machine, usable_cores
from roi_codec_ros.common.photographs import left_out as left_out_photographs
from roi_codec_ros.lab.datasets.annotations import Annotation, AnnotationSet
from roi_codec_ros.lab.datasets.annotations_any import choose, read_annotations, shortfall
from roi_codec_ros.lab.evaluation.methods import Method, ModelMethod
from roi_codec_ros.lab.evaluation.results import Failure
from roi_codec_ros.lab.faces.face_embedders import FaceEmbedder, make_face_embedder
from roi_codec_ros.lab.privacy.attackers import (
    ATTACKERS,
    AttackConfig,
    AttackStep,
    AttackTrainer,
    FrozenCodec,
    TrainedAttacker,
)
from roi_codec_ros.lab.privacy.audit import Audit, audit
from roi_codec_ros.lab.privacy.audit_report import audit_report
from roi_codec_ros.lab.privacy.leakage import HeadMeter
from roi_codec_ros.lab.privacy.probes import find_identities
from roi_codec_ros.lab.privacy.region_recall import RegionJudge, judge_regions
from roi_codec_ros.lab.privacy.reidentification import Reidentification, reid_report, reidentify
from roi_codec_ros.lab.privacy.versions import chosen_inversions
from roi_codec_ros.lab.training.data import CropSampler
from roi_codec_ros.perception.face_detectors import FaceDetector, make_face_detector
from roi_codec_ros.regions import load_regions

QUICK_LIMIT = 32
IDENTITY_DETECTOR = "mtcnn"
_TRAINING_BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"


@dataclass(frozen=True)
class AuditOptions:
    """What is audited, on what, with what; the names are those of the verb's options."""

    model: str
    data: str
    split: str
    detectors: str = "mtcnn,haar"
    regions: str = "regions"
    quick: bool = False
    limit: int | None = None
    inversions: str | None = None
    attack_minutes: float = 10.0
    attack_steps: int | None = None
    attack_split: str = "train"
    no_attack: bool = False
    embedder: str | None = None
    identities: int = 60
    placements: int = 5
    device: str = "cpu"
    threads: int | None = None

    @property
    def image_limit(self) -> int | None:
        """How many images; None for all."""
        return self.limit or (QUICK_LIMIT if self.quick else None)


@dataclass(eq=False)
class ModelAudit:
    """What came of it.

    report: as JSON. images: how many counted. notes: lines on data that could not be used.
    left_out: sections that are not there, and why. audit, reid: what the report's page shows of a
    codec.
    """

    report: dict[str, Any]
    annotations: AnnotationSet
    images: int
    failures: Sequence[Failure]
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    audit: Audit | None = None
    reid: Reidentification | None = None


def is_regions_model(name: str) -> bool:
    """Whether a name or file is a graph, and no codec has that name."""
    for find, answer in ((find_model, False), (find_graph, True)):
        try:
            find(name)
        except ModelFileError:
            continue
        return answer
    return False


def audit_regions(options: AuditOptions) -> ModelAudit:
    """What a regions model hides and overlooks. Raises RoiCodecError."""
    annotated = read_annotations(options.data, options.split)
    chosen = choose(annotated, all_images=True, limit=options.limit)
    judge = RegionJudge(load_regions(options.model, threads=options.threads))
    detectors = _detectors(options)
    with tqdm(total=len(chosen), unit="image", disable=None) as progress:
        result = judge_regions(chosen, judge, detectors, on_image=lambda _: progress.update())
    report = {
        "regions_model": find_graph(options.model).stem,
        "dataset": Path(options.data).resolve().name,
        "split": options.split,
        "detectors": [detector.name for detector in detectors],
        "failures": [{"image": f.image, "reason": f.reason} for f in result.failures],
        "regions": result.report(),
    }
    return ModelAudit(report, annotated, result.images, result.failures, shortfall(annotated))


def audit_model(options: AuditOptions) -> ModelAudit:
    """Everything of a codec that the options ask for. Raises RoiCodecError."""
    model = load_model(options.model)
    annotated = read_annotations(options.data, options.split)
    chosen = choose(annotated, all_images=True, limit=options.image_limit)
    torch_device(options.device)
    inversions = chosen_inversions(options.inversions)
    detectors = _detectors(options)
    left_out: dict[str, str] = {}
    recognizer = _recognizer(options, left_out)
    threads = options.threads or usable_cores()
    judge = None
    if model.codes_blocks:
        finder = load_regions(options.regions, threads=options.threads)
        judge = RegionJudge(finder, model_policy(model))
    finder_or_none = judge.finder if judge else None
    method = ModelMethod(model, device=options.device, threads=threads, regions=finder_or_none)
    meter = HeadMeter(model, device=options.device, regions=finder_or_none)
    notes: list[str] = []
    attackers, minutes = _trained_attackers(options, model, left_out, notes)
    with tqdm(total=len(chosen), unit="image", disable=None) as progress:
        result = audit(
            chosen,
            method,
            detectors,
            meter,
            attackers=attackers,
            regions=judge,
            inversions=inversions,
            quick=options.quick,
            on_image=lambda _: progress.update(),
        )
    reid = None
    if recognizer is not None:
        reid = _reidentify(options, annotated, method, *recognizer, attackers, left_out)
    report = audit_report(
        result,
        [detector.name for detector in detectors],
        attackers=attackers,
        attack_minutes=minutes,
        reid=reid_report(reid) if reid else None,
        left_out=left_out,
        model=model.name,
        model_id=model.id.hex(),
        preset=model.preset.name,
        dataset=Path(options.data).resolve().name,
        split=options.split,
        quick=options.quick,
        codes_blocks=model.codes_blocks,
        receptive_field_px=meter.receptive_field.width_px,
        machine=describe_machine(device=options.device, threads=threads),
    )
    notes.extend(shortfall(annotated))
    return ModelAudit(
        report, annotated, result.images, result.failures, notes, left_out, result, reid
    )


def _detectors(options: AuditOptions) -> list[FaceDetector]:
    names = options.detectors.split(",")
    detectors = [make_face_detector(name, device=options.device) for name in names]
    if len({detector.name for detector in detectors}) < len(detectors):
        raise UsageError(f"expected every detector once, found {options.detectors}")
    return detectors


def _recognizer(
    options: AuditOptions, left_out: dict[str, str]
) -> tuple[FaceDetector, FaceEmbedder] | None:
    """What re-identification needs; None, and the reason, where it is to be left out."""
    if options.quick or options.embedder == "none":
        left_out["reid"] = "not part of --quick" if options.quick else "--embedder none"
        return None
    try:
        embedder = make_face_embedder(options.embedder or "dlib", device=options.device)
        return make_face_detector(IDENTITY_DETECTOR, device=options.device), embedder
    except RoiCodecError as error:
        if options.embedder:
            raise
        left_out["reid"] = str(error)
        return None


def _trained_attackers(
    options: AuditOptions, model: Model, left_out: dict[str, str], notes: list[str]
) -> tuple[list[TrainedAttacker], float | None]:
    """The attackers, and the minutes that each was trained for."""
    if options.quick or options.no_attack:
        left_out["attacker"] = "not part of --quick" if options.quick else "--no-attack"
        return [], None
    if options.attack_split == options.split:
        raise UsageError(
            f"expected attackers trained on another split than the audited, found {options.split}"
        )
    config = AttackConfig(minutes=options.attack_minutes, steps=options.attack_steps)
    annotated = read_annotations(options.data, options.attack_split)
    sampler = CropSampler(annotated, config.crops)
    codec = FrozenCodec(model, options.device)
    attackers: list[TrainedAttacker] = []
    for name in ATTACKERS:
        with tqdm(
            total=1.0, desc=f"attacker {name}", bar_format=_TRAINING_BAR, disable=None
        ) as progress:

            def show(step: AttackStep, progress: tqdm[Any] = progress) -> None:
                progress.n = step.progress
                progress.set_postfix(step=step.step, loss=f"{step.loss:.4f}")

            attackers.append(AttackTrainer(name, codec, config).run(sampler, show))
    unused = [*shortfall(annotated), *left_out_photographs(sampler.left_out, len(annotated))]
    notes.extend(f"{options.attack_split}: {sentence}" for sentence in unused)
    if options.attack_steps is None:
        return attackers, options.attack_minutes
    return attackers, min(attacker.elapsed_s for attacker in attackers) / 60.0


def _reidentify(
    options: AuditOptions,
    annotated: Sequence[Annotation],
    method: Method,
    detector: FaceDetector,
    embedder: FaceEmbedder,
    attackers: Sequence[TrainedAttacker],
    left_out: dict[str, str],
) -> Reidentification | None:
    """What was measured; None, and the reason, where the images do not give enough faces."""
    with tqdm(total=len(annotated), desc="identities", unit="image", disable=None) as progress:
        identities, scenes = find_identities(
            annotated,
            detector,
            embedder,
            limit=options.identities,
            on_image=lambda _: progress.update(),
        )
    try:
        scenes_to_make = len(identities) * options.placements
        with tqdm(total=scenes_to_make, desc="probes", unit="scene", disable=None) as progress:
            return reidentify(
                identities,
                scenes,
                method,
                embedder,
                attackers=attackers,
                placements=options.placements,
                on_scene=lambda: progress.update(),
            )
    except RoiCodecError as error:
        left_out["reid"] = str(error)
        return None
