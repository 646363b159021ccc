# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a YOLOv8 person detector on images that a codec decoded.

ultralytics' trainer does the work, offline; `detector_run` is what we change of it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import GENERATOR
from roi_codec_ros.lab.training.detector_run import FineTuned, FineTuning, Run, Step, trainer_class
from roi_codec_ros.perception.person_detector import PERSON_CLASS, load_network

LICENCE = (
    "AGPL-3.0: made with ultralytics from its weights; not under the Apache-2.0 licence of this "
    "package. Who passes them on, or lets others use them over a network, should read it."
)
NO_END = 1_000_000  # epochs, where minutes are the budget

# Gentle: the artefacts of a codec have a size in pixels that should stay what it is.
AUGMENTATION = {
    "mosaic": 0.0,
    "close_mosaic": 0,
    "scale": 0.25,
    "translate": 0.1,
    "fliplr": 0.5,
    "hsv_h": 0.01,
    "hsv_s": 0.3,
    "hsv_v": 0.2,
}


def fine_tune(
    weights: Path,
    data: Path,
    config: FineTuning,
    folder: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    resume: bool = False,
    identity: str = "",
    on_step: Callable[[Step], None] = lambda step: None,
) -> FineTuned:
    """Fine-tune ``weights`` on a YOLO data set (``data``: its `data.yaml`) of the class person.

    folder: where checkpoints go, one an epoch. identity: what else a run depends on (its images,
    the weights it started from), in one string. resume: go on from the checkpoint in ``folder`` if
    there is one. threads: of torch, None leaves its choice.
    Raises RoiCodecError for weights or a device that can not be used, a checkpoint of another run,
    a loss that is not finite, and whatever ultralytics raises, in one line.
    """
    place = torch_device(device)
    run = Run(config, folder, identity, place, threads, on_step)
    going_on = resume and run.restore()
    network = load_network(run.checkpoint if going_on else weights)
    if run.finished:
        return run.result(network.model)
    settings: dict[str, Any] = {
        "data": str(data),
        "epochs": config.epochs or NO_END,
        "imgsz": config.image_size,
        "batch": config.batch_size,
        "nbs": config.batch_size,  # a step for each batch
        "device": str(place.index or 0) if place.type == "cuda" else device,
        "optimizer": "AdamW",
        "lr0": config.learning_rate,
        "weight_decay": 5e-4,
        "warmup_epochs": 0,
        "freeze": config.freeze or None,
        "seed": config.seed,
        "deterministic": False,
        "amp": False,  # its check fetches weights; ours is below
        "project": str(folder.resolve().parent),  # it puts a relative one elsewhere
        "name": folder.name,
        "exist_ok": True,
        "val": False,
        "plots": False,
        "verbose": False,
        "resume": going_on,
        **AUGMENTATION,
    }
    try:
        network.train(
            trainer=trainer_class(network.task_map["detect"]["trainer"], run), **settings
        )
    except RoiCodecError:
        raise
    except Exception as error:  # ultralytics and torch raise a dozen kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RoiCodecError(f"expected the training to go on, found: {reason[:300]}") from error
    return run.result(network.model)


def interpolate(network: Any, weights: Path, share: float) -> float:
    """Make ``network`` a mean of itself (``share``, 0 to 1) and of the ``weights`` it began as.

    Half-way between a network and what it was fine-tuned to, much of what was learnt stands, and
    most of what was forgotten is back (Wortsman et al., Robust fine-tuning of zero-shot models,
    2022). Weights with other classes have another last layer: ``network`` then stays as it is.
    Returns the share that was taken. Raises RoiCodecError for weights that can not be read.
    """
    began: Any = load_network(weights).model.float().state_dict()
    network.float()
    tuned = network.state_dict()
    if any(began[key].shape != tuned[key].shape for key in tuned):
        return 1.0
    network.load_state_dict(
        {
            key: value if not value.is_floating_point() else began[key].lerp(value.cpu(), share)
            for key, value in tuned.items()
        }
    )
    return share


def weights_bytes(network: Any, image_size: int) -> memoryview:
    """An ultralytics weights file: half precision, no optimizer, no paths of this machine."""
    import torch

    network = network.half().eval().requires_grad_(False).to("cpu")
    settings = {"task": "detect", "imgsz": image_size}
    network.args = settings
    network.names = {0: PERSON_CLASS}
    network.criterion = None
    vars(network).pop("pt_path", None)
    content = {
        "generator": GENERATOR,
        "epoch": -1,
        "best_fitness": None,
        "model": network,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": settings,
        "train_metrics": None,
        "train_results": None,
        "date": datetime.now(timezone.utc).isoformat(),
        "version": version("ultralytics"),
        "license": LICENCE,
    }
    file = io.BytesIO()  # torch's own writer hides why the disk refused
    torch.save(content, file)
    return file.getbuffer()
