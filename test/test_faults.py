# SPDX-License-Identifier: Apache-2.0
"""What breaks in the field, done to real processes: named in diagnostics, over when it ends.

One camera, its decoder and a twin of the camera that waits. Images are small and the model is not
trained: nothing here looks at pixels but to see that there are none but anonymized ones.
docs/reliability.md lists the faults, also those that other tests hold. The last lines of the run
say how many seconds the camera took to be back after each.
"""

from __future__ import annotations

import array
import copy
import itertools
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from graph_harness import NEWEST, Graph, Inbox, NodeProcess
from lifecycle_msgs.msg import Transition
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from roi_codec_ros.codec import untrained_model
from roi_codec_ros.codec.bitstream import Payload
from roi_codec_ros.config.bringup import NodeSpec, ProcessOptions, camera_graph, server_graph
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.nodes.conversions import stamp_ns

pytestmark = pytest.mark.graph

CAMERA = "front"
DECODER, CODEC, SOURCE = (
    f"decoder: {CAMERA}",
    f"{CAMERA}/encoder: codec",
    f"{CAMERA}/encoder: source",
)
RATE_HZ = 10.0
RECOVERY_S = 2.0  # the longest that our rules may keep a camera out once its fault is over
FLOOD_HZ, FLOOD_MESSAGES = 200.0, 600
SPARE_BYTES = 64 << 20  # what a process may grow by under a fault; a queue of garbage is far more


class CameraClock(threading.Thread):
    """/clock for the encoders, which may be set: stamps are this clock's."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(daemon=True)
        self.offset_s = 0.0
        self.ended = threading.Event()
        self._publisher = graph.node.create_publisher(Clock, "/clock", 10)

    def run(self) -> None:
        while not self.ended.wait(0.02):
            message = Clock()
            seconds = time.time() + self.offset_s
            message.clock.sec, message.clock.nanosec = int(seconds), int(seconds % 1 * 1e9)
            self._publisher.publish(message)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Two untrained models and a folder `pictures`."""
    folder = tmp_path_factory.mktemp("faults")
    for seed, name in enumerate(("own", "other")):
        untrained_model("nano", seed).save(folder / f"{name}.safetensors")
    (folder / "pictures").mkdir()
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 255, (96, 128, 3), np.uint8)
        cv2.imwrite(str(folder / "pictures" / f"{index}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def clock(graph) -> Iterator[CameraClock]:
    clock = CameraClock(graph)
    clock.start()
    yield clock
    clock.ended.set()
    clock.join()


@pytest.fixture(scope="module")
def decoder_spec(files) -> NodeSpec:
    return server_graph([CAMERA], models=[str(files / "own.safetensors")], threads=1)[0]


@pytest.fixture(scope="module")
def encoder_spec(files) -> NodeSpec:
    (encoder,) = camera_graph(
        CAMERA,
        str(files / "pictures"),
        str(files / "own.safetensors"),
        rate_hz=RATE_HZ,
        threads=1,
    )
    return encoder


@pytest.fixture(scope="module")
def params_file(files) -> Path:
    """What has the encoders go by a clock that can be set."""
    path = files / "camera.yaml"
    path.write_text("/**:\n  ros__parameters:\n    use_sim_time: true\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def running(graph, clock, params_file, encoder_spec, decoder_spec) -> dict[str, NodeProcess]:
    """The camera, its decoder, and a second camera of the same name that is not yet active."""
    waiting = {**encoder_spec.parameters, "autostart": False}
    twin = replace(encoder_spec, name="twin", parameters=waiting)
    return {
        "encoder": graph.start(encoder_spec, params_file),
        "decoder": graph.start(decoder_spec, options=ProcessOptions(log_level="warn")),
        "twin": graph.start(twin, params_file),
    }


@pytest.fixture(scope="module")
def images(graph, running) -> Inbox:
    """The anonymized images from the first one on."""
    inbox = graph.listen(Image, f"/{CAMERA}/anonymized/image", keep=100_000)
    graph.wait_for("an image", lambda: inbox.last)
    graph.wait_for("the twin", lambda: graph.status(f"{CAMERA}/twin: lifecycle"))
    return inbox


@pytest.fixture(scope="module")
def latents(graph, running) -> Inbox:
    """What is on the camera's topic, whoever sent it."""
    return graph.listen(CompressedLatent, f"/{CAMERA}/latent", keep=10_000)


@pytest.fixture
def healthy(graph, images, running) -> Iterator[Inbox]:
    """Before and after each fault: images come, the decoder is content, everybody lives.

    A busy machine may lose a frame between processes: that is no fault that lasts.
    """

    def content() -> bool:
        status = graph.status(DECODER)
        return bool(status) and (status["level"] == "OK" or "lost on the way" in status["message"])

    def assure() -> None:
        before = images.count
        graph.wait_for("images", lambda: images.count > before + 2)
        graph.wait_for("a content decoder", content)
        assert [name for name, process in running.items() if not process.alive] == []

    assure()
    yield images
    assure()


@pytest.fixture
def recovered(graph, latents, healthy, record_property) -> Callable[..., None]:
    """Wait for the first good image after a fault is over; few frames may be spent on that."""

    def wait(over_s: float, good: Callable[[Image], bool] = lambda image: True) -> None:
        recovery = graph.recovery(latents, healthy, over_s, good)
        record_property("recovery", f"{recovery.seconds:.2f} s")
        assert recovery.frames <= RECOVERY_S * RATE_HZ

    return wait


def resident_bytes(process: NodeProcess) -> int:
    text = Path(f"/proc/{process.process.pid}/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if "VmRSS" in line))


def counted(graph: Graph, cause: str) -> int:
    status = graph.status(DECODER)
    return int(status[f"rejected.{cause}"]) if status else 0


# Garbage on the latents


def forged(message: CompressedLatent, **changes: object) -> CompressedLatent:
    message = copy.deepcopy(message)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def garbage(recorded: list[CompressedLatent]) -> dict[str, Callable[[], CompressedLatent]]:
    """Cause → a message that is to be refused for it, made of messages that were overheard."""
    last, old = recorded[-1], recorded[0]
    payload = Payload.from_bytes(bytes(old.data))
    foreign = replace(payload, model_id=b"\xee" * 8).to_bytes()
    huge = replace(payload, coded_height=65535, coded_width=65535).to_bytes()
    ahead = last.sequence + 10**6
    noise = random.Random(1)
    hollow = replace(payload, body=noise.randbytes(len(payload.body))).to_bytes()
    return {
        "unknown_model": lambda: forged(last, data=array.array("B", foreign), model="/dev/zero"),
        "bad_payload": lambda: forged(last, data=array.array("B", noise.randbytes(200))),
        "bad_payload, absurd size": lambda: forged(last, data=array.array("B", huge)),
        "bad_payload, too long": lambda: forged(last, data=array.array("B", bytes(1 << 20))),
        "bad_payload, empty": lambda: forged(last, data=array.array("B")),
        "replayed": lambda: old,
        "replayed, sound checksum": lambda: forged(old, data=array.array("B", hollow)),
        "stamp_not_newer": lambda: forged(old, sequence=ahead),
    }


def test_a_flood_of_garbage_is_refused_by_cause_and_the_camera_is_served(
    graph, running, latents, healthy, recovered
):
    recorded = graph.wait_for("latents", lambda: latents.count >= 10 and latents.messages[-100:])
    kinds = garbage(recorded)
    causes = {kind.partition(",")[0] for kind in kinds}
    counts = {cause: counted(graph, cause) for cause in causes}
    memory, seen = resident_bytes(running["decoder"]), healthy.count
    restarts = restarts_of(graph)
    publisher = graph.node.create_publisher(CompressedLatent, f"/{CAMERA}/latent", NEWEST)
    graph.wait_for("the decoder", lambda: publisher.get_subscription_count() >= 2)

    def unnamed() -> set[str]:
        return {cause for cause in causes if counted(graph, cause) <= counts[cause]}

    makers = itertools.cycle(kinds.values())
    sent, deadline = 0, time.monotonic() + 120.0
    while sent < FLOOD_MESSAGES or (unnamed() and time.monotonic() < deadline):
        publisher.publish(next(makers)())
        sent += 1
        time.sleep(1.0 / FLOOD_HZ)
    recovered(time.monotonic())
    during = healthy.messages[seen:]

    assert unnamed() == set()
    assert graph.status(DECODER)["level"] in ("WARN", "ERROR")
    assert "payloads refused" in graph.status(DECODER)["message"]
    assert len(during) > 0
    begun_anew = restarts_of(graph) - restarts  # by a camera that a busy core kept silent
    assert steps_back(during) <= begun_anew, "a frame that was overheard has come through"
    assert {(m.height, m.width) for m in during} == {(96, 128)}
    assert resident_bytes(running["decoder"]) < memory + SPARE_BYTES
    assert "Traceback" not in running["decoder"].log
    graph.node.destroy_publisher(publisher)


def test_a_log_level_leaves_out_what_is_less_severe(running, healthy):
    assert f"{CAMERA}: payload refused" in running["decoder"].log
    assert "[INFO]" not in running["decoder"].log
    assert "[INFO]" in running["encoder"].log


# Cameras and clocks


def test_a_camera_that_is_gone_is_named_and_served_again_when_it_is_back(
    graph, files, healthy, recovered
):
    away = files / "away"
    shutil.move(files / "pictures", away)
    gone = graph.wait_for("ERROR", lambda: of_level(graph, SOURCE, "ERROR"))
    graph.wait_for("STALE at the server", lambda: of_level(graph, DECODER, "STALE"))
    losses = int(graph.status(SOURCE)["losses"])
    shutil.move(away, files / "pictures")
    recovered(time.monotonic())

    graph.wait_for("the camera", lambda: of_level(graph, SOURCE, "OK"))
    assert "next try in" in gone["message"]
    assert 0 < losses <= int(graph.status(SOURCE)["losses"]) <= losses + 2


def of_level(graph: Graph, name: str, level: str) -> dict[str, str] | None:
    status = graph.status(name)
    return status if status and status["level"] == level else None


def test_a_clock_that_steps_back_is_named_and_the_camera_is_served_again(
    graph, clock, healthy, recovered
):
    newest, seen = stamp_ns(healthy.last.header), healthy.count
    refused, restarts = counted(graph, "stamp_not_newer"), restarts_of(graph)
    clock.offset_s -= 3600.0
    recovered(time.monotonic(), lambda image: stamp_ns(image.header) < newest)

    graph.wait_for("the restart", lambda: restarts_of(graph) == restarts + 1)

    assert counted(graph, "stamp_not_newer") > refused
    assert graph.status(DECODER)["last_restart"].startswith("stamps went on by -3")
    assert steps_back(healthy.messages[seen - 1 :]) == 1


def steps_back(images: list[Image]) -> int:
    stamps = [stamp_ns(image.header) for image in images]
    return sum(later <= earlier for earlier, later in itertools.pairwise(stamps))


def restarts_of(graph: Graph) -> int:
    return int(graph.status(DECODER)["restarts"])


def test_two_cameras_with_one_name_are_named_and_do_not_mix(graph, running, healthy, recovered):
    encoder = {"frames": int(graph.status(CODEC)["frames"]), "restarts": restarts_of(graph)}
    refused = counted(graph, "second_encoder")
    assert graph.change_state(
        f"/{CAMERA}/twin", Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
    )

    graph.wait_for("the cause", lambda: counted(graph, "second_encoder") >= refused + 10)
    status = graph.status(DECODER)
    assert graph.change_state(f"/{CAMERA}/twin", Transition.TRANSITION_DEACTIVATE)
    recovered(time.monotonic())

    assert status["level"] in ("WARN", "ERROR")
    assert "second_encoder" in running["decoder"].log
    assert restarts_of(graph) == encoder["restarts"]
    assert int(graph.status(CODEC)["frames"]) > encoder["frames"]


# Who listens


def test_a_subscriber_that_never_reads_holds_nobody_up(graph, running, healthy, recovered):
    memory = {name: resident_bytes(process) for name, process in running.items()}
    node = rclpy.create_node("idle", context=graph.node.context)  # in no executor
    everything = QoSProfile(
        history=HistoryPolicy.KEEP_ALL, depth=1, reliability=ReliabilityPolicy.RELIABLE
    )
    node.create_subscription(DiagnosticArray, "/diagnostics", lambda _: None, everything)
    node.create_subscription(Image, f"/{CAMERA}/anonymized/image", lambda _: None, NEWEST)
    node.create_subscription(CompressedLatent, f"/{CAMERA}/latent", lambda _: None, NEWEST)
    before, told = healthy.count, time.monotonic()

    graph.wait_for("fifty images", lambda: healthy.count >= before + 50)
    graph.wait_for("diagnostics", lambda: graph.status(DECODER, newer_than_s=told + 2.0))

    grown = {name: resident_bytes(running[name]) - memory[name] for name in memory}
    assert max(grown.values()) < SPARE_BYTES, grown
    node.destroy_node()
    recovered(time.monotonic())


# Last: they replace encoder and decoder. Starting a process is no part of a recovery: that begins
# with its first word.


def test_an_encoder_that_is_killed_and_started_again_is_served(
    graph, running, encoder_spec, params_file, latents, recovered
):
    running["encoder"].kill()
    killed_s = time.monotonic()
    running["encoder"] = graph.start(encoder_spec, params_file)

    first = graph.wait_for("its first word", lambda: latents.since(killed_s + 0.5))

    recovered(first[0][0] - 1e-6)


def test_a_decoder_that_comes_back_with_another_model_is_blind_and_says_so(
    graph, running, decoder_spec, files, healthy, recovered
):
    running["decoder"].kill()
    other = {**decoder_spec.parameters, "models": [str(files / "other.safetensors")]}
    started = time.monotonic()
    running["decoder"] = graph.start(replace(decoder_spec, parameters=other))
    before = healthy.count

    def refused() -> dict[str, str] | None:
        status = graph.status(DECODER, newer_than_s=started)
        return status if status and int(status["rejected.unknown_model"]) > 10 else None

    status = graph.wait_for("the refusal", refused)

    assert status["level"] == "ERROR"
    assert graph.status(CODEC)["model_identity"][:16] in status["message"]
    assert healthy.count == before
    running["decoder"].kill()
    started = time.monotonic()
    running["decoder"] = graph.start(decoder_spec)
    graph.wait_for("its first word", lambda: graph.status(DECODER, newer_than_s=started))
    recovered(time.monotonic())


def test_after_all_that_images_are_on_the_anonymized_topics_only(graph, images):
    topics = {
        topic
        for topic, kinds in graph.node.get_topic_names_and_types()
        if any("Image" in kind or "PointCloud" in kind for kind in kinds)
    }

    assert topics == {f"/{CAMERA}/anonymized/image", f"/{CAMERA}/anonymized/image/compressed"}


def test_no_process_has_seen_anything_that_it_did_not_expect(graph, running, images):
    assert "Traceback" not in graph.logs()
