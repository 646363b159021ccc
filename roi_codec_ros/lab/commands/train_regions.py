# SPDX-License-Identifier: Apache-2.0
"""Train the network that recognises heads and persons, and write the regions model.

example:
  roi-codec train-regions --data DATA FACES --yunet yunet.onnx --nanodet nanodet/ --minutes 30 \\
      --out runs/regions

Starts from NanoDet-g's weights (its TensorFlow.js files) and puts YuNet beside it, or goes on from
a regions model with --init-from. Writes regions.onnx (float32) and regions-int8.onnx, each with
thresholds chosen on training photographs; with --no-training those of --init-from anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import add_force_option, positive, positive_real
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import write
from roi_codec_ros.common.output_files import RunFolder

if TYPE_CHECKING:
    from roi_codec_ros.lab.datasets.annotations import Annotation
    from roi_codec_ros.lab.training.photograph_store import Photographs
    from roi_codec_ros.lab.training.region_labels import RegionLabels
    from roi_codec_ros.lab.training.region_network import RegionNetwork


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--data", required=True, nargs="+", type=Path, metavar="DIR", help="data sets"
    )
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument(
        "--yunet", required=True, type=Path, metavar="FILE", help="YuNet's ONNX file"
    )
    parser.add_argument(
        "--nanodet",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of NanoDet-g's TensorFlow.js files",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="run folder")
    parser.add_argument("--minutes", type=positive_real, default=30.0, help="time budget")
    parser.add_argument(
        "--learning-rate",
        type=positive_real,
        help="learning rate of the layers that start at random",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint in --out"
    )
    start.add_argument(
        "--init-from", type=Path, metavar="FILE", help="start from the weights of a regions.onnx"
    )
    parser.add_argument(
        "--no-training",
        action="store_true",
        help="calibrate, choose thresholds and write the files of --init-from as it is",
    )
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    if args.no_training and args.init_from is None:
        raise UsageError("expected --init-from FILE with --no-training, found none")
    with _run_folder(args):
        _train(args)


def _run_folder(args: argparse.Namespace) -> RunFolder:
    """Where the run goes. Raises RoiCodecError where there is an earlier one."""
    earlier = args.out / CHECKPOINT
    if not args.resume and earlier.exists() and not args.force:
        raise RoiCodecError(
            f"expected no earlier run in {args.out}, found {earlier}; --resume continues it, "
            "--force replaces it"
        )
    names = () if args.resume else _WRITTEN
    return RunFolder(args.out, "train-regions", names, force=args.force)


def _train(args: argparse.Namespace) -> None:
    import torch

    from roi_codec_ros.common.photographs import left_out
    from roi_codec_ros.lab.training.photograph_store import Photographs
    from roi_codec_ros.lab.training.progress import LOG_NAME, ProgressLog
    from roi_codec_ros.lab.training.region_batches import RegionBatches
    from roi_codec_ros.lab.training.region_trainer import RegionTrainer, RegionTrainingConfig

    if args.threads:
        torch.set_num_threads(args.threads)
    annotations = _annotations(args)
    if args.no_training:
        annotations = _spread(annotations)
    photographs = Photographs(annotations)
    photographs.read_ahead()
    broken = photographs.broken
    for sentence in left_out(list(broken.values()), len(annotations)):
        print(sentence, file=sys.stderr)
    annotations = [item for item in annotations if item.image_path not in broken]
    labels = _labels(args, annotations, photographs)
    network = _network(args)
    if args.no_training:
        _write(args, network, _card_of(args.init_from), annotations, photographs, labels)
        return
    rate = args.learning_rate or RegionTrainingConfig.learning_rate
    config = RegionTrainingConfig(
        minutes=args.minutes,
        learning_rate=rate,
        trunk_learning_rate=0.15 * rate,
        seed=args.seed,
    )
    trainer = RegionTrainer(
        config,
        network,
        RegionBatches(photographs, annotations, labels, config.crops),
        args.out / CHECKPOINT,
        args.device,
        about=_about(args, len(annotations)),
    )
    if args.resume:
        trainer.resume()
    with ProgressLog(args.out / LOG_NAME, start=trainer.progress()) as log:
        trainer.run(log)
    figures = {"steps": trainer.step, "minutes": round(trainer.elapsed_s / 60, 1)}
    training = {**trainer.about, **figures}
    _write(args, trainer.averaged(), training, annotations, photographs, labels)


CHECKPOINT = "checkpoint.pt"
_WRITTEN = (CHECKPOINT, "log.jsonl", "regions.onnx", "regions-int8.onnx")


def _annotations(args: argparse.Namespace) -> list[Annotation]:
    from roi_codec_ros.lab.datasets.annotations_any import read_annotations

    return [
        item
        for folder in args.data
        for item in read_annotations(folder, args.split, needs_persons=False)
    ]


def _network(args: argparse.Namespace) -> RegionNetwork:
    import torch

    from roi_codec_ros.common.graph_runtime import read_graph
    from roi_codec_ros.lab.training.region_model import stored_arrays
    from roi_codec_ros.lab.training.region_network import RegionNetwork

    network = RegionNetwork()
    if args.init_from is None:
        network.start_from_nanodet(args.nanodet)
        return network
    try:
        arrays = stored_arrays(read_graph(args.init_from))
    except KeyError as error:
        raise RoiCodecError(
            f"expected {args.init_from} to be a regions model in float32, found no {error}"
        ) from error
    network.load_state_dict(
        {
            k.removeprefix("map."): torch.tensor(v)
            for k, v in arrays.items()
            if k.startswith("map.")
        }
    )
    return network


def _labels(
    args: argparse.Namespace, annotations: list[Annotation], photographs: Photographs
) -> list[RegionLabels]:
    """Labels with what the teachers add; some tenths of a second a photograph."""
    from tqdm import tqdm

    from roi_codec_ros.lab.training.nanodet import NanoDet
    from roi_codec_ros.lab.training.region_labels import FaceTeacher, region_labels

    persons, faces = NanoDet(args.nanodet), FaceTeacher(args.yunet)
    return [
        region_labels(item, persons.detect(image), faces.detect(image))
        for item in tqdm(annotations, desc="teachers", unit="photograph", dynamic_ncols=True)
        for image in (photographs.read(item),)
    ]


def _about(args: argparse.Namespace, photographs: int) -> dict[str, Any]:
    """What the card says of the training."""
    started = {"model": args.init_from.name} if args.init_from else {"weights": "NanoDet-g"}
    return {
        "data": {"names": [folder.resolve().name for folder in args.data], "images": photographs},
        "started_from": started,
        "faces_by": "YuNet (Shiqi Yu and others, Apache-2.0), unchanged",
        "trunk_from": "NanoDet-g (RangiLyu, Apache-2.0), trained on COCO",
        "teachers": ["NanoDet-g", "YuNet"],
    }


def _card_of(path: Path) -> dict[str, Any]:
    """What a regions model says of its training."""
    from roi_codec_ros.regions import load_regions

    return dict(load_regions(path, threads=1).card.get("training", {}))


MOST_CHOSEN_ON = 200  # photographs that thresholds are chosen on


def _spread(items: list[Any]) -> list[Any]:
    """A number of them, evenly spread from the first to the last."""
    return items[:: max(1, len(items) // MOST_CHOSEN_ON)]


def _write(
    args: argparse.Namespace,
    network: RegionNetwork,
    training: dict[str, Any],
    annotations: list[Annotation],
    photographs: Photographs,
    labels: list[RegionLabels],
) -> None:
    """Both files, each with its own thresholds. training: what their cards say of it."""
    import datetime

    from roi_codec_ros.lab.training import region_model
    from roi_codec_ros.regions import Thresholds

    card = {
        "name": "regions",
        "date": datetime.date.today().isoformat(),
        "thresholds": {},
        "training": training,
    }
    arrays = {**network.arrays(), **region_model.face_arrays(args.yunet)}
    lowest = Thresholds()
    images = [photographs.read(item) for item in _spread(annotations)]
    some = _spread(labels)
    for name, graph in region_model.region_files(arrays, card, images[::4]).items():
        finder = region_model.open_finder(region_model.with_thresholds(graph, lowest), name)
        found = [finder.find(image) for image in images]
        thresholds, figures = region_model.choose_thresholds(found, some)
        path = args.out / f"{name}.onnx"
        entries = {"name": name, "on_training_photographs": figures}
        content = region_model.with_thresholds(graph, thresholds, **entries)
        write(path, content, durable=True)
        print(f"wrote {path}: {thresholds}, on training photographs {figures}")
