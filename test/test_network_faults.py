# SPDX-License-Identifier: Apache-2.0
"""A network that loses, delays and reorders latents, between real processes.

    encoder ─ latent_sent ─► relay, a process that writes down what it did ─ latent ─► decoder

What the relay let through is what the decoder is held to. It loses whole frames: where a network
loses packets, a frame of many of them is lost more often.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import Graph, Inbox, NodeProcess
from sensor_msgs.msg import Image

from roi_codec_ros.codec import untrained_model
from roi_codec_ros.config.bringup import camera_graph, server_graph
from roi_codec_ros.msg import CompressedLatent, DecodedFrame
from roi_codec_ros.nodes.conversions import stamp_ns

pytestmark = pytest.mark.graph

CAMERA, STREAMED = "front", "yard"
DECODER = f"decoder: {CAMERA}"
RATE_HZ = 20.0
RECOVERY_S = 2.0
_DONE = re.compile(r"^(lost|sent) (\d+)\n", re.MULTILINE)
FRAMES = 100  # that the encoder sends while the network is bad


@dataclass(frozen=True)
class Link:
    """A camera, the network, its decoder, and what comes of it."""

    graph: Graph
    model: Path
    relay: NodeProcess
    latents: Inbox
    frames: Inbox
    images: Inbox

    def done(self) -> list[tuple[str, int]]:
        """What the relay did with each frame so far: ("lost" or "sent", sequence)."""
        return [(what, int(number)) for what, number in _DONE.findall(self.relay.log)]

    def set(self, loss: float, jitter_ms: float) -> None:
        """Make the network as bad as that, now."""
        results = self.graph.set_parameters("/relay", loss=float(loss), jitter_ms=float(jitter_ms))
        assert all(result.successful for result in results)


def helper(graph: Graph, script: str, *arguments: str) -> NodeProcess:
    """A process that is no node of ours."""
    process = NodeProcess(
        [sys.executable, str(Path(__file__).with_name(script)), *arguments],
        graph.folder / f"{len(graph.processes)}-{script}.log",
        {**os.environ, "ROS_DOMAIN_ID": str(graph.domain_id)},
    )
    graph.processes.append(process)
    return process


@pytest.fixture(scope="module")
def link(graph, tmp_path_factory) -> Iterator[Link]:
    folder = tmp_path_factory.mktemp("network")
    model = folder / "model.safetensors"
    untrained_model("nano").save(model)
    (folder / "pictures").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    cv2.imwrite(str(folder / "pictures" / "0.png"), picture)
    (encoder,) = camera_graph(
        CAMERA, str(folder / "pictures"), str(model), rate_hz=RATE_HZ, threads=1, skip="on"
    )
    decoder = server_graph([CAMERA, STREAMED], models=[str(model)], threads=1)[0]
    sent, heard = f"/{CAMERA}/latent_sent", f"/{CAMERA}/latent"
    relay = helper(graph, "lossy_relay.py", sent, heard, "7")
    graph.start(replace(encoder, remappings=(("latent", "latent_sent"),)))
    graph.start(decoder)
    link = Link(
        graph,
        model,
        relay,
        graph.listen(CompressedLatent, heard, keep=10_000),
        graph.listen(DecodedFrame, f"/{CAMERA}/decoded_frame", keep=10_000),
        graph.listen(Image, f"/{CAMERA}/anonymized/image", keep=10_000),
    )
    graph.wait_for("images", lambda: link.images.count > 2)
    yield link


def figures(graph: Graph) -> dict[str, int]:
    """What the decoder counts, told after now."""
    asked_s = time.monotonic()
    status = graph.wait_for(
        "diagnostics", lambda: graph.status(DECODER, newer_than_s=asked_s + 0.1)
    )
    return {name: int(status[name]) for name in ("frames", "lost", "restarts", "rejected.late")}


@pytest.mark.parametrize(("loss", "jitter_ms"), [(0.05, 0.0), (0.2, 0.0), (0.2, 200.0)])
def test_loss_and_jitter_cost_frames_and_no_more(
    graph: Graph,
    link: Link,
    loss: float,
    jitter_ms: float,
    record_property: Callable[[str, object], None],
):
    before, first = figures(graph), len(link.done())
    started_s = time.monotonic()
    link.set(loss, jitter_ms)
    graph.wait_for("frames", lambda: len(link.done()) >= first + FRAMES)
    cause = "late: " if jitter_ms else "lost on the way"
    named = graph.wait_for("the cause", lambda: named_by(graph, cause))
    link.set(0.0, 0.0)
    over_s = time.monotonic()
    recovery = graph.recovery(link.latents, link.images, over_s)
    after, done = figures(graph), link.done()[first:]
    two_seconds = set(next_frames(graph, link, round(RECOVERY_S * RATE_HZ)))
    whole = len(two_seconds & {m.sequence for m in link.frames.messages}) / len(two_seconds)
    record_property(
        "recovery", f"{recovery.seconds:.2f} s, then {100 * whole:.0f} % of the frames"
    )

    lost = [number for what, number in done if what == "lost"]
    sent = [number for what, number in done if what == "sent"]
    in_order = [n for n, newest in zip(sent, running_maximum(sent), strict=True) if n == newest]
    decoded = [m.sequence for m in link.frames.messages if m.sequence >= min(sent)]
    assert 0.3 * loss < len(lost) / len(done) < 2 * loss + 0.05
    assert set(decoded).isdisjoint(lost)
    assert decoded == sorted(set(decoded)), "decoded twice, or out of order"
    assert len(decoded) > 0.25 * len(in_order), "what came through is decoded, but for a busy core"
    stamps = [stamp_ns(image.header) for _, image in link.images.since(started_s)]
    assert stamps == sorted(set(stamps))
    assert named["level"] == "WARN"
    assert after["lost"] - before["lost"] >= len(lost) - 1, "the last one may not be missed yet"
    assert (after["rejected.late"] > before["rejected.late"]) == bool(jitter_ms)
    assert after["restarts"] == before["restarts"]
    assert recovery.frames <= RECOVERY_S * RATE_HZ
    assert whole > 0.2, "all, but for a busy core"


def test_what_a_lost_frame_may_have_changed_is_unknown_until_it_is_sent_again(
    graph: Graph, link: Link
):
    link.set(0.1, 0.0)
    graph.wait_for("a gap", lambda: link.frames.last.known_share < 1.0)
    link.set(0.0, 0.0)
    graph.wait_for("the whole picture", lambda: link.frames.last.known_share == 1.0)
    seen = link.frames.messages

    assert graph.wait_for("diagnostics", lambda: at_level(graph, DECODER, "OK"))
    for message in seen:
        grid = np.frombuffer(bytes(message.unknown), np.uint8)
        if message.known_share == 1.0:
            assert message.unknown_columns == 0 and grid.size == 0
        else:
            assert message.unknown_columns == 6 and grid.size == 24
            assert message.known_share == pytest.approx(1.0 - grid.mean())
    skipped = graph.status(f"{CAMERA}/encoder: codec")["skipped"]
    assert 0.2 < float(skipped) < 0.99


def test_a_bit_rate_is_set_and_let_go_while_the_camera_runs(graph: Graph, link: Link):
    codec = f"{CAMERA}/encoder: codec"

    def at_quality(quality: float) -> bool:
        return float((graph.status(codec) or {"quality": "nan"})["quality"]) == quality

    for target, quality in ((1e6, 16.0), (0.0, 0.0)):
        (result,) = graph.set_parameters(f"/{CAMERA}/encoder", target_kbit_s=target)
        assert result.successful
        graph.wait_for(f"quality {quality:g}", lambda quality=quality: at_quality(quality))


def next_frames(graph: Graph, link: Link, count: int) -> list[int]:
    """The sequences of the next frames that the relay sends, once they have been decoded."""
    known = len(link.done())
    graph.wait_for("frames", lambda: len(link.done()) >= known + count + 2)
    return [number for _, number in link.done()[known : known + count]]


def named_by(graph: Graph, cause: str) -> dict[str, str] | None:
    status = graph.status(DECODER)
    return status if status and cause in status["message"] else None


def running_maximum(numbers: list[int]) -> list[int]:
    return list(itertools.accumulate(numbers, max))


def test_a_network_camera_that_dies_is_named_and_served_again_when_it_is_back(
    graph: Graph, link: Link, record_property: Callable[[str, object], None]
):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source, stale = f"{STREAMED}/encoder: source", f"decoder: {STREAMED}"
    images = graph.listen(Image, f"/{STREAMED}/anonymized/image", keep=1000)
    latents = graph.listen(CompressedLatent, f"/{STREAMED}/latent", keep=1000)
    address = f"http://user:secret@127.0.0.1:{port}/stream.mjpg"
    graph.start(camera_graph(STREAMED, address, str(link.model), threads=1)[0])
    gone = graph.wait_for("ERROR", lambda: at_level(graph, source, "ERROR"))
    assert "found nothing that opens; next try in" in gone["message"]
    server = serving(graph, port)
    graph.wait_for("images", lambda: images.last)
    server.kill()
    graph.wait_for("STALE at the server", lambda: at_level(graph, stale, "STALE"))
    gone = graph.wait_for("ERROR", lambda: at_level(graph, source, "ERROR"))
    serving(graph, port)
    recovery = graph.recovery(latents, images, time.monotonic())
    graph.wait_for("OK", lambda: at_level(graph, source, "OK"))

    record_property("recovery", f"{recovery.seconds:.2f} s")
    assert f"://…@127.0.0.1:{port}" in gone["message"]
    assert "secret" not in graph.logs()
    assert recovery.frames == 0


def serving(graph: Graph, port: int) -> NodeProcess:
    """A camera that has come up."""
    server = helper(graph, "mjpeg_server.py", str(port))
    graph.wait_for("a stream", lambda: "serving" in server.log)
    return server


def at_level(graph: Graph, name: str, level: str) -> dict[str, str] | None:
    status = graph.status(name)
    return status if status and status["level"] == level else None
