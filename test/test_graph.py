# SPDX-License-Identifier: Apache-2.0
"""The graph for real: node processes over DDS, real photographs, a real detector.

One graph serves most tests: a camera that shows three photographs in turn, and the server. What
needs the trained model or person weights is skipped, with the reason, where these are not there.
"""

from __future__ import annotations

import array
import importlib.util
import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import NEWEST, RELIABLE, NodeProcess
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import GetState
from phone_film import write_phone_film
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from roi_codec_ros.codec import untrained_model
from roi_codec_ros.codec.models import model_directories
from roi_codec_ros.common.image_messages import rgb_from_image
from roi_codec_ros.config.bringup import camera_graph, server_graph
from roi_codec_ros.config.parameters import NODE_PARAMETERS
from roi_codec_ros.msg import CompressedLatent, DecodedFrame, PersonArray
from roi_codec_ros.nodes.conversions import image_from_rgb, stamp_ns

pytestmark = pytest.mark.graph

ROOT = Path(__file__).resolve().parents[1]
TRAINED_MODEL = ROOT / "models" / "fast.safetensors"
DETECTOR_VARIABLE = "ROI_CODEC_TEST_DETECTOR"
SHARED_DETECTOR = ROOT.parent / "shared" / "weights" / "yolov8n-person-st.pt"
CAMERA = "front"
PHOTOGRAPHS = (  # in the order of the source; all carried by installed packages
    ("ultralytics", "assets/bus.jpg"),
    ("ultralytics", "assets/zidane.jpg"),
    ("skimage", "data/astronaut.png"),
)
BUS, ZIDANE, ASTRONAUT = range(3)
SIZES = {BUS: (1080, 810), ZIDANE: (720, 1280), ASTRONAUT: (512, 512)}
RATE_HZ = 3.0
RVIZ_SHOWS = {  # by the display's class
    "rviz_default_plugins/Map": "nav_msgs/msg/OccupancyGrid",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
    "rviz_default_plugins/PoseArray": "geometry_msgs/msg/PoseArray",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
}


def person_weights() -> Path | None:
    """Weights to test with: named by the environment, shared beside the repository, installed."""
    named = os.environ.get(DETECTOR_VARIABLE)
    candidates = [Path(named)] if named else [SHARED_DETECTOR]
    candidates += [p for d in model_directories() for p in sorted(d.glob("person-*.pt"))]
    return next((path for path in candidates if path.is_file()), None)


needs_detector = pytest.mark.skipif(
    person_weights() is None or importlib.util.find_spec("ultralytics") is None,
    reason=f"no ultralytics or no person weights: name some in {DETECTOR_VARIABLE}",
)
needs_trained_model = pytest.mark.skipif(
    not TRAINED_MODEL.is_file(), reason="models/fast.safetensors is not there"
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A folder with the photographs, named in order."""
    folder = tmp_path_factory.mktemp("photographs")
    for index, (package, name) in enumerate(PHOTOGRAPHS):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{package} is not installed: its photographs are the test's source")
        path = Path(spec.origin).parent / name
        shutil.copy(path, folder / f"{index}{path.suffix}")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Paths of the model in use (the trained one where it is there) and of another one."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("untrained", "other")):
        untrained_model("nano", seed).save(folder / f"{name}.safetensors")
    own = TRAINED_MODEL if TRAINED_MODEL.is_file() else folder / "untrained.safetensors"
    return {"own": str(own), "other": str(folder / "other.safetensors")}


@pytest.fixture(scope="module")
def encoder_spec(photographs, models):
    (spec,) = camera_graph(CAMERA, str(photographs), models["own"], rate_hz=RATE_HZ, threads=1)
    return spec


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("snapshots")


@pytest.fixture(scope="module")
def server_specs(models, snapshots):
    weights = person_weights()
    return server_graph(
        [CAMERA],
        models=[models["own"]],
        detector=str(weights or ""),
        threads=1,
        confidence=0.25,
        snapshot_folder=str(snapshots),
    )


@pytest.fixture(scope="module")
def running(graph, encoder_spec, server_specs) -> dict[str, NodeProcess]:
    """The camera and its server, up and decoding."""
    processes = {}
    for spec in [encoder_spec, *server_specs]:
        if spec.executable == "detector_node" and person_weights() is None:
            continue
        processes[spec.name] = graph.start(spec)
    images = graph.listen(Image, f"/{CAMERA}/anonymized/image")
    graph.wait_for("anonymized image", lambda: images.last)
    graph.forget(images)
    return processes


@pytest.fixture(scope="module")
def received(graph, running) -> dict[int, tuple[DecodedFrame, np.ndarray]]:
    """One decoded frame and its pixels for each photograph, as a subscriber sees them."""
    images = graph.listen(Image, f"/{CAMERA}/anonymized/image")
    frames = graph.listen(DecodedFrame, f"/{CAMERA}/decoded_frame")

    def one_of_each():
        by_stamp = {stamp_ns(m.header): m for m in images.messages}
        pairs = {
            f.source_position: (f, by_stamp[stamp_ns(f.header)])
            for f in frames.messages
            if stamp_ns(f.header) in by_stamp
        }
        return pairs if set(pairs) == set(SIZES) else None

    pairs = graph.wait_for("decoded frame of each photograph", one_of_each)
    graph.forget(images)
    graph.forget(frames)
    return {position: (f, rgb_from_image(m)) for position, (f, m) in pairs.items()}


@pytest.fixture(scope="module")
def persons(graph, running) -> dict[tuple[int, int], PersonArray]:
    """One array of persons for each photograph, by the size of the camera's image."""
    inbox = graph.listen(PersonArray, f"/{CAMERA}/persons", RELIABLE)

    def one_of_each():
        arrays = {(m.image_height, m.image_width): m for m in inbox.messages}
        return arrays if set(arrays) == set(SIZES.values()) else None

    arrays = graph.wait_for("persons for each photograph", one_of_each)
    graph.forget(inbox)
    return arrays


def restarted(graph, spec, inbox) -> NodeProcess:
    """Start a spec and wait until its effect arrives in an inbox."""
    before = inbox.count
    process = graph.start(spec)
    graph.wait_for(f"message after the start of {spec.full_name}", lambda: inbox.count > before)
    return process


# Camera to persons


def test_images_arrive_at_the_coded_size_with_what_the_decoder_knows(received, models):
    for position, (frame, pixels) in received.items():
        height, width = SIZES[position]
        assert (frame.original_height, frame.original_width) == (height, width)
        assert pixels.shape == (frame.coded_height, frame.coded_width, 3)
        assert frame.coded_width == min(width, 640)
        assert frame.coded_height == round(height * frame.coded_width / width)
        assert 0 < frame.payload_bytes < pixels.size
        assert frame.decode_ms > 0
        assert frame.header.frame_id == f"{CAMERA}_optical_frame"


def test_images_do_not_get_lost_on_the_way(graph, running):
    """Images are larger than what Fast DDS keeps in shared memory by itself."""
    frames = graph.listen(DecodedFrame, f"/{CAMERA}/decoded_frame")
    images = graph.listen(Image, f"/{CAMERA}/anonymized/image")
    graph.wait_for("both", lambda: frames.last and images.last)
    before = frames.count

    graph.wait_for("ten frames", lambda: frames.count >= before + 10)
    sent = {stamp_ns(m.header) for m in frames.messages[before:-1]}
    arrived = sent & {stamp_ns(m.header) for m in images.messages}

    assert len(arrived) >= 0.7 * len(sent)
    graph.forget(frames)
    graph.forget(images)


def test_stamps_pass_through_unchanged_from_camera_to_tracks(graph, running, persons):
    latents = graph.listen(CompressedLatent, f"/{CAMERA}/latent")
    tracks = graph.listen(PersonArray, "/persons/unplaced", RELIABLE)

    def common():
        sent = {stamp_ns(m.header) for m in latents.messages}
        return sent & {stamp_ns(m.header) for m in tracks.messages}

    assert graph.wait_for("track with the stamp of a latent", common)
    graph.forget(latents)
    graph.forget(tracks)


def test_camera_info_has_the_size_and_stamp_of_an_image(graph, running):
    infos = graph.listen(CameraInfo, f"/{CAMERA}/anonymized/camera_info")
    images = graph.listen(Image, f"/{CAMERA}/anonymized/image", RELIABLE)

    def pair():
        by_stamp = {stamp_ns(m.header): m for m in images.messages}
        return next(
            ((i, by_stamp[s]) for i in infos.messages if (s := stamp_ns(i.header)) in by_stamp),
            None,
        )

    info, image = graph.wait_for("camera_info and image of one stamp", pair)
    assert (info.height, info.width) == (image.height, image.width)
    assert info.header == image.header
    assert not any(info.k)  # not calibrated
    graph.forget(infos)
    graph.forget(images)


@needs_detector
def test_persons_name_the_size_of_the_cameras_image(persons):
    for (height, width), array_message in persons.items():
        assert array_message.camera == CAMERA
        assert array_message.detect_ms > 0
        for person in array_message.persons:
            assert 0 <= person.x <= person.x + person.width <= width + 1e-3
            assert 0 <= person.y <= person.y + person.height <= height + 1e-3


@needs_detector
@needs_trained_model
def test_persons_are_found_where_they_are(persons):
    """The bus photograph shows four people; the three in front of the bus are easy to see."""
    walkers = [(48, 400, 245, 900), (220, 405, 345, 860), (668, 390, 810, 880)]
    found = [(p.x, p.y, p.x + p.width, p.y + p.height) for p in persons[SIZES[BUS]].persons]

    seen = [walker for walker in walkers if any(iou(walker, box) > 0.5 for box in found)]

    assert len(seen) >= 2, found


@needs_trained_model
def test_faces_are_not_found(received, photographs):
    """MTCNN finds the faces in the photographs, and none of them in what the server gets."""
    detector = pytest.importorskip("facenet_pytorch").MTCNN(keep_all=True)

    def faces(rgb):
        boxes, _ = detector.detect(rgb)
        return [] if boxes is None else boxes.tolist()

    for position in (ZIDANE, ASTRONAUT):
        path = next(photographs.glob(f"{position}.*"))
        _, anonymized = received[position]
        height, width = anonymized.shape[:2]
        original = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        # The same size for both, so that only the coding makes the difference.
        original = cv2.resize(original, (width, height), interpolation=cv2.INTER_AREA)

        there = faces(original)
        assert there
        # Something else that looks like a face to the detector (a suit's collar and badges, as
        # large as the picture) is no face that came through.
        assert [found for found in faces(anonymized) if any(meets(found, f) for f in there)] == []


def meets(found, face):
    """Whether a box that was found may be that face: they overlap, or its middle lies in it."""
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    inside = face[0] <= x <= face[2] and face[1] <= y <= face[3]
    return inside or iou(found, face) >= 0.1


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / (sum((r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)) - common)


@needs_detector
def test_the_tracker_passes_persons_on_with_a_place_and_a_marker(graph, running):
    tracks = graph.listen(PersonArray, "/persons/unplaced", RELIABLE)
    markers = graph.listen(MarkerArray, "/persons/markers", RELIABLE)

    track = graph.wait_for("tracks", lambda: tracks.last)
    graph.wait_for("markers", lambda: markers.last)

    assert track.camera == CAMERA
    for person in track.persons:
        assert person.position_valid
        assert person.position.z > 0
        assert person.position_covariance[3] > 0
    graph.forget(tracks)
    graph.forget(markers)


@needs_detector
def test_annotated_image_and_jpeg_come_while_someone_subscribes(graph, running):
    drawn = graph.listen(Image, f"/{CAMERA}/image_persons")
    jpegs = graph.listen(CompressedImage, f"/{CAMERA}/anonymized/image/compressed")

    graph.wait_for("annotated image", lambda: drawn.last)
    jpeg = graph.wait_for("compressed image", lambda: jpegs.last)

    assert cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR) is not None
    graph.forget(drawn)
    graph.forget(jpegs)


@needs_detector
def test_the_detector_takes_the_images_of_other_publishers(
    graph, running, server_specs, photographs
):
    """Of a bag, for example: no decoder says how large they were, so they are the camera's own."""
    detector = server_specs[1]
    parameters = {**detector.parameters, "cameras": ["bag"]}
    process = graph.start(replace(detector, name="other", parameters=parameters))
    persons = graph.listen(PersonArray, "/bag/persons", RELIABLE)
    publisher = graph.node.create_publisher(Image, "/bag/anonymized/image", RELIABLE)
    bgr = cv2.imread(str(next(photographs.glob(f"{BUS}.*"))))
    image = image_from_rgb(bgr[:, :, ::-1], CompressedLatent().header)

    def found():
        publisher.publish(image)
        return persons.last

    array_message = graph.wait_for("persons", found)
    status = graph.wait_for("its diagnostics", lambda: graph.status("other: bag"))
    assert (array_message.image_height, array_message.image_width) == SIZES[BUS]
    assert len(array_message.persons) >= 2
    assert status["rejected.unknown_size"] == "0"
    graph.node.destroy_publisher(publisher)
    graph.forget(persons)
    assert process.stop(signal.SIGINT)[0] == 0


def test_another_publisher_on_a_topic_of_ours_is_an_error_that_names_it(graph, running):
    publisher = graph.node.create_publisher(CompressedLatent, f"/{CAMERA}/latent", NEWEST)

    status = graph.wait_for("complaint", lambda: graph.status(f"{CAMERA}/encoder: topics"))
    graph.node.destroy_publisher(publisher)

    assert status["level"] == "ERROR"
    assert status["message"].endswith(f"found /listener on /{CAMERA}/latent")


def test_a_snapshot_is_an_anonymized_image_in_the_folder_for_them(graph, running, snapshots):
    answer = graph.call(Trigger, "/decoder/snapshot", Trigger.Request())

    assert answer.success, answer.message
    path = graph.wait_for("a file", lambda: next(iter(snapshots.glob(f"{CAMERA}_*.jpg")), None))
    assert cv2.imread(str(path)) is not None


def test_a_node_is_switched_off_and_on_without_lifecycle_calls(graph, running):
    latents = graph.listen(CompressedLatent, f"/{CAMERA}/latent")
    graph.wait_for("latents", lambda: latents.count)

    off = graph.call(SetBool, f"/{CAMERA}/encoder/enable", SetBool.Request(data=False))
    graph.wait_for("to be inactive", lambda: graph.status(f"{CAMERA}/encoder: lifecycle"))
    on = graph.call(SetBool, f"/{CAMERA}/encoder/enable", SetBool.Request(data=True))
    count = latents.count
    graph.wait_for("latents again", lambda: latents.count > count)
    graph.forget(latents)

    assert (off.success, off.message) == (True, "inactive")
    assert (on.success, on.message) == (True, "active")
    assert latents.last.format == "roic/5"


# Privacy


def test_the_encoder_publishes_no_pixels(graph, running):
    published = dict(graph.node.get_publisher_names_and_types_by_node("encoder", f"/{CAMERA}"))

    own = {topic for topic in published if topic.startswith(f"/{CAMERA}/")}
    kinds = {kind for kinds in published.values() for kind in kinds}
    assert {f"/{CAMERA}/latent", f"/{CAMERA}/latent/camera_info"} <= own
    assert not {kind for kind in kinds if "Image" in kind or "PointCloud" in kind}


def test_the_only_image_topics_are_anonymized_ones(graph, running):
    topics = {
        topic
        for topic, kinds in graph.node.get_topic_names_and_types()
        if any(kind.endswith("Image") for kind in kinds) and graph.node.count_publishers(topic)
    }

    assert topics <= {
        f"/{CAMERA}/anonymized/image",
        f"/{CAMERA}/anonymized/image/compressed",
        f"/{CAMERA}/image_persons",
    }


def test_diagnostics_hold_what_their_page_says_and_nothing_as_large_as_a_picture(graph, running):
    page = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    subjects = {
        f"{CAMERA}/encoder: codec": "`<camera>/encoder: codec`",
        f"{CAMERA}/encoder: source": "`<camera>/encoder: source`",
        f"decoder: {CAMERA}": "`decoder: <camera>`",
        f"tracker: {CAMERA}": "`tracker: <camera>`",
    }
    if "detector" in running:
        subjects[f"detector: {CAMERA}"] = "`detector: <camera>`"
    for name, title in subjects.items():
        section = page.split(f"## {title}\n")[1].split("\n## ")[0]
        status = graph.wait_for(name, lambda name=name: graph.status(name))

        told = {key for key in status if key not in ("level", "message")}
        cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
        written = {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}

        assert told - written == set(), name
        assert written - told == set(), name
        assert all(len(text) < 400 and text.isprintable() for text in status.values()), status


def test_rviz_shows_what_is_published_and_in_a_quality_that_is_offered(graph, running):
    if person_weights() is None:
        pytest.skip("the detector does not run")
    shown = [display for display in rviz_displays() if "Topic" in display]
    graph.wait_for("the tracker", lambda: graph.node.count_publishers("/persons/cloud"))

    for display in shown:
        wanted = display["Topic"]
        topic = wanted["Value"].replace("/back/", f"/{CAMERA}/")
        offers = graph.wait_for(
            topic, lambda topic=topic: graph.node.get_publishers_info_by_topic(topic)
        )
        assert {offer.topic_type for offer in offers} == {RVIZ_SHOWS[display["Class"]]}
        for offer in offers:
            profile = offer.qos_profile
            if wanted["Reliability Policy"] == "Reliable":
                assert profile.reliability == ReliabilityPolicy.RELIABLE
            if wanted["Durability Policy"] == "Transient Local":
                assert profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert len(shown) == 8


def test_foxglove_shows_what_rviz_shows_of_the_same_cameras():
    panels = json.loads((ROOT / "config" / "persons.foxglove.json").read_text(encoding="utf-8"))
    configs = panels["configById"]
    images = {c["imageMode"]["imageTopic"] for c in configs.values() if "imageMode" in c}
    infos = {c["imageMode"]["calibrationTopic"] for c in configs.values() if "imageMode" in c}
    site = yaml.safe_load((ROOT / "config" / "cameras.yaml").read_text(encoding="utf-8"))

    in_rviz = {display["Topic"]["Value"] for display in rviz_displays() if "Topic" in display}
    assert images | set(configs["3D!map"]["topics"]) <= in_rviz
    assert {topic for topic in in_rviz if topic.startswith("/persons/")} == set(
        configs["3D!map"]["topics"]
    )
    assert {topic.split("/")[1] for topic in images} == set(site["cameras"])
    assert infos == {f"/{camera}/anonymized/camera_info" for camera in site["cameras"]}


def test_rviz_looks_at_the_trackers_map():
    [map_frame] = [p.default for p in NODE_PARAMETERS["tracker_node"] if p.name == "map_frame"]
    assert rviz_manager()["Global Options"]["Fixed Frame"] == map_frame
    assert "rviz_default_plugins/TF" in {display["Class"] for display in rviz_displays()}
    assert all(display["Enabled"] == display["Value"] for display in rviz_displays())


def rviz_manager():
    text = (ROOT / "config" / "persons.rviz").read_text(encoding="utf-8")
    return yaml.safe_load(text)["Visualization Manager"]


def rviz_displays():
    return rviz_manager()["Displays"]


# What goes wrong, and what stands


def test_damaged_payloads_are_refused_and_counted(graph, running):
    latents = graph.listen(CompressedLatent, f"/{CAMERA}/latent")
    latent = graph.wait_for("latent", lambda: latents.last)
    publisher = graph.node.create_publisher(CompressedLatent, f"/{CAMERA}/latent", RELIABLE)
    damaged = bytearray(latent.data)
    damaged[len(damaged) // 2] ^= 0x40
    latent.data = array.array("B", bytes(damaged))

    def refused():
        publisher.publish(latent)
        status = graph.status(f"decoder: {CAMERA}")
        return status if status and int(status["rejected.bad_payload"]) else None

    status = graph.wait_for("refusal in the diagnostics", refused)

    assert "expected" in status["last_reject"]
    assert running["decoder"].alive
    graph.node.destroy_publisher(publisher)
    graph.forget(latents)


def test_a_second_encoder_with_another_model_is_refused_and_named(
    graph, running, encoder_spec, models
):
    foreign = replace(
        encoder_spec,
        name="foreign",
        parameters={**encoder_spec.parameters, "model": models["other"]},
    )
    intruder = graph.start(foreign)

    def refused():
        status = graph.status(f"decoder: {CAMERA}")
        return status if status and int(status["rejected.unknown_model"]) else None

    status = graph.wait_for("refusal in the diagnostics", refused)
    images = graph.listen(Image, f"/{CAMERA}/anonymized/image")
    graph.wait_for("images of the first encoder", lambda: images.count >= 3)
    encoder = graph.wait_for("foreign", lambda: graph.status(f"{CAMERA}/foreign: codec"))
    own = graph.status(f"{CAMERA}/encoder: codec")

    for identity in (encoder["model_identity"][:16], own["model_identity"][:16]):
        assert identity in status["last_reject"]
        assert identity in running["decoder"].log
    assert f"{CAMERA}: payload refused" in running["decoder"].log
    assert status["level"] in ("WARN", "ERROR")
    graph.forget(images)
    assert intruder.stop(signal.SIGINT)[0] == 0


def test_a_late_joiner_decodes_at_once(graph, running, server_specs):
    decoder = server_specs[0]
    late = replace(
        decoder,
        name="late",
        remappings=(
            (f"/{CAMERA}/anonymized/image", "/late/image"),
            (f"/{CAMERA}/decoded_frame", "/late/frame"),
        ),
    )
    images = graph.listen(Image, "/late/image")
    frames = graph.listen(DecodedFrame, "/late/frame")
    process = graph.start(late)

    graph.wait_for("image of the late decoder", lambda: images.last)
    first = graph.wait_for("frame of the late decoder", lambda: frames.messages)[0]

    status = graph.wait_for("its diagnostics", lambda: graph.status(f"late: {CAMERA}"))
    assert first.sequence > 1
    assert (status["rejected.unknown_model"], status["rejected.bad_payload"]) == ("0", "0")
    graph.forget(images)
    graph.forget(frames)
    assert process.stop(signal.SIGTERM)[0] == 0


def test_a_killed_encoder_leaves_the_server_standing_and_its_successor_is_served(
    graph, running, encoder_spec
):
    graph.wait_for("OK", lambda: level_of(graph, f"decoder: {CAMERA}") in ("OK", "WARN"))
    running["encoder"].kill()
    graph.wait_for("STALE", lambda: level_of(graph, f"decoder: {CAMERA}") == "STALE")

    topic = f"/{CAMERA}/persons" if "detector" in running else f"/{CAMERA}/anonymized/image"
    kind, qos = (PersonArray, RELIABLE) if "detector" in running else (Image, None)
    inbox = graph.listen(kind, topic, *([qos] if qos else []))
    assert all(process.alive for name, process in running.items() if name != "encoder")
    running["encoder"] = restarted(graph, encoder_spec, inbox)

    graph.wait_for("OK again", lambda: level_of(graph, f"decoder: {CAMERA}") == "OK")
    graph.forget(inbox)


def level_of(graph, name):
    status = graph.status(name, newer_than_s=time.monotonic() - 3.0)
    return status["level"] if status else None


# Parameters and lifecycle


def test_max_width_changes_while_the_encoder_runs(graph, running):
    latents = graph.listen(CompressedLatent, f"/{CAMERA}/latent")

    [result] = graph.set_parameters(f"/{CAMERA}/encoder", max_width=320)

    assert result.successful
    graph.wait_for("smaller frames", lambda: latents.last and latents.last.coded_width == 320)
    graph.forget(latents)


def test_a_change_that_can_not_be_is_refused_with_the_reason(graph, running):
    encoder = f"/{CAMERA}/encoder"

    [wrong] = graph.set_parameters(encoder, max_width=-5)
    [late] = graph.set_parameters(encoder, model="other")

    assert not wrong.successful
    assert not late.successful
    assert "unconfigured" in late.reason


def test_a_node_without_autostart_waits_for_a_manager(graph, running, server_specs):
    tracker = server_specs[2]
    process = graph.start(
        replace(tracker, name="managed", parameters={**tracker.parameters, "autostart": False})
    )

    def state():
        return graph.call(GetState, "/managed/get_state", GetState.Request()).current_state.label

    assert state() == "unconfigured"
    assert graph.wait_for("status", lambda: graph.status("managed: lifecycle"))["level"] == "STALE"
    for transition, reached in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
    ):
        assert graph.change_state("/managed", transition)
        assert state() == reached
    # Impossible now, and no reason to end.
    assert not graph.change_state("/managed", Transition.TRANSITION_CONFIGURE)
    assert state() == "active"
    assert process.stop(signal.SIGTERM)[0] == 0


def test_parameters_file_and_qos_overrides_apply(graph, running, server_specs, tmp_path):
    file = tmp_path / "server.yaml"
    file.write_text(
        "/**:\n"
        "  ros__parameters:\n"
        "    cameras: [unused]\n"
        "    person_height_m: 2\n"  # a whole number for a double
        "    camera_poses: []\n"
        "    person_heigth_m: 1.0\n"
        "    qos_overrides./persons/tracks.publisher.reliability: best_effort\n",
        encoding="utf-8",
    )
    process = graph.start(replace(server_specs[2], name="filed"), file)

    graph.wait_for("status of the given camera", lambda: graph.status(f"filed: {CAMERA}"))

    def seen():
        return {
            info.node_name: info.qos_profile.reliability.name
            for info in graph.node.get_publishers_info_by_topic("/persons/tracks")
        }

    graph.wait_for("both publishers in the graph", lambda: {"filed", "tracker"} <= seen().keys())
    reliabilities = seen()
    assert reliabilities["filed"] == "BEST_EFFORT"
    assert reliabilities["tracker"] == "RELIABLE"
    assert "found none of that name: is person_height_m meant?" in process.log
    assert process.stop(signal.SIGINT)[0] == 0


def test_a_topic_source_codes_what_it_can_read_and_reports_the_rest(graph, running, models):
    (spec,) = camera_graph("topical", "topic:/driver/image_raw", models["own"], threads=1)
    process = graph.start(spec)
    latents = graph.listen(CompressedLatent, "/topical/latent")
    publisher = graph.node.create_publisher(Image, "/driver/image_raw", RELIABLE)
    image = image_from_rgb(np.full((48, 64, 3), 90, np.uint8), CompressedLatent().header)
    image.header.frame_id = "driver_frame"
    image.header.stamp.sec = 77

    def coded():
        publisher.publish(image)
        return latents.last

    latent = graph.wait_for("latent of the topic's image", coded)
    image.encoding = "32FC1"

    def reported():
        publisher.publish(image)
        status = graph.status("topical/encoder: codec")
        return status and int(status.get("rejected.encoding", 0))

    graph.wait_for("refused encoding in the diagnostics", reported)
    assert (latent.header.frame_id, latent.header.stamp.sec) == ("driver_frame", 77)
    assert latent.source_position == -1
    assert "found '32FC1'" in process.log
    graph.node.destroy_publisher(publisher)
    graph.forget(latents)
    assert process.stop(signal.SIGINT)[0] == 0


def test_a_film_by_its_address_ends_and_starts_again_when_told_to(graph, models, tmp_path):
    path = write_phone_film(tmp_path / "film.mp4", 90, frames=40, rate_hz=10.0)
    (spec,) = camera_graph("film", path.as_uri(), models["other"], threads=1, loop=False)
    latents = graph.listen(CompressedLatent, "/film/latent")
    process = graph.start(spec)

    def source(message):
        status = graph.status("film/encoder: source")
        return status if status and status["message"] == message else None

    status = graph.wait_for("its end", lambda: source("ended"))
    assert (status["kind"], status["losses"]) == ("video", "0")
    assert 1 <= latents.count <= 40  # not again and again
    [result] = graph.set_parameters("/film/encoder", loop=True)
    assert result.successful
    graph.wait_for("its beginning", lambda: latents.count > 40)
    assert max(latent.source_position for latent in latents.messages) == 39
    # Filmed by a phone held upright, whose sensor lies: 64 × 48, to be turned by 90°.
    sizes = {(latent.original_width, latent.original_height) for latent in latents.messages}
    assert sizes == {(48, 64)}
    graph.forget(latents)
    assert process.stop(signal.SIGINT)[0] == 0


def test_a_missing_camera_is_reported_and_does_not_end_the_node(graph, running, models):
    (spec,) = camera_graph("absent", "/dev/video97", models["own"], threads=1)
    process = graph.start(spec)

    def lost_twice():
        status = graph.status("absent/encoder: source")
        return status if status and int(status["losses"]) >= 2 else None

    status = graph.wait_for("loss in the diagnostics", lost_twice)

    assert status["level"] == "ERROR"
    assert "found: No such file or directory; next try in" in status["message"]
    assert process.log.count("expected a camera at /dev/video97") == 1
    assert "cap_v4l" not in process.log  # nothing of OpenCV's own beside it
    assert process.alive
    assert process.stop(signal.SIGTERM)[0] == 0


def test_a_model_that_leaves_faces_is_named_at_the_start(graph, running, tmp_path):
    leaky = untrained_model("nano").with_card(figures={"faces": 200, "original_faces": 400})
    leaky.save(tmp_path / "leaky.safetensors")
    (spec,) = camera_graph("leaky", "/dev/video97", str(tmp_path / "leaky.safetensors"), threads=1)
    process = graph.start(spec)

    status = graph.wait_for("its diagnostics", lambda: graph.status("leaky/encoder: codec"))

    assert status["faces_left"] == "0.500"
    assert "leaves 50% of faces to a face detector" in process.log
    assert process.stop(signal.SIGTERM)[0] == 0


# The end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_quietly(graph, running, encoder_spec, number):
    process = graph.start(replace(encoder_spec, name="brief"))
    graph.wait_for(
        "the process to be itself", lambda: b"encoder_node" in cmdline(process.process.pid)
    )
    graph.wait_for(
        "signals in hand", lambda: signals_caught(process.process.pid) >> (number - 1) & 1
    )

    status, _ = process.stop(number)

    assert status == 0
    assert "Traceback" not in process.log


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def signals_caught(pid):
    """The mask of signals that a process has handlers for; SIGTERM has one only by our doing."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    mask = int(next(line.split()[1] for line in status.splitlines() if "SigCgt" in line), 16)
    return mask if mask >> (signal.SIGTERM - 1) & 1 else 0


WRONG = {  # parameters of an encoder: its status, and what it says
    "model": ({"model": "no-such-model"}, 1, "no-such-model"),
    "source": ({"source": "/no/such/file.mp4"}, 1, "/no/such/file.mp4"),
    "width": ({"max_width": -1}, 2, "max_width"),
    "device": ({"device": "warp9"}, 2, "warp9"),
    "torch's device": ({"device": "meta"}, 2, "found 'meta'"),
    "topic": ({"source": "topic:/not a name"}, 2, "topic /not a name"),
    "topic of infos": (
        {"source": "topic:image", "camera_info_topic": "not a name"},
        1,
        "topic name must not",
    ),
}


@pytest.fixture(scope="module")
def wrong_encoders(graph, encoder_spec):
    """All of them at once: most of their time is one of imports."""
    return {
        name: graph.start(
            replace(
                encoder_spec,
                name=f"wrong{number}",
                parameters={**encoder_spec.parameters, **overrides},
            )
        )
        for number, (name, (overrides, *_)) in enumerate(WRONG.items())
    }


@pytest.mark.parametrize("name", WRONG)
def test_a_node_that_can_not_start_says_why_in_one_line(graph, wrong_encoders, name):
    process, (_, status, sentence) = wrong_encoders[name], WRONG[name]

    assert graph.wait_for("its end", lambda: process.process.poll() is not None)
    assert process.process.returncode == status, process.log
    assert sentence in process.log
    assert "Traceback" not in process.log


def test_every_node_ends_cleanly_on_a_signal(graph, running):
    """Last: it takes the graph down."""
    numbers = {"encoder": signal.SIGTERM, "decoder": signal.SIGINT}
    outcomes = {
        name: process.stop(numbers.get(name, signal.SIGTERM))[0]
        for name, process in running.items()
    }

    assert set(outcomes.values()) == {0}, outcomes
    for name, process in running.items():
        assert "Traceback" not in process.log, f"{name}\n{process.log}"
