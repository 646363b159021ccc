# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a YOLOv8 person detector on images that a codec decoded.

ultralytics' trainer does the work, offline. Ours are the data set (`detector_data`), a check that
a resumed run is the same one, and batch normalisation that keeps its statistics.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import GENERATOR, write
from roi_codec_ros.perception.person_detector import PERSON_CLASS, load_network

LICENCE = (
    "AGPL-3.0: made with ultralytics from its weights; not under the Apache-2.0 licence of this "
    "package. Who passes them on, or lets others use them over a network, should read it."
)
STATE_FILE = "state.json"
STRIDE_PX = 32
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


@dataclass(frozen=True)
class FineTuning:
    """How to fine-tune: for so many epochs, or for so many minutes of training.

    image_size: longer side in px of the network's input, a multiple of 32. freeze: layers of
    the network, from its input, that stay as they are. Raises UsageError for invalid values.
    """

    epochs: int | None = None
    minutes: float | None = None
    image_size: int = 640
    batch_size: int = 8
    learning_rate: float = 2e-4
    freeze: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.minutes is None):
            raise UsageError("expected either epochs or minutes")
        if self.image_size < STRIDE_PX or self.image_size % STRIDE_PX:
            raise UsageError(
                f"expected a multiple of {STRIDE_PX} as image size, found {self.image_size}"
            )
        if self.freeze < 0:
            raise UsageError(f"expected 0 or more layers to freeze, found {self.freeze}")

    def fixed(self) -> dict[str, Any]:
        """The settings that a resumed run must have in common; its minutes may grow."""
        return {key: value for key, value in asdict(self).items() if key != "minutes"}


@dataclass
class FineTuned:
    """The network (an ultralytics DetectionModel, averaged weights) and what made it."""

    network: Any = None
    steps: int = 0
    epochs: float = 0.0
    minutes: float = 0.0


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
    on_step: Callable[[float], None] = lambda progress: None,
) -> FineTuned:
    """Fine-tune ``weights`` on a YOLO data set (``data``: its `data.yaml`) of the class person.

    folder: for checkpoints, one per epoch. identity: what else a run depends on (its images, the
    weights it started from), in one string. resume: continue from the checkpoint in ``folder`` if
    there is one. threads: of torch; None: its own choice. on_step: called after each step with the
    share of the budget that is spent.
    Raises RoiCodecError for weights or a device that cannot be used, a checkpoint of another run,
    a loss that is not finite, and whatever ultralytics raises, in one line.
    """
    place = torch_device(device)
    run = _Run(config, folder.resolve(), identity, threads, on_step)
    resumed = resume and run.restore()
    network = load_network(run.checkpoint if resumed else weights)
    if run.progress < 1.0:
        settings: dict[str, Any] = {
            "data": str(data),
            "imgsz": config.image_size,
            "batch": config.batch_size,
            "nbs": config.batch_size,  # a step for each batch
            "device": str(place.index or 0) if place.type == "cuda" else device,
            "optimizer": "AdamW",
            "lr0": config.learning_rate,
            "lrf": 0.02,
            "cos_lr": True,
            "weight_decay": 5e-4,
            "warmup_epochs": 0,
            "freeze": config.freeze or None,
            "seed": config.seed,
            "deterministic": False,
            "amp": False,  # its check fetches weights
            "project": str(run.folder.parent),  # a relative one would be put elsewhere
            "name": run.folder.name,
            "exist_ok": True,
            "val": False,
            "plots": False,
            "verbose": False,
            "resume": resumed,
            **run.budget(),
            **AUGMENTATION,
        }
        for event in ("on_train_start", "on_train_batch_start", "on_train_batch_end"):
            network.add_callback(event, getattr(run, event))
        network.add_callback("on_model_save", run.on_model_save)
        try:
            network.train(trainer=_offline(network.task_map["detect"]["trainer"]), **settings)
        except RoiCodecError:
            raise
        except Exception as error:  # ultralytics and torch raise a dozen kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RoiCodecError(f"expected training to succeed, found: {reason[:300]}") from error
    run.done.network = network.model
    return run.done


def _offline(base: Any) -> Any:
    """ultralytics' trainer, which would fetch a font for its plots."""

    class Trainer(base):
        def get_dataset(self) -> dict[str, Any]:
            folder = Path(self.args.data).parent
            lists = {"train": str(folder / "train.txt"), "val": str(folder / "val.txt")}
            return {"path": folder, **lists, "nc": 1, "names": {0: PERSON_CLASS}, "channels": 3}

    return Trainer


class _Run:
    """What ultralytics' trainer calls back, and the state by which a resumed run is recognised."""

    def __init__(
        self,
        config: FineTuning,
        folder: Path,
        identity: str,
        threads: int | None,
        on_step: Callable[[float], None],
    ) -> None:
        self.folder = folder
        self.checkpoint = folder / "weights" / "last.pt"
        self.done = FineTuned()
        self._config = config
        self._about = {"settings": config.fixed(), "identity": identity}
        self._threads = threads
        self._on_step = on_step

    @property
    def progress(self) -> float:
        """Share of the budget that is spent."""
        if self._config.minutes is not None:
            return self.done.minutes / self._config.minutes
        return self.done.epochs / (self._config.epochs or 1)

    def budget(self) -> dict[str, Any]:
        """The budget, or what is left of it, as ultralytics takes it."""
        if self._config.minutes is None:
            return {"epochs": self._config.epochs}
        return {"time": (self._config.minutes - self.done.minutes) / 60.0}

    def restore(self) -> bool:
        """Take over the counts of an interrupted run; False if there is none."""
        state = self.folder / STATE_FILE
        if not (self.checkpoint.is_file() and state.is_file()):
            return False
        try:
            content = json.loads(state.read_text(encoding="utf-8"))
            about, self.done = content["about"], FineTuned(**content["done"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RoiCodecError(
                f"expected the state of a run in {state}, found: {error!r}"
            ) from error
        if about != self._about:
            raise RoiCodecError(
                f"expected a run with these settings, images and weights in {self.folder}, "
                "found another; start anew without --resume"
            )
        return True

    def on_train_start(self, trainer: Any) -> None:
        """Set the threads, which ultralytics has set by now, and start the clock."""
        import torch

        if self._threads:
            torch.set_num_threads(self._threads)
        self._began_s = time.monotonic() - 60.0 * self.done.minutes

    def on_train_batch_start(self, trainer: Any) -> None:
        """Keep batch normalisation's statistics: those of a few images are worse."""
        from torch import nn

        for module in trainer.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def on_train_batch_end(self, trainer: Any) -> None:
        """Count the step. Raises RoiCodecError for a loss that is not finite."""
        loss = float(trainer.loss.detach())
        if not math.isfinite(loss):
            raise RoiCodecError(
                f"expected a finite loss, found {loss} at step {self.done.steps}; "
                "try a lower learning rate"
            )
        self.done.steps += 1
        self.done.epochs = self.done.steps / len(trainer.train_loader)
        self.done.minutes = (time.monotonic() - self._began_s) / 60.0
        self._on_step(min(self.progress, 1.0))

    def on_model_save(self, trainer: Any) -> None:
        """Write the state beside the checkpoint."""
        self.done.minutes = (time.monotonic() - self._began_s) / 60.0
        content = {"about": self._about, "done": vars(self.done)}
        write(self.folder / STATE_FILE, (json.dumps(content) + "\n").encode())


def interpolate(network: Any, weights: Path, share: float) -> float:
    """Make ``network`` a mean of itself (``share``, 0 to 1) and of the ``weights`` it began as.

    Half-way between a network and what it was fine-tuned to, much of what was learnt stands, and
    most of what was forgotten is back (Wortsman et al., Robust fine-tuning of zero-shot models,
    2022). Weights with other classes have another last layer: ``network`` then stays as it is.
    Returns the share that was taken. Raises RoiCodecError for weights that cannot be read.
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
