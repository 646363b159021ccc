# SPDX-License-Identifier: Apache-2.0
"""server_node for real: latents over DDS in, persons out, no image in between; and two of them.

Payloads of photographs are replayed for all cameras under fresh stamps by one process, so that
every processor cycle that a server needs is the server's.
"""

from __future__ import annotations

import array
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import RELIABLE, Graph, Inbox, NodeProcess
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import CompressedImage, Image
from test_graph import TRAINED_MODEL, person_weights

from roi_codec_ros.codec import Decoder, Encoder, load_model, untrained_model
from roi_codec_ros.common.image_messages import rgb_from_image
from roi_codec_ros.config.bringup import joined, server_graph
from roi_codec_ros.msg import CompressedLatent, DecodedFrame, PersonArray
from roi_codec_ros.nodes.conversions import stamp_ns
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.graph_detector import open_detector

pytestmark = [
    pytest.mark.graph,
    pytest.mark.skipif(
        person_weights() is None or importlib.util.find_spec("ultralytics") is None,
        reason="no ultralytics or no person weights: name some in ROI_CODEC_TEST_DETECTOR",
    ),
]

CAMERAS = ("front", "hall/back")
BROKEN = "broken"  # a camera whose payloads are damaged
NORTH, SOUTH = ("n1", "n2"), ("s1", "s2")
BACKEND = "onnxruntime"  # one that any machine chooses alike
RATE_HZ = 1.0
CONFIDENCE, MAX_PIXELS = 0.2, 1_000_000
MAX_WIDTH = 480
PHOTOGRAPHS = ("bus.jpg", "zidane.jpg")  # of ultralytics; told apart by their sizes
NOBODY = (300, 400)  # size of a picture without anybody


@dataclass(frozen=True)
class Scene:
    """A payload, and what comes out of it by decoding and looking at it alone."""

    payload: bytes
    decoded: np.ndarray
    persons: Detections


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    if TRAINED_MODEL.is_file():
        return str(TRAINED_MODEL)
    path = tmp_path_factory.mktemp("models") / "untrained.safetensors"
    untrained_model("nano", 0).save(path)
    return str(path)


@pytest.fixture(scope="module")
def scenes(model) -> dict[tuple[int, int], Scene]:
    """By the size of the camera's image."""
    assets = Path(str(importlib.util.find_spec("ultralytics").origin)).parent / "assets"
    images = [cv2.cvtColor(cv2.imread(str(assets / n)), cv2.COLOR_BGR2RGB) for n in PHOTOGRAPHS]
    ramp = np.linspace(90, 160, NOBODY[1]).astype(np.uint8)  # a wall, in a light from the side
    images.append(np.broadcast_to(ramp[None, :, None], (*NOBODY, 3)).copy())
    encoder = Encoder(load_model(model), threads=1)
    decoder = Decoder(load_model(model), backend=BACKEND, threads=1)
    detector = open_detector(person_weights(), BACKEND, threads=1)
    found = {}
    for image in images:
        payload = encoder.encode(image, max_width=MAX_WIDTH).data
        decoded = decoder.decode(payload)
        seen = detector.detect(decoded.planes, confidence=CONFIDENCE).scale_to(image.shape[:2])
        found[image.shape[:2]] = Scene(payload, decoded.image, seen)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scenes) -> Path:
    """The payloads as files."""
    folder = tmp_path_factory.mktemp("payloads")
    for index, scene in enumerate(scenes.values()):
        (folder / f"{index}.roic").write_bytes(scene.payload)
    return folder


def replay(graph: Graph, folder: Path, cameras: tuple[str, ...]) -> NodeProcess:
    """Show the payloads of a folder on every camera; the stamps go to FOLDER/sent.json."""
    argv = [sys.executable, "-m", "roi_codec_ros.lab.tools.replaying"]
    argv += [str(folder), str(RATE_HZ), str(folder / "sent.json"), *cameras]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(graph.domain_id)}
    process = NodeProcess(argv, graph.folder / f"replay-{len(graph.processes)}.log", environment)
    graph.processes.append(process)
    return process


@pytest.fixture(scope="module")
def server(graph, model, tmp_path_factory) -> NodeProcess:
    """One process; batches as on a GPU, so that both nodes make some."""
    params_file = tmp_path_factory.mktemp("server") / "server.yaml"
    params_file.write_text(
        f"/decoder:\n  ros__parameters: {{max_batch: 4, max_pixels: 5, backend: {BACKEND}}}\n"
        f"/detector:\n  ros__parameters: {{max_batch: 3, confidence: 0.9, backend: {BACKEND}}}\n",
        encoding="utf-8",
    )
    specs = joined(
        server_graph(
            [*CAMERAS, BROKEN],
            models=[model],
            detector=str(person_weights()),
            threads=1,
            confidence=CONFIDENCE,
            max_pixels=MAX_PIXELS,
        )
    )
    assert [spec.executable for spec in specs] == ["server_node", "tracker_node"]
    return graph.start(specs[0], params_file)


@pytest.fixture(scope="module")
def persons(graph, server, folder) -> Iterator[dict[str, Inbox]]:
    """The persons of each camera, nobody subscribing to anything else."""
    inboxes = {c: graph.listen(PersonArray, f"/{c}/persons", RELIABLE) for c in CAMERAS}
    process = replay(graph, folder, CAMERAS)
    for camera, inbox in inboxes.items():
        graph.wait_for(f"persons of {camera}", lambda inbox=inbox: inbox.last)
    yield inboxes
    for inbox in inboxes.values():
        graph.forget(inbox)
    process.stop()


def more_of(graph: Graph, inbox: Inbox, count: int = 3) -> list[PersonArray]:
    """The next messages."""
    before = inbox.count
    graph.wait_for("more persons", lambda: inbox.count >= before + count)
    return inbox.messages[before - inbox.count :]


# One process


def test_persons_come_though_no_image_is_published(graph, persons):
    more_of(graph, persons["front"])

    for camera in CAMERAS:
        for topic in ("anonymized/image", "anonymized/image/compressed", "decoded_frame"):
            assert graph.node.count_subscribers(f"/{camera}/{topic}") == 0
            assert graph.node.count_publishers(f"/{camera}/{topic}") == 1
        status = graph.wait_for("figures", lambda c=camera: graph.status(f"decoder: {c}"))
        assert int(status["frames"]) > 0
        assert graph.status(f"detector: {camera}")["level"] == "OK"
        assert status["backend"].endswith(f"by {BACKEND}")
        assert graph.status(f"detector: {camera}")["backend"] == BACKEND


def test_persons_are_those_of_each_frame_by_itself(graph, persons, scenes):
    """Empty where nobody is, fresh, and under the camera's name."""
    for camera, inbox in persons.items():
        arrays = graph.wait_for(
            "persons of each scene",
            lambda inbox=inbox: of_each_size(inbox.messages, set(scenes)),
        )
        for size, message in arrays.items():
            expected = scenes[size].persons
            found = [[p.x, p.y, p.x + p.width, p.y + p.height] for p in message.persons]
            assert message.camera == camera
            assert np.reshape(found, (-1, 4)) == pytest.approx(expected.xyxy, abs=0.1)
            scores = [person.score for person in message.persons]
            assert scores == pytest.approx(expected.score.tolist(), abs=1e-3)
        assert arrays[NOBODY].persons == []
        stamps = [stamp_ns(message.header) for message in inbox.messages]
        assert stamps == sorted(set(stamps))
    assert sum(len(scene.persons) for scene in scenes.values()) >= 2  # else nothing was compared


def of_each_size(messages, sizes):
    found = {(m.image_height, m.image_width): m for m in messages}
    return found if set(found) == sizes else None


def test_images_are_published_to_whoever_subscribes_and_only_while_they_do(graph, persons, scenes):
    images = graph.listen(Image, "/front/anonymized/image")
    frames = graph.listen(DecodedFrame, "/front/decoded_frame")
    jpegs = graph.listen(CompressedImage, "/front/anonymized/image/compressed")
    for what, inbox in (("image", images), ("frame", frames), ("JPEG", jpegs)):
        graph.wait_for(what, lambda inbox=inbox: inbox.count > 3)

    by_stamp = {stamp_ns(m.header): m for m in images.messages}
    pairs = [(f, by_stamp[s]) for f in frames.messages if (s := stamp_ns(f.header)) in by_stamp]
    assert pairs
    for frame, message in pairs:
        scene = scenes[frame.original_height, frame.original_width]
        # A batch sums in another order: here and there a value rounds to the other side.
        apart = np.abs(rgb_from_image(message).astype(int) - scene.decoded)
        assert apart.max() <= 1
        assert frame.payload_bytes == len(scene.payload)
    for inbox in (images, frames, jpegs):
        graph.forget(inbox)
    more_of(graph, persons["front"])


def test_a_camera_that_can_not_be_decoded_is_silent_and_spoils_no_other(graph, persons, scenes):
    nothing = graph.listen(PersonArray, f"/{BROKEN}/persons", RELIABLE)
    latents = graph.listen(CompressedLatent, "/front/latent")
    message = graph.wait_for("a latent", lambda: latents.last)
    publisher = graph.node.create_publisher(CompressedLatent, f"/{BROKEN}/latent", 1)
    # Its checksum is right: only the entropy decoder can see that there is no picture in it.
    hollow = hollow_payload(bytes(message.data))

    def refused() -> dict[str, str] | None:
        message.header.stamp.sec += 1
        message.sequence += 1
        message.data = array.array("B", hollow)
        publisher.publish(message)
        status = graph.status(f"decoder: {BROKEN}")
        return status if status and int(status["rejected.bad_payload"]) >= 3 else None

    status = graph.wait_for("the refusal", refused)
    for camera in CAMERAS:
        assert len(more_of(graph, persons[camera])) >= 3

    assert status["level"] == "ERROR"
    assert nothing.count == 0
    for inbox in (nothing, latents):
        graph.forget(inbox)
    graph.node.destroy_publisher(publisher)


def hollow_payload(data: bytes) -> bytes:
    """A payload that says of itself all that is right, with nothing of a picture in its body."""
    from dataclasses import replace

    from roi_codec_ros.codec import Payload

    return replace(Payload.from_bytes(data), body=b"\xff" * 64).to_bytes()


def test_each_node_has_its_parameters_from_its_own_section(graph, persons):
    """What the graph was given wins over the file, and the file over defaults."""

    def values(node: str, *names: str):
        response = graph.call(
            GetParameters, f"/{node}/get_parameters", GetParameters.Request(names=names)
        )
        return response.values

    batch, pixels = values("decoder", "max_batch", "max_pixels")
    assert (batch.integer_value, pixels.integer_value) == (4, MAX_PIXELS)
    batch, confidence = values("detector", "max_batch", "confidence")
    assert batch.integer_value == 3
    assert confidence.double_value == pytest.approx(CONFIDENCE)


def test_what_can_not_be_in_time_is_not_decoded(graph, persons):
    assert all(r.successful for r in graph.set_parameters("/decoder", deadline_ms=0.5))
    status = graph.wait_for(
        "late frames",
        lambda: (s := graph.status("decoder: front")) and int(s["late"]) >= 3 and s,
    )
    assert status["level"] in ("WARN", "ERROR")  # by whether one was tried lately

    assert all(r.successful for r in graph.set_parameters("/decoder", deadline_ms=60000.0))
    assert len(more_of(graph, persons["front"])) >= 3
    late = int(graph.status("decoder: front")["late"])
    more_of(graph, persons["front"])
    assert int(graph.status("decoder: front")["late"]) == late


def test_nothing_is_decoded_for_a_detector_that_is_not_active(graph, persons):
    assert graph.change_state("/detector", Transition.TRANSITION_DEACTIVATE)
    graph.wait_for(
        "rest",
        lambda: "no subscribers" in graph.status("decoder: front")["message"],
    )
    assert graph.status("decoder: front")["level"] == "OK"

    assert graph.change_state("/detector", Transition.TRANSITION_ACTIVATE)
    assert len(more_of(graph, persons["front"])) >= 3


def test_cameras_come_and_go_while_the_server_runs(graph, persons):
    gone, *left = CAMERAS
    for node in ("/decoder", "/detector"):
        (taken,) = graph.set_parameters(node, cameras=left)
        assert taken.successful, taken.reason
    topics = [f"/{gone}/persons", f"/{gone}/anonymized/image"]
    graph.wait_for("no topic of its", lambda: not any(map(graph.node.count_publishers, topics)))
    before = persons[gone].count
    more_of(graph, persons[left[0]])
    assert persons[gone].count == before

    (refused,) = graph.set_parameters("/decoder", cameras=["no name"])
    assert "expected a camera name of letters" in refused.reason
    for node in ("/decoder", "/detector"):
        graph.set_parameters(node, cameras=[*CAMERAS, BROKEN])
    more_of(graph, persons[gone])
    since_s = time.monotonic()
    graph.wait_for("figures", lambda: graph.status(f"decoder: {gone}", since_s))


def test_the_server_ends_cleanly(graph, persons, server):
    """Last of these: it takes the server down."""
    status, _ = server.stop(signal.SIGTERM)

    assert status == 0
    assert "Traceback" not in server.log


# Two servers, one tracker


def test_two_servers_share_the_cameras_and_one_goes_on_without_the_other(graph, model, folder):
    def start(name: str, cameras: tuple[str, ...]) -> NodeProcess:
        specs = server_graph(
            cameras,
            models=[model],
            detector=str(person_weights()),
            threads=1,
            confidence=CONFIDENCE,
            server_name=name,
        )
        return graph.start(joined(specs)[0])

    servers = {"north": start("north", NORTH), "south": start("south", SOUTH)}
    tracker = graph.start(server_graph([*NORTH, *SOUTH])[2])
    inboxes = {
        camera: graph.listen(PersonArray, f"/{camera}/persons", RELIABLE)
        for camera in (*NORTH, *SOUTH)
    }
    replaying = replay(graph, folder, (*NORTH, *SOUTH))
    for camera, inbox in inboxes.items():
        graph.wait_for(f"persons of {camera}", lambda inbox=inbox: inbox.last)

    for name, cameras in (("north", NORTH), ("south", SOUTH)):
        for camera in cameras:
            (hearer,) = graph.node.get_subscriptions_info_by_topic(f"/{camera}/latent")
            (teller,) = graph.node.get_publishers_info_by_topic(f"/{camera}/persons")
            assert (hearer.node_name, teller.node_name) == (f"decoder_{name}", f"detector_{name}")
            for node in ("decoder", "detector"):
                subject = f"{node}_{name}: {camera}"
                graph.wait_for(subject, lambda subject=subject: graph.status(subject))
    names = [name for name in graph.node.get_node_names() if name != "replaying"]
    assert len(names) == len(set(names))
    assert graph.status(f"decoder_north: {SOUTH[0]}") is None
    for camera in inboxes:
        graph.wait_for("the tracker", lambda c=camera: level(graph, f"tracker: {c}") == "OK")

    servers["north"].kill()
    graph.wait_for("its end", lambda: level(graph, f"tracker: {NORTH[0]}") == "STALE")
    before = {camera: inbox.count for camera, inbox in inboxes.items()}
    for camera in SOUTH:
        assert len(more_of(graph, inboxes[camera], 5)) >= 5
        assert level(graph, f"tracker: {camera}") == "OK"
    assert [inboxes[camera].count for camera in NORTH] == [before[camera] for camera in NORTH]

    assert replaying.stop()[0] == 0
    sent = json.loads((folder / "sent.json").read_text(encoding="utf-8"))
    for camera, inbox in inboxes.items():
        assert {stamp_ns(message.header) for message in inbox.messages} <= set(sent[camera])
    assert servers["south"].stop(signal.SIGINT)[0] == 0
    assert tracker.stop(signal.SIGINT)[0] == 0


def level(graph: Graph, name: str) -> str | None:
    status = graph.status(name, newer_than_s=time.monotonic() - 3.0)
    return status["level"] if status else None


# The bench


def test_the_bench_runs_a_server_and_writes_a_row_for_it(tmp_path):
    report = tmp_path / "server.json"
    model = tmp_path / "model.safetensors"
    untrained_model("nano", 0).save(model)
    arguments = ["--cameras", "2", "--rate", "2", "--seconds", "3", "--sizes", "96x64"]
    arguments += ["--processes", "1", "--threads", "1", "--model", str(model)]
    program = [sys.executable, "-m", "roi_codec_ros.cli", "bench", "--server", *arguments]
    program += ["--weights", str(person_weights()), "--json", str(report)]
    # A domain of its own, as for a user who has named none.
    environment = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"}

    done = subprocess.run(program, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    written = json.loads(report.read_text(encoding="utf-8"))
    (row,) = written["rows"]
    assert (row["processes"], row["cameras"]) == (1, 2)
    assert 2 < row["in_fps"] < 5
    assert 0 < row["out_fps"] <= row["in_fps"]
    assert row["dropped"]["total"] == round(3 * (row["in_fps"] - row["out_fps"]), 0)
    assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p95"] <= row["latency_ms"]["p99"]
    assert row["cpu_percent"] > 0
    assert row["memory_mib"] > 100
    assert written["saturates_at"] == {"1": 2 if row["saturated"] else None}
    assert written["server"]["size"] == "96x64"
    assert "one process" in done.stdout
