# SPDX-License-Identifier: Apache-2.0
"""One fine-tuning of a detector: its settings, its progress, and our hooks in YOLO's trainer.

The learning rate follows the budget step by step (ultralytics' own schedule moves once an epoch,
and an epoch on a CPU may be half of the budget), batch normalisation keeps its statistics, the
network runs in bfloat16 where the machine has it, and nothing is validated in between.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import write
from roi_codec_ros.lab.training.engine import learning_rate_share
from roi_codec_ros.perception.person_detector import PERSON_CLASS

if TYPE_CHECKING:
    import torch

STATE_FILE = "state.json"
WARM_UP_STEPS = 50
STRIDE_PX = 32


@dataclass(frozen=True)
class FineTuning:
    """How to fine-tune: for so many epochs, or for so many minutes of training proper.

    image_size: longer side in px of what the network is given, a multiple of 32. freeze: layers of
    the network, from its input, that stay as they are. Raises UsageError for what can not work.
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
        """What has to stay the same where a run goes on; its minutes may grow."""
        return {key: value for key, value in asdict(self).items() if key != "minutes"}


@dataclass(frozen=True)
class Step:
    """progress: share of the budget that is spent. loss: of the batch, per image."""

    number: int
    progress: float
    loss: float
    images_per_s: float


@dataclass(frozen=True)
class FineTuned:
    """The network (an ultralytics DetectionModel, averaged weights) and what made it."""

    network: Any
    steps: int
    images: int
    minutes: float
    precision: str


class Run:
    """Progress of a run: what our hooks in ultralytics' trainer read and write."""

    def __init__(
        self,
        config: FineTuning,
        folder: Path,
        identity: str,
        device: torch.device,
        threads: int | None,
        on_step: Callable[[Step], None],
    ) -> None:
        self.config = config
        self.checkpoint = folder / "weights" / "last.pt"
        self.steps = self.images = 0
        self.elapsed_s = 0.0
        self._state = folder / STATE_FILE
        self._about = {"settings": config.fixed(), "identity": identity}
        self._device = device
        self._threads = threads
        self._on_step = on_step
        self._reduced = _has_bfloat16(device)
        self._started: float | None = None
        self._before_s = 0.0  # spent before this process
        self._total_steps = 0

    @property
    def progress(self) -> float:
        if self.config.minutes is not None:
            return self.elapsed_s / (60.0 * self.config.minutes)
        return self.steps / self._total_steps if self._total_steps else 0.0

    @property
    def finished(self) -> bool:
        return self.progress >= 1.0

    def restore(self) -> bool:
        """Take over what a stopped run of the same kind has done; False where there is none."""
        if not (self.checkpoint.is_file() and self._state.is_file()):
            return False
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            about, counts = state["about"], state["counts"]
            self.steps, self.images = int(counts["steps"]), int(counts["images"])
            self.elapsed_s = self._before_s = float(counts["elapsed_s"])
            self._total_steps = int(counts["total_steps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RoiCodecError(
                f"expected the state of a run in {self._state}, found: {error!r}"
            ) from error
        if about != self._about:
            raise RoiCodecError(
                f"expected a run with these settings, images and weights in {self._state.parent}, "
                "found another; start anew without --resume"
            )
        return True

    def before_step(self, trainer: Any, batch: Any) -> None:
        import torch

        if self._started is None:
            self._start(trainer)
        for module in self._normalisations:
            module.eval()
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        share = learning_rate_share(self.progress, self.steps, self._warm_up_steps)
        for group in trainer.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * share
        self.images += len(batch["img"])

    def after_step(self, trainer: Any) -> None:
        assert self._started is not None
        loss = float(trainer.loss.detach())
        if not math.isfinite(loss):
            raise RoiCodecError(
                f"expected a finite loss, found {loss} at step {self.steps}; "
                "try a lower learning rate"
            )
        self.steps += 1
        here_s = time.monotonic() - self._started
        self.elapsed_s = self._before_s + here_s
        trainer.stop = self.finished
        speed = (self.images - self._images_before) / here_s
        self._on_step(Step(self.steps, self.progress, loss / self.config.batch_size, speed))

    def save(self) -> None:
        counts = {
            "steps": self.steps,
            "images": self.images,
            "elapsed_s": round(self.elapsed_s, 1),
            "total_steps": self._total_steps,
        }
        content = json.dumps({"about": self._about, "counts": counts}) + "\n"
        write(self._state, content.encode())

    def result(self, network: Any) -> FineTuned:
        precision = "bfloat16" if self._reduced else "float32"
        return FineTuned(network, self.steps, self.images, self.elapsed_s / 60.0, precision)

    def _start(self, trainer: Any) -> None:
        import torch
        from torch import nn

        if self._threads:  # ultralytics has set them to its own taste by now
            torch.set_num_threads(self._threads)
        # Statistics of eight images are worse than those of the whole first training; and some
        # weights (rebuilt from a network in which they were folded) have none that are true.
        self._normalisations = [
            m for m in trainer.model.modules() if isinstance(m, nn.BatchNorm2d)
        ]
        trainer.model.to(memory_format=torch.channels_last)
        if self._reduced:
            _run_in_bfloat16(trainer.model, self._device)
        if self.config.epochs is not None:
            self._total_steps = self.config.epochs * len(trainer.train_loader)
        # In a run of a few steps no more than a tenth of it.
        tenth = self._total_steps // 10 if self._total_steps else WARM_UP_STEPS
        self._warm_up_steps = max(1, min(WARM_UP_STEPS, tenth))
        self._images_before = self.images
        self._started = time.monotonic()


def trainer_class(base: Any, run: Run) -> Any:
    """ultralytics' detection trainer, as a class of its own with our hooks."""

    class FineTuner(base):
        def get_dataset(self) -> dict[str, Any]:
            # Its own way there fetches a font for its plots.
            folder = Path(self.args.data).parent
            lists = {"train": str(folder / "train.txt"), "val": str(folder / "val.txt")}
            return {"path": folder, **lists, "nc": 1, "names": {0: PERSON_CLASS}, "channels": 3}

        def preprocess_batch(self, batch: Any) -> Any:
            batch = super().preprocess_batch(batch)
            run.before_step(self, batch)
            return batch

        def optimizer_step(self) -> None:
            super().optimizer_step()
            run.after_step(self)

        def validate(self) -> tuple[dict[str, float], None]:
            return {}, None

        def save_model(self) -> Any:
            saved = super().save_model()
            run.save()
            return saved

        def final_eval(self) -> None:
            """The checkpoint stays one to go on from; `save_weights` makes the file to use."""

    return FineTuner


def _has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there, not merely emulated."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supports = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # nothing public tells
    return device.type == "cpu" and supports is not None and bool(supports())


def _run_in_bfloat16(network: Any, device: torch.device) -> None:
    """Let ``network`` compute in bfloat16; what it gives to the loss is float32."""
    import torch

    plain = network.forward

    def forward(x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, dict):  # a batch: comes back here with its images
            return plain(x, *args, **kwargs)
        with torch.autocast(device.type, torch.bfloat16):
            return _as_float32(plain(x, *args, **kwargs))

    network.forward = forward


def _as_float32(values: Any) -> Any:
    import torch

    if isinstance(values, torch.Tensor):
        return values.float()
    if isinstance(values, dict):
        return {key: _as_float32(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(_as_float32(value) for value in values)
    return values
