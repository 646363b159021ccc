# SPDX-License-Identifier: Apache-2.0
"""What an evaluation is run with, as plain data that another process builds the same bench of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from roi_codec_ros.codec.models import load_model
from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.graph_runtime import find_graph
from roi_codec_ros.common.machine import describe_machine
from roi_codec_ros.lab.evaluation.annotated_regions import AnnotatedRegions
from roi_codec_ros.lab.evaluation.baselines import parse_baselines
from roi_codec_ros.lab.evaluation.cache import file_digest
from roi_codec_ros.lab.evaluation.judges import Judges
from roi_codec_ros.lab.evaluation.measurement import Bench
from roi_codec_ros.lab.evaluation.methods import Method, ModelMethod
from roi_codec_ros.lab.evaluation.results import EvaluationSettings
from roi_codec_ros.perception.person_finder import PersonFinder
from roi_codec_ros.regions import DEFAULT_REGIONS


@dataclass(frozen=True)
class Setup:
    """Codecs, detectors and settings.

    models: names or files. baselines: specifications such as `jpeg:1,5`. model_devices: each model
    is measured on each of them. qualities: each model is measured at each of them. annotated:
    heads, persons or both; each model is measured with each of these boxes annotated, too.
    """

    judges: Judges
    models: tuple[str, ...]
    baselines: tuple[str, ...]
    model_devices: tuple[str, ...]
    settings: EvaluationSettings
    qualities: tuple[float, ...]
    annotated: tuple[str, ...] = ()

    def bench(self) -> Bench:
        """Load everything. Raises RoiCodecError for anything that is missing."""
        judges, threads = self.judges, self.judges.threads or 1
        baselines = parse_baselines(self.baselines, threads=threads)
        models = [load_model(name) for name in self.models]
        for what, given in (
            ("model", [model.id for model in models]),
            ("device of the models", list(self.model_devices)),
            ("quality", list(self.qualities)),
            ("kind of annotated regions", list(self.annotated)),
        ):
            if len(set(given)) < len(given):  # type: ignore[arg-type]
                named = " ".join(self.models if what == "model" else map(str, given))
                raise UsageError(f"expected every {what} once, found {named}")
        for device in {judges.device, *self.model_devices}:
            torch_device(device)
        detector, face_detector = judges.open()
        _set_threads(threads, detector)
        methods: list[Method] = []
        for model, device, quality in product(models, self.model_devices, self.qualities):
            options: dict[str, Any] = {
                "quality": quality,
                "device": device,
                "threads": threads,
                "backend": judges.server_backend,
            }
            methods.append(ModelMethod(model, **options))
            methods += [AnnotatedRegions(model, told, **options) for told in self.annotated]
        return Bench([*methods, *baselines], detector, face_detector, self.settings)

    def context(self) -> dict[str, Any]:
        """All that a result depends on, besides the image and its row; JSON types only."""
        judges = self.judges
        name, _, path = judges.face_detector.partition("=")
        return {
            "detector": file_digest(judges.detector),
            "detector_size": judges.detector_size,
            "face_detector": [name, file_digest(path) if path and Path(path).is_file() else path],
            "regions": file_digest(find_graph(DEFAULT_REGIONS)),
            "device": judges.device,
            "server_backend": judges.server_backend,
            "settings": asdict(self.settings),
            "machine": describe_machine(device=judges.device, threads=judges.threads),
        }


def _set_threads(threads: int, detector: PersonFinder) -> None:
    import torch

    # ultralytics sets torch's threads to its own taste when it first predicts.
    detector.detect(np.zeros((32, 32, 3), np.uint8))
    torch.set_num_threads(threads)
