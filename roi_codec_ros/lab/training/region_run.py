# SPDX-License-Identifier: Apache-2.0
"""A training run of the regions model, from data sets to its two files."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import write
from roi_codec_ros.common.graph_runtime import read_graph
from roi_codec_ros.common.output_files import RunFolder
from roi_codec_ros.common.photographs import left_out
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.datasets.annotations_any import read_annotations
from roi_codec_ros.lab.training import region_model
from roi_codec_ros.lab.training.checkpoints import run_folder
from roi_codec_ros.lab.training.nanodet import NanoDet
from roi_codec_ros.lab.training.photograph_store import Photographs
from roi_codec_ros.lab.training.progress import LOG_NAME, ProgressLog
from roi_codec_ros.lab.training.region_batches import RegionBatches
from roi_codec_ros.lab.training.region_labels import FaceTeacher, RegionLabels, region_labels
from roi_codec_ros.lab.training.region_network import RegionNetwork
from roi_codec_ros.lab.training.region_trainer import RegionTrainer, RegionTrainingConfig
from roi_codec_ros.regions import Thresholds, load_regions

T = TypeVar("T")
Say = Callable[[str], None]
CHECKPOINT = "checkpoint.pt"
# Photographs that thresholds are chosen on: one of ten, and no more than about 200. They are not
# trained on: a network is too sure of those that it has seen.
HELD_OUT_FROM, MOST_HELD_OUT = 10, 200
# Share of NanoDet-g's weights in the trunk that is written, the rest is learnt: it has seen more
# photographs (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
PUBLISHED_SHARE = 0.2
TRUNK_SHARE = 0.15  # of the learning rate, for layers that start from NanoDet-g
_WRITTEN = (CHECKPOINT, "log.jsonl", "regions.onnx", "regions-int8.onnx")


@dataclass(frozen=True)
class RegionRun:
    """What to train on, from what, and where to.

    data: folders of data sets. yunet: its ONNX file. nanodet: folder of its TensorFlow.js files.
    learning_rate: of layers that start at random; None for the default. init_from: a regions
    model in float32 to start from; train: False to write its files anew as it is. resume: go on
    from the checkpoint in ``out``. Raises UsageError for no training of nothing.
    """

    data: Sequence[Path]
    split: str
    yunet: Path
    nanodet: Path
    out: Path
    minutes: float
    learning_rate: float | None
    device: str
    seed: int
    resume: bool
    init_from: Path | None
    train: bool
    force: bool

    def __post_init__(self) -> None:
        if not self.train and self.init_from is None:
            raise UsageError("expected --init-from FILE with --no-training, found none")

    def run(self, say: Say, warn: Say) -> None:
        """Train, and write both files, each with thresholds of its own.

        say: gets a line on each file. warn: gets one on photographs that are left out. Raises
        RoiCodecError.
        """
        with self._folder():
            examples = self._examples(warn)
            network = self._network()
            if not self.train:
                assert self.init_from is not None
                card = dict(load_regions(self.init_from, threads=1).card.get("training", {}))
            else:
                network, card = self._trained(network, examples)
            self._write(network, card, examples, say)

    def _folder(self) -> RunFolder:
        """Where the run goes. Raises RoiCodecError where there is an earlier one."""
        kept = self.out / CHECKPOINT
        return run_folder(
            self.out, "train-regions", kept, _WRITTEN, resume=self.resume, force=self.force
        )

    def _examples(self, warn: Say) -> _Examples:
        """Annotated photographs that can be read, with what the teachers add.

        The teachers take some tenths of a second a photograph.
        """
        annotations = [
            item
            for folder in self.data
            for item in read_annotations(folder, self.split, needs_persons=False)
        ]
        chosen_on, trained_on = held_out(annotations)
        if not self.train:
            annotations = chosen_on
        photographs = Photographs(annotations)
        photographs.read_ahead()
        broken = photographs.broken
        for sentence in left_out(list(broken.values()), len(annotations)):
            warn(sentence)
        good = [item for item in annotations if item.image_path not in broken]
        persons, faces = NanoDet(self.nanodet), FaceTeacher(self.yunet)
        labels = {
            item.image_path: region_labels(item, persons.detect(image), faces.detect(image))
            for item in tqdm(good, desc="teachers", unit="photograph", dynamic_ncols=True)
            for image in (photographs.read(item),)
        }

        def labelled(items: list[Annotation]) -> list[tuple[Annotation, RegionLabels]]:
            return [(i, labels[i.image_path]) for i in items if i.image_path in labels]

        return _Examples(photographs, labelled(chosen_on), labelled(trained_on))

    def _network(self) -> RegionNetwork:
        """The network before it is trained. Raises RoiCodecError."""
        network = RegionNetwork()
        if self.init_from is None:
            network.start_from_nanodet(self.nanodet)
            return network
        try:
            arrays = region_model.stored_arrays(read_graph(self.init_from))
        except KeyError as error:
            raise RoiCodecError(
                f"expected {self.init_from} to be a regions model in float32, found no {error}"
            ) from error
        network.load_state_dict(
            {
                k.removeprefix("map."): torch.tensor(v)
                for k, v in arrays.items()
                if k.startswith("map.")
            }
        )
        return network

    def _trained(
        self, network: RegionNetwork, examples: _Examples
    ) -> tuple[RegionNetwork, dict[str, Any]]:
        """The averaged network, and what its card says of the training."""
        rate = self.learning_rate or RegionTrainingConfig.learning_rate
        config = RegionTrainingConfig(
            minutes=self.minutes,
            learning_rate=rate,
            trunk_learning_rate=TRUNK_SHARE * rate,
            seed=self.seed,
        )
        annotations = [item for item, _ in examples.trained_on]
        labels = [label for _, label in examples.trained_on]
        batches = RegionBatches(examples.photographs, annotations, labels, config.crops)
        trainer = RegionTrainer(
            config,
            network,
            batches,
            self.out / CHECKPOINT,
            self.device,
            about=self._about(len(annotations)),
        )
        if self.resume:
            trainer.resume()
        with ProgressLog(self.out / LOG_NAME, start=trainer.progress()) as log:
            trainer.run(log)
        figures = {"steps": trainer.step, "minutes": round(trainer.elapsed_s / 60, 1)}
        trained = trainer.averaged()
        self._mix_published_in(trained)
        return trained, {**trainer.about, **figures}

    @torch.no_grad()
    def _mix_published_in(self, network: RegionNetwork) -> None:
        published = RegionNetwork()
        published.start_from_nanodet(self.nanodet)
        pairs = zip(network.trunk_parameters(), published.trunk_parameters(), strict=True)
        for learnt, weights in pairs:
            learnt.lerp_(weights, PUBLISHED_SHARE)

    def _about(self, photographs: int) -> dict[str, Any]:
        """What the card says of the training before it begins."""
        started = {"model": self.init_from.name} if self.init_from else {"weights": "NanoDet-g"}
        names = [folder.resolve().name for folder in self.data]
        return {
            "data": {"names": names, "images": photographs},
            "started_from": started,
            "faces_by": "YuNet (Shiqi Yu and others, Apache-2.0), unchanged",
            "trunk_from": "NanoDet-g (RangiLyu, Apache-2.0), trained on COCO",
            "published_share": PUBLISHED_SHARE,
            "teachers": ["NanoDet-g", "YuNet"],
        }

    def _write(
        self, network: RegionNetwork, training: dict[str, Any], examples: _Examples, say: Say
    ) -> None:
        card = {
            "name": "regions",
            "date": datetime.date.today().isoformat(),
            "thresholds": {},
            "training": training,
        }
        arrays = {**network.arrays(), **region_model.face_arrays(self.yunet)}
        lowest = Thresholds()
        images = [examples.photographs.read(item) for item, _ in examples.chosen_on]
        labels = [label for _, label in examples.chosen_on]
        for name, graph in region_model.region_files(arrays, card, images[::4]).items():
            finder = region_model.open_finder(region_model.with_thresholds(graph, lowest), name)
            found = [finder.find(image) for image in images]
            thresholds, figures = region_model.choose_thresholds(found, labels)
            path = self.out / f"{name}.onnx"
            entries = {"name": name, "on_photographs_held_out": figures}
            content = region_model.with_thresholds(graph, thresholds, **entries)
            write(path, content, durable=True)
            say(f"wrote {path}: {thresholds}, on photographs held out {figures}")


@dataclass(frozen=True, eq=False)
class _Examples:
    photographs: Photographs
    chosen_on: list[tuple[Annotation, RegionLabels]]
    trained_on: list[tuple[Annotation, RegionLabels]]


def held_out(items: list[T]) -> tuple[list[T], list[T]]:
    """Items that thresholds are chosen on, spread evenly, and the others, to train on.

    Both are all of them where there are too few.
    """
    if len(items) < HELD_OUT_FROM:
        return items, items
    every = max(HELD_OUT_FROM, len(items) // MOST_HELD_OUT)
    return items[::every], [item for index, item in enumerate(items) if index % every]
