# SPDX-License-Identifier: Apache-2.0
"""Image topics of others: taken as their publishers offer them. Real processes over real DDS."""

from __future__ import annotations

import array
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import NEWEST, RELIABLE
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from roi_codec_ros.codec import untrained_model
from roi_codec_ros.config.bringup import NodeSpec, camera_graph
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.nodes.conversions import image_from_rgb
from roi_codec_ros.nodes.following import Offer, Way, unheard, way_to_take

pytestmark = pytest.mark.graph

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
TYPES = (IMAGE, COMPRESSED)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
HEADER = CompressedLatent().header


# Which way is taken


@pytest.mark.parametrize(
    ("offers", "way"),
    [
        ([Offer("/d", IMAGE, reliable=True)], Way(IMAGE, reliable=True)),
        ([Offer("/d", IMAGE, reliable=False)], Way(IMAGE)),
        ([Offer("/d", IMAGE, reliable=True), Offer("/e", IMAGE, reliable=False)], Way(IMAGE)),
        (
            [Offer("/d", IMAGE, reliable=True, latched=True)],
            Way(IMAGE, reliable=True, latched=True),
        ),
        ([Offer("/d", COMPRESSED, reliable=True)], Way(COMPRESSED, reliable=True)),
        (
            [Offer("/d", COMPRESSED, reliable=True), Offer("/e", IMAGE, reliable=False)],
            Way(IMAGE),
        ),
        ([Offer("/d", "std_msgs/msg/String", reliable=True)], Way(IMAGE)),
    ],
)
def test_the_way_is_the_best_that_all_publishers_offer(offers, way):
    assert way_to_take(offers, TYPES, Way(IMAGE)) == way


def test_without_a_publisher_nothing_changes():
    current = Way(COMPRESSED, reliable=True)

    assert way_to_take([], TYPES, current) == current


def test_a_type_that_is_taken_is_kept_while_it_is_offered():
    offers = [Offer("/d", COMPRESSED, reliable=True), Offer("/e", IMAGE, reliable=True)]

    way = way_to_take(offers, TYPES, Way(COMPRESSED))

    assert way == Way(COMPRESSED, reliable=True)
    assert unheard(offers, TYPES, way) == f"expected {COMPRESSED} only, found {IMAGE} of /e"


def test_publishers_that_nothing_is_taken_of_are_named():
    offers = [Offer("/d", "std_msgs/msg/String", reliable=True)]
    slack = [Offer("/d", IMAGE, reliable=False)]

    assert unheard(offers, TYPES, Way(IMAGE)) == (
        f"expected {IMAGE} or {COMPRESSED}, found std_msgs/msg/String of /d"
    )
    assert "found best effort of /d" in unheard(slack, TYPES, Way(IMAGE, reliable=True))
    assert unheard(slack, TYPES, Way(IMAGE)) == ""


# The encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("models") / "untrained.safetensors"
    untrained_model("nano").save(path)
    return str(path)


@pytest.fixture(scope="module")
def spec(model) -> NodeSpec:
    (spec,) = camera_graph(
        "cam", "topic:/driver/image", model, threads=1, max_width=64, rate_hz=0.0
    )
    return spec


@pytest.fixture(scope="module")
def encoder(graph, spec):
    process = graph.start(spec)
    status = graph.wait_for("its diagnostics", lambda: source_status(graph))
    assert status["message"] == "no image yet: no publisher on /driver/image"
    return process


@pytest.fixture
def publish(graph, encoder):
    """Publishers on the driver's topic until the end of a test."""
    made = []

    def attempt(kind, profile):
        try:
            return graph.node.create_publisher(kind, "/driver/image", profile)
        except RuntimeError:  # the last test's, of another type, is still being taken down
            return None

    def create(kind, profile):
        made.append(graph.wait_for("a publisher", lambda: attempt(kind, profile)))
        return made[-1]

    yield create
    for publisher in made:
        graph.node.destroy_publisher(publisher)
    graph.wait_for("nobody", lambda: (source_status(graph) or {}).get("publishers") == "0")


def source_status(graph, name="cam"):
    return graph.status(f"{name}/encoder: source")


def wait_for_source(graph, what, name="cam", **values):
    """Wait until the source's status has these values."""

    def there():
        status = source_status(graph, name)
        return status if status and values.items() <= status.items() else None

    return graph.wait_for(what, there)


def taken(graph):
    """Images that came to the encoder, whether it had the time to code them or not."""
    status = graph.status("cam/encoder: codec") or {}
    return int(status.get("frames", 0)) + int(status.get("dropped", 0))


def picture(height, width):
    noise = np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)
    return image_from_rgb(noise, HEADER)


def test_every_large_image_of_a_reliable_driver_is_taken(graph, publish):
    """Best effort loses half of these on one machine, with nothing else to do."""
    publisher = publish(Image, RELIABLE)
    wait_for_source(graph, "the driver", publishers="1", reliability="reliable")
    latents = graph.listen(CompressedLatent, "/cam/latent")
    image = picture(1080, 1920)

    for count in range(1, 11):
        publisher.publish(image)
        graph.wait_for("it", lambda count=count: latents.count >= count or taken(graph) >= count)

    graph.forget(latents)
    status = wait_for_source(graph, "all well", level="OK", message="images arrive")
    assert status["lost"] == "0"


def test_a_driver_that_comes_back_with_best_effort_is_heard(graph, publish):
    latents = graph.listen(CompressedLatent, "/cam/latent")
    publisher = publish(Image, NEWEST)

    wait_for_source(graph, "the driver", publishers="1", reliability="best_effort")

    graph.wait_for("a latent", lambda: publisher.publish(picture(48, 64)) or latents.last)
    graph.forget(latents)


def test_two_drivers_of_which_one_is_reliable_are_both_heard(graph, publish):
    latents = graph.listen(CompressedLatent, "/cam/latent")
    publishers = [publish(Image, RELIABLE), publish(Image, NEWEST)]
    wait_for_source(graph, "both", publishers="2", reliability="best_effort")

    for publisher, width in zip(publishers, (64, 128), strict=True):

        def heard(publisher=publisher, width=width):
            publisher.publish(picture(48, width))
            return any(latent.original_width == width for latent in latents.messages)

        graph.wait_for("its image", heard)
    graph.forget(latents)


def test_an_image_that_was_there_before_is_taken(graph, publish):
    latents = graph.listen(CompressedLatent, "/cam/latent")
    publish(Image, LATCHED).publish(picture(48, 192))

    latent = graph.wait_for("its latent", lambda: latents.last)

    assert latent.original_width == 192
    graph.forget(latents)


@pytest.mark.parametrize(("suffix", "size"), [(".jpg", (48, 96)), (".png", (48, 160))])
def test_compressed_images_are_taken(graph, publish, suffix, size):
    latents = graph.listen(CompressedLatent, "/cam/latent")
    publisher = publish(CompressedImage, RELIABLE)
    _, data = cv2.imencode(suffix, np.full((*size, 3), 90, np.uint8))
    message = CompressedImage(format=f"bgr8; {suffix[1:]} compressed bgr8")
    message.header.stamp.sec, message.header.frame_id = 77, "driver_frame"
    message.data = array.array("B", data.tobytes())

    def of_this_size():  # those of the images before may still be on their way
        publisher.publish(message)
        last = latents.last
        return last if last and (last.original_height, last.original_width) == size else None

    latent = graph.wait_for("its latent", of_this_size)

    assert (latent.header.stamp.sec, latent.header.frame_id) == (77, "driver_frame")
    graph.forget(latents)


def test_a_topic_of_something_else_is_named(graph, publish):
    publish(String, RELIABLE)

    status = wait_for_source(graph, "the clash", level="ERROR", publishers="1")

    assert "/driver/image: expected sensor_msgs/msg/Image or" in status["message"]
    assert "found std_msgs/msg/String of /listener" in status["message"]


def test_images_that_can_not_be_read_are_named_until_good_ones_come(graph, publish):
    publisher = publish(Image, RELIABLE)
    image = picture(48, 64)
    image.encoding = "32FC1"

    def seen(level, text):
        publisher.publish(image)
        status = source_status(graph)
        return status if status["level"] == level and text in status["message"] else None

    graph.wait_for("the refusal", lambda: seen("ERROR", "found '32FC1'"))
    image.encoding = "rgb8"
    graph.wait_for("good ones", lambda: seen("OK", "images arrive"))
    graph.wait_for("silence", lambda: "no image for" in source_status(graph)["message"])


def test_sixteen_bits_that_nobody_scaled_are_named(graph, publish):
    publisher = publish(Image, RELIABLE)
    image = picture(48, 64)
    image.encoding, image.step = "mono16", 128
    raw = np.random.default_rng(7).integers(7000, 7500, 48 * 64).astype("<u2")
    image.data = array.array("B", raw.tobytes())

    def seen():
        publisher.publish(image)
        return "hardly any contrast" in source_status(graph)["message"]

    graph.wait_for("the warning", seen)


def test_what_is_lost_is_counted(graph, spec, encoder, tmp_path):
    """As `qos_overrides` ask for: by best effort, of a driver who offers more."""
    override = tmp_path / "best_effort.yaml"
    override.write_text(
        "/**:\n  ros__parameters:\n"
        "    qos_overrides./driver/large.subscription.reliability: best_effort\n",
        encoding="utf-8",
    )
    process = graph.start(
        replace(
            spec,
            namespace="/slack",
            parameters={**spec.parameters, "source": "topic:/driver/large"},
        ),
        override,
    )
    newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    publisher = graph.node.create_publisher(Image, "/driver/large", newest)
    wait_for_source(graph, "the driver", "slack", publishers="1", reliability="best_effort")
    graph.wait_for("a match", publisher.get_subscription_count)
    image, sent = picture(1080, 1920), 0

    def counted():
        nonlocal sent
        publisher.publish(image)
        sent += 1
        status = source_status(graph, "slack")
        return status if int(status["lost"]) else None

    def warned():
        return counted() and "lost on the way" in source_status(graph, "slack")["message"]

    status = graph.wait_for("losses", counted)
    assert int(status["lost"]) <= sent
    graph.wait_for("the warning", warned)
    graph.node.destroy_publisher(publisher)
    assert process.stop()[0] == 0


def test_a_quality_that_can_not_be_is_refused_in_one_line(graph, spec, encoder, tmp_path):
    override = tmp_path / "sometimes.yaml"
    override.write_text(
        "/**:\n  ros__parameters:\n"
        "    qos_overrides./driver/image.subscription.reliability: sometimes\n",
        encoding="utf-8",
    )
    process = graph.start(replace(spec, namespace="/wrong"), override)

    graph.wait_for("its end", lambda: not process.alive)

    assert process.process.returncode == 2, process.log
    assert (
        "expected one of best_available, reliable, best_effort, found 'sometimes'" in process.log
    )
    assert "Traceback" not in process.log


def test_encoder_and_decoder_by_their_own_names_meet(graph, encoder, model, tmp_path):
    """As `ros2 run` starts them, with no more than a source; else the decoder says why not."""
    cv2.imwrite(str(tmp_path / "one.png"), np.full((48, 64, 3), 90, np.uint8))
    images = graph.listen(Image, "/camera/anonymized/image")
    decoder = graph.start(NodeSpec("decoder_node", "decoder", "/", {"models": [model]}))

    def lonely():
        status = graph.status("decoder: camera")
        return status and "no publisher on /camera/latent, but there is" in status["message"]

    graph.wait_for("what the decoder misses", lonely)
    assert "/cam/latent" in graph.status("decoder: camera")["message"]
    by_hand = graph.start(
        NodeSpec("encoder_node", "encoder", "/", {"source": str(tmp_path), "model": model})
    )

    graph.wait_for("an image", lambda: images.last)
    assert "Traceback" not in by_hand.log + decoder.log
    assert by_hand.stop()[0] == 0
    assert decoder.stop()[0] == 0
    graph.forget(images)


def test_an_encoder_that_nobody_listens_to_says_so(graph, publish):
    publisher = publish(Image, RELIABLE)

    def said():
        publisher.publish(picture(48, 64))
        return "no subscribers on /cam/latent" in graph.status("cam/encoder: codec")["message"]

    graph.wait_for("that nobody listens", said)
