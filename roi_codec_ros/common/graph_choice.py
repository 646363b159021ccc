# SPDX-License-Identifier: Apache-2.0
"""Chooses the runtime of a network: the fastest installed one whose output is correct.

What a graph should give stands in the file itself: its outputs for one input, computed when it was
made. A runtime that computes something else on this processor is not taken.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, UsageError
from roi_codec_ros.common.graph_sessions import GraphSession

if TYPE_CHECKING:
    import onnx

AUTO, TORCH = "auto", "torch"
INT8 = "-int8"  # of a backend's name: by the graph in 8-bit integers
# Of networks on a server. Among equals the first one is taken.
GRAPH_CHOICES = ("onnxruntime-int8", "onnxruntime", "openvino-int8", "openvino")
SERVER_BACKENDS = (AUTO, TORCH, *GRAPH_CHOICES)
SELF_TEST_KEY = "roi_codec_self_test"
# Root mean square of the difference, as a share of that of the outputs.
MOST_DEVIATION = {False: 0.01, True: 0.2}  # by whether it computes in int8
TIMED_ROUNDS = 5

Shapes = Mapping[str, Sequence[int]]
Opener = Callable[[], GraphSession]

_log = logging.getLogger(__name__)


def check_server_backend(name: str) -> None:
    """Raises UsageError where there is no backend of that name."""
    if name not in SERVER_BACKENDS:
        raise UsageError(f"expected a backend among {', '.join(SERVER_BACKENDS)}; found {name!r}")


def waves(shape: Sequence[int]) -> np.ndarray:
    """A float32 array of that shape, 0 to 1, smooth along each axis and smaller along the second.

    The same on every machine, but for the last bit.
    """
    phase = np.zeros(shape, np.float64)
    for axis, side in enumerate(shape):
        sides = [1] * len(shape)
        sides[axis] = side
        phase = phase + (0.9 + 0.31 * axis) * np.arange(side).reshape(sides)
    falling = 1 / np.arange(1, shape[1] + 1).reshape(1, -1, *[1] * (len(shape) - 2))
    return np.asarray((0.5 + 0.5 * np.cos(phase)) * falling, np.float32)


def add_self_test(graph: onnx.ModelProto, shapes: Shapes) -> None:
    """Store what the graph gives for `waves` of these shapes by onnx's own reference."""
    from onnx.reference import ReferenceEvaluator

    inputs = {name: waves(shape) for name, shape in shapes.items()}
    names = [item.name for item in graph.graph.output]
    found = ReferenceEvaluator(graph).run(None, inputs)
    test = {
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "outputs": {
            name: base64.b64encode(np.asarray(values, np.float32).tobytes()).decode()
            for name, values in zip(names, found, strict=True)
        },
    }
    entry = graph.metadata_props.add()
    entry.key, entry.value = SELF_TEST_KEY, json.dumps(test)


def deviation(session: GraphSession) -> float:
    """How far outputs are from the stored ones, as a share of those. Raises ModelFileError."""
    try:
        test = json.loads(session.metadata[SELF_TEST_KEY])
        inputs = {str(name): waves(shape) for name, shape in test["shapes"].items()}
        expected = {
            str(name): np.frombuffer(base64.b64decode(text), np.float32)
            for name, text in test["outputs"].items()
        }
        found = session.run(inputs)
        return max(_apart(found[name].ravel(), values) for name, values in expected.items())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(
            f"expected {session.where} to hold what it should give; found: {error!r}"
        ) from error


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    difference = np.sqrt(np.mean(np.square(found - expected)))
    return float(difference / max(np.sqrt(np.mean(np.square(expected))), 1e-9))


def fastest(
    openers: Mapping[str, Opener], timed: Shapes, *, what: str
) -> tuple[str, GraphSession] | None:
    """The backend that takes least time, and its session; None where none can be used.

    openers: by name of `GRAPH_CHOICES`. timed: shapes of inputs as they will come. what: which
    network it is, for the log, where it is said of each backend why it is not used.
    """
    usable: list[tuple[str, GraphSession]] = []
    for name, open_it in openers.items():
        try:
            session = open_it()
            apart = deviation(session)
        except RoiCodecError as error:
            _log.info("%s: not by %s: %s", what, name, error)
            continue
        if not apart <= MOST_DEVIATION[name.endswith(INT8)]:  # it may be no number at all
            _log.warning("%s: not by %s: its outputs are %.2g away", what, name, apart)
            continue
        usable.append((name, session))
    if len(usable) < 2:
        return usable[0] if usable else None
    inputs = {name: waves(shape) for name, shape in timed.items()}
    least = least_seconds([partial(session.run, inputs) for _, session in usable])
    return usable[least.index(min(least))]


def least_seconds(steps: Sequence[Callable[[], object]]) -> list[float]:
    """The least time of each step in some runs, after one that allocates.

    They take turns, so that whatever else starts meanwhile slows all of them.
    """
    for step in steps:
        step()
    least = [math.inf] * len(steps)
    for _ in range(TIMED_ROUNDS):
        for index, step in enumerate(steps):
            started = time.perf_counter()
            step()
            least[index] = min(least[index], time.perf_counter() - started)
    return least
