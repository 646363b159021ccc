# SPDX-License-Identifier: Apache-2.0
"""encoder_node behind a driver's topics: its camera_info, and the status of its source."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import RELIABLE, Graph, Periodic
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from roi_codec_ros.codec import untrained_model
from roi_codec_ros.config.bringup import camera_graph
from roi_codec_ros.msg import CompressedLatent
from roi_codec_ros.nodes.conversions import image_from_rgb, stamp_ns

pytestmark = pytest.mark.graph

CAMERA = "yard"
MAX_WIDTH = 320
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def camera_info(width: int, height: int, focal: float, cx: float, cy: float) -> CameraInfo:
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
    message.p = [0.9 * focal, 0.0, cx, 0.0, 0.0, 0.9 * focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


class Driver(Periodic):
    """Publishes grey images of a size, ten times a second, while it has a size."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(10.0)
        self.size: tuple[int, int] | None = (640, 480)
        self.encoding = "rgb8"
        self._node = graph.node
        self._images = [
            graph.node.create_publisher(Image, f"/driver/{name}", RELIABLE)
            for name in ("image_raw", "image_rect_color")
        ]
        self.stamps_ns: list[int] = []

    def step(self) -> None:
        if self.size is not None:
            width, height = self.size
            header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id="lens")
            self.stamps_ns.append(stamp_ns(header))
            image = image_from_rgb(np.full((height, width, 3), 90, np.uint8), header)
            image.encoding = self.encoding
            for publisher in self._images:
                publisher.publish(image)


@pytest.fixture(scope="module")
def infos(graph):
    """The driver's camera_info: published once, before the encoder is there, and kept for it."""
    publisher = graph.node.create_publisher(CameraInfo, "/driver/camera_info", LATCHED)
    publisher.publish(camera_info(640, 480, 600.0, 330.0, 236.0))
    return publisher


@pytest.fixture(scope="module")
def encoder(graph, infos, tmp_path_factory):
    model = tmp_path_factory.mktemp("models") / "nano.safetensors"
    untrained_model("nano").save(model)
    (spec,) = camera_graph(
        CAMERA,
        "topic:/driver/image_raw",
        str(model),
        rate_hz=0.0,
        threads=1,
        max_width=MAX_WIDTH,
        camera_info_topic="/driver/camera_info",
    )
    process = graph.start(spec)
    rectified = replace(
        spec,
        namespace="/rectified",
        parameters={**spec.parameters, "source": "topic:/driver/image_rect_color"},
    )
    graph.start(rectified)
    return process


@pytest.fixture(scope="module")
def driver(graph, encoder) -> Iterator[Driver]:
    driver = Driver(graph)
    driver.start()
    yield driver
    driver.close()


def source(graph, name: str = CAMERA) -> dict[str, str]:
    """The last status of the source, if it is of now."""
    return graph.status(f"{name}/encoder: source", time.monotonic() - 2.5) or {"level": ""}


def coded(graph, matches, name: str = CAMERA) -> CameraInfo:
    inbox = graph.listen(CameraInfo, f"/{name}/latent/camera_info", LATCHED)
    found = graph.wait_for(
        "camera_info of the coded picture",
        lambda: next((m for m in reversed(inbox.messages) if matches(m)), None),
    )
    graph.forget(inbox)
    return found


def intrinsics(info: CameraInfo) -> tuple[float, float, float, float]:
    return info.k[0], info.k[4], info.k[2], info.k[5]


def test_a_camera_info_that_was_published_once_before_counts(graph, driver):
    info = coded(graph, lambda m: m.k[0] > 0)

    assert (info.width, info.height) == (320, 240)
    assert intrinsics(info) == (300.0, 300.0, 165.0, 118.0)
    graph.wait_for("OK", lambda: source(graph)["level"] == "OK")
    graph.wait_for("a calibration", lambda: source(graph).get("calibrated") == "true")


def test_rectified_images_beside_a_raw_camera_info_have_the_projections_camera(graph, driver):
    info = coded(graph, lambda m: m.k[0] > 0, "rectified")

    assert intrinsics(info) == pytest.approx((270.0, 270.0, 165.0, 118.0))
    assert list(info.d) == []


def test_a_region_of_interest_keeps_the_focal_length(graph, driver, infos):
    info = camera_info(1280, 960, 1200.0, 650.0, 470.0)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 320, 240, 640, 480
    infos.publish(info)

    made = coded(graph, lambda m: m.k[0] > 500)

    assert intrinsics(made) == (600.0, 600.0, 165.0, 115.0)


def test_a_camera_info_without_a_size_is_that_of_the_image(graph, driver, infos):
    infos.publish(camera_info(0, 0, 500.0, 310.0, 250.0))

    made = coded(graph, lambda m: m.k[0] == 250.0)

    assert intrinsics(made) == (250.0, 250.0, 155.0, 125.0)


def test_a_calibration_of_another_shape_is_refused_and_comes_back_with_its_images(
    graph, driver, infos
):
    infos.publish(camera_info(640, 480, 600.0, 330.0, 236.0))
    coded(graph, lambda m: m.k[0] == 300.0)
    inbox = graph.listen(CameraInfo, f"/{CAMERA}/latent/camera_info", LATCHED)
    driver.size = (640, 360)
    status = graph.wait_for("WARN", lambda: source(graph)["level"] == "WARN" and source(graph))
    newer_than_s = time.monotonic() + 1.0
    graph.wait_for("time", lambda: graph.status(f"{CAMERA}/encoder: source", newer_than_s))

    assert "no camera_info: expected an image of the calibration's shape" in status["message"]
    assert status["calibrated"] == "false"
    assert (inbox.last.width, inbox.last.height) == (0, 0)  # it is not known any longer

    driver.size = (640, 480)
    graph.wait_for("camera_info again", lambda: inbox.last.width)
    graph.wait_for("OK", lambda: source(graph)["level"] == "OK")
    graph.forget(inbox)


def test_stamps_pass_through_until_an_offset_is_set(graph, driver):
    latents = graph.listen(CompressedLatent, f"/{CAMERA}/latent")
    graph.wait_for("latents", lambda: latents.count > 2)
    assert {stamp_ns(m.header) for m in latents.messages} <= set(driver.stamps_ns)

    graph.set_parameters(f"/{CAMERA}/encoder", stamp_offset_s=-0.25)
    moved = graph.wait_for(
        "moved stamps",
        lambda: [m for m in latents.messages if stamp_ns(m.header) not in driver.stamps_ns],
    )
    assert {stamp_ns(m.header) + 250_000_000 for m in moved} <= set(driver.stamps_ns)
    assert {m.header.frame_id for m in moved} == {"lens"}
    graph.set_parameters(f"/{CAMERA}/encoder", stamp_offset_s=0.0)
    graph.forget(latents)


def test_the_status_of_the_source_is_that_of_now(graph, driver):
    graph.wait_for("OK", lambda: source(graph)["level"] == "OK")
    driver.encoding = "made_up7"
    status = graph.wait_for("ERROR", lambda: source(graph)["level"] == "ERROR" and source(graph))
    assert "made_up7" in status["message"]

    driver.encoding = "rgb8"
    graph.wait_for("OK again", lambda: source(graph)["level"] == "OK")

    driver.size = None
    status = graph.wait_for("STALE", lambda: source(graph)["level"] == "STALE" and source(graph))
    assert "no image for" in status["message"]
    driver.size = (640, 480)
    graph.wait_for("OK in the end", lambda: source(graph)["level"] == "OK")


def test_it_has_seen_nothing_that_it_did_not_expect(graph, driver, encoder):
    assert encoder.stop(signal.SIGINT)[0] == 0
    assert "Traceback" not in graph.logs()
    assert "incompatible QoS" not in graph.logs()
