# SPDX-License-Identifier: Apache-2.0
"""`roi-codec anonymize` for bags: every picture is rewritten or dropped, all else is the same."""

from __future__ import annotations

import io
import json
import sqlite3
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.cli import main
from roi_codec_ros.common.image_messages import ENCODINGS, rgb_from_image
from roi_codec_ros.recordings import bag_writing
from roi_codec_ros.recordings.bag_reading import Bag
from roi_codec_ros.recordings.image_planes import hide_in_image

pytest.importorskip("av")
rosbag1 = pytest.importorskip("rosbags.rosbag1")
rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

McapReader = pytest.importorskip("rosbags.rosbag2.storage_mcap").McapReader
from roi_codec_ros.recordings.mcap_extras import Extra, add_extras, extras  # noqa: E402
from roi_codec_ros.recordings.mcap_messages import (  # noqa: E402
    NumberedWriter,
    Publishing,
    numbered_messages,
)
from roi_codec_ros.recordings.mcap_repair import ATTACHMENT_INDEX, METADATA_INDEX  # noqa: E402

SECOND = 1_000_000_000
CUSTOM = "site_msgs/msg/Shift"
NESTED = "site_msgs/msg/Portrait"
DEFINITIONS = {
    CUSTOM: "string name\nuint8[] blob\n",
    NESTED: "string name\nsensor_msgs/Image image\n",
    "theora_image_transport/msg/Packet": "std_msgs/Header header\nuint8[] data\n",
}
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
TYPES = {
    "/tf": "tf2_msgs/msg/TFMessage",
    "/imu": "sensor_msgs/msg/Imu",
    "/lidar": "sensor_msgs/msg/PointCloud2",
    "/coloured": "sensor_msgs/msg/PointCloud2",
    "/shift": CUSTOM,
    "/front/image_raw": IMAGE,
    "/rear/image/compressed": COMPRESSED,
    "/depth/image_raw": IMAGE,
    "/portrait": NESTED,
    "/front/theora": "theora_image_transport/msg/Packet",
}
COPIED = ("/tf", "/imu", "/lidar", "/shift")
FRAMES = 4


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut()[:256, 100:356])


class Maker:
    """Makes the messages of a test bag."""

    def __init__(self, picture: np.ndarray, ros1: bool) -> None:
        stores = typesys.Stores
        self.store = typesys.get_typestore(stores.ROS1_NOETIC if ros1 else stores.ROS2_JAZZY)
        self.ros1 = ros1
        for name, text in DEFINITIONS.items():
            self.store.register(typesys.get_types_from_msg(text, name))
        if ros1:
            text = "geometry_msgs/TransformStamped[] transforms\n"
            self.store.register(typesys.get_types_from_msg(text, TYPES["/tf"]))
        self.picture = picture

    def message(self, topic: str, number: int) -> Any:
        types, sequence = self.store.types, {"seq": number} if self.ros1 else {}
        stamp = types["builtin_interfaces/msg/Time"](sec=number, nanosec=7)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="body", **sequence)
        height, width = self.picture.shape[:2]
        image = types[IMAGE](header, height, width, "rgb8", 0, 3 * width, self.picture.reshape(-1))
        vector = types["geometry_msgs/msg/Vector3"](1.0, 2.0, float(number))
        turn = types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
        nine = np.zeros(9)
        if topic == "/tf":
            transform = types["geometry_msgs/msg/Transform"](vector, turn)
            stamped = types["geometry_msgs/msg/TransformStamped"]
            return types[TYPES[topic]]([stamped(header, "camera", transform)])
        if topic == "/imu":
            return types[TYPES[topic]](header, turn, nine, vector, nine, vector, nine)
        if topic in ("/lidar", "/coloured"):
            names = ("x", "y", "z", *(["rgb"] if topic == "/coloured" else []))
            field = types["sensor_msgs/msg/PointField"]
            fields = [field(name, 4 * place, 7, 1) for place, name in enumerate(names)]
            data = np.arange(16, dtype=np.uint8)
            return types[TYPES[topic]](header, 1, 1, fields, False, 16, 16, data, True)
        if topic == "/shift":
            return types[CUSTOM](f"shift {number}", np.arange(number + 1, dtype=np.uint8))
        if topic == "/rear/image/compressed":
            file = io.BytesIO()
            Image.fromarray(self.picture).save(file, "JPEG", quality=90)
            data = np.frombuffer(file.getvalue(), np.uint8)
            return types[COMPRESSED](header, "rgb8; jpeg compressed bgr8", data)
        if topic == "/depth/image_raw":
            return types[IMAGE](header, 2, 2, "16UC1", 0, 4, np.zeros(8, np.uint8))
        if topic == "/portrait":
            return types[NESTED]("somebody", image)
        if topic == "/front/theora":
            return types[TYPES[topic]](header, np.zeros(4, np.uint8))
        return image

    def content(self, topic: str, number: int) -> bytes:
        write = self.store.serialize_ros1 if self.ros1 else self.store.serialize_cdr
        return bytes(write(self.message(topic, number), TYPES[topic]))

    def read(self, content: bytes, msgtype: str) -> Any:
        read = self.store.deserialize_ros1 if self.ros1 else self.store.deserialize_cdr
        return read(content, msgtype)


def write_bag(path: Path, maker: Maker, storage: str, frames: int = FRAMES) -> Path:
    if storage == "bag":
        writer = rosbag1.Writer(path)
    else:
        plugin = rosbag2.StoragePlugin[storage.upper()]
        writer = rosbag2.Writer(path, version=9, storage_plugin=plugin)
        if storage == "mcap":
            fmt = rosbag2.CompressionFormat.ZSTD
            writer.set_compression(rosbag2.CompressionMode.STORAGE, fmt)
    with writer:
        connections = {
            topic: writer.add_connection(topic, msgtype, typestore=maker.store)
            for topic, msgtype in TYPES.items()
        }
        for number in range(frames):
            for place, (topic, connection) in enumerate(connections.items()):
                stamp = (100 + number) * SECOND // 10 + place
                writer.write(connection, stamp, maker.content(topic, number))
    return path


def read_bag(path: Path) -> dict[str, list[tuple[int, bytes, str]]]:
    reader = (rosbag1 if path.suffix == ".bag" else rosbag2).Reader(path)
    found: dict[str, list[tuple[int, bytes, str]]] = {}
    with reader:
        for connection, stamp, content in reader.messages():
            found.setdefault(connection.topic, []).append((stamp, content, connection.msgtype))
        assert reader.message_count == sum(map(len, found.values()))
    return found


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "bag"])
def test_a_bag_keeps_everything_but_heads(tmp_path, astronaut, storage, capsys):
    maker = Maker(astronaut, ros1=storage == "bag")
    suffix = ".bag" if storage == "bag" else ""
    source = write_bag(tmp_path / f"in{suffix}", maker, storage)
    target = tmp_path / f"out{suffix}"
    result = tmp_path / "result.json"

    report = tmp_path / "report.html"
    options = ["--json", str(result), "--report", str(report), "--report-detector", "haar"]

    assert main(["anonymize", str(source), str(target), *options, "--report-every", "2"]) == 0

    before, after = read_bag(source), read_bag(target)
    for topic in COPIED:
        assert after[topic] == before[topic]
    for topic, shape in (("/front/image_raw", IMAGE), ("/rear/image/compressed", COMPRESSED)):
        assert [(s, t) for s, _, t in after[topic]] == [(s, t) for s, _, t in before[topic]]
        for (_, old, _), (_, new, _) in zip(before[topic], after[topic], strict=True):
            assert maker.read(old, shape).header == maker.read(new, shape).header
            assert old != new
    shown = rgb_from_image(maker.read(after["/front/image_raw"][0][1], IMAGE))
    face = (slice(80, 160), slice(85, 165))
    assert np.abs(shown[face].astype(float) - astronaut[face]).mean() > 15
    assert (shown == astronaut).all(axis=2).mean() > 0.4
    assert not set(after) & {"/coloured", "/depth/image_raw", "/portrait", "/front/theora"}
    said = capsys.readouterr().err
    for topic in ("/coloured", "/portrait", "/front/theora"):
        assert f"dropped: {topic} (" in said
    assert "found depth (16UC1)" in said
    figures = json.loads(result.read_bytes())
    assert figures["copied"] == dict.fromkeys(COPIED, FRAMES)
    cameras = {camera["name"]: camera for camera in figures["cameras"]}
    assert cameras["/front/image_raw"]["frames_with_heads"] == FRAMES
    assert cameras["/depth/image_raw"]["frames_left_out"] == FRAMES
    for topic in ("/front/image_raw", "/rear/image/compressed"):
        assert cameras[topic]["frames_inspected"] == FRAMES // 2
    page = report.read_text()
    assert "Anonymized: " in page and "Dropped: /coloured" in page
    assert page.count("<figure>") == page.count("data:image/jpeg;base64,")
    shown = page.count("a frame as it was written")
    assert shown == sum(camera["frames_with_faces_left"] for camera in cameras.values())


def test_topics_are_kept_and_chosen_by_name_and_become_what_is_asked_for(
    tmp_path, astronaut, capsys
):
    maker = Maker(astronaut, ros1=False)
    source, target = write_bag(tmp_path / "in", maker, "mcap"), tmp_path / "out.mcap"
    command = ["anonymize", str(source), str(target), "--as", "compressed"]

    assert main([*command, "--topics", "/front/image_raw", "--keep", "/depth/image_raw"]) == 0

    before, after = read_bag(source), read_bag(target)
    assert after["/depth/image_raw"] == before["/depth/image_raw"]
    assert {msgtype for _, _, msgtype in after["/front/image_raw"]} == {COMPRESSED}
    assert "/rear/image/compressed" not in after
    said = capsys.readouterr().err
    assert "kept as it is, and may show persons: /depth/image_raw" in said
    assert main([*command, "--keep", "/nowhere"]) == 2
    assert "found '/nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("storage", "name", "target"),
    [
        ("mcap", "broken.mcap", "out"),
        ("sqlite3", "broken.db3", "out"),
        ("bag", "broken.bag.active", "out.bag"),
    ],
)
def test_a_bag_that_is_cut_off_is_read_as_far_as_it_goes(
    tmp_path, astronaut, capsys, storage, name, target
):
    ros1 = storage == "bag"
    source = tmp_path / ("in.bag" if ros1 else "in")
    whole = write_bag(source, Maker(astronaut, ros1), storage, frames=12)
    data = (
        whole if ros1 else next(p for p in whole.iterdir() if p.suffix != ".yaml")
    ).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 3 // 4])

    assert main(["anonymize", str(tmp_path / name), str(tmp_path / target)]) == 0

    assert "which are kept" in capsys.readouterr().err
    kept, given = read_bag(tmp_path / target), read_bag(whole)
    assert 3 <= len(kept["/front/image_raw"]) < 12
    for topic in COPIED:
        assert kept[topic] == given[topic][: len(kept[topic])]


def test_what_a_recorder_left_beside_a_bag_is_read_too(tmp_path, astronaut):
    whole = write_bag(tmp_path / "in", Maker(astronaut, ros1=False), "sqlite3")
    given = read_bag(whole)
    database = sqlite3.connect(next(whole.glob("*.db3")))
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("UPDATE messages SET timestamp = timestamp + 5")
    database.commit()
    left = tmp_path / "left"
    left.mkdir()
    for file in whole.glob("*.db3*"):  # as they are when the recorder is killed
        (left / file.name).write_bytes(file.read_bytes())
    database.close()

    with Bag(left, tmp_path / "scratch") as bag:
        stamps = [stamp for _, stamp, _ in bag.messages()]

    assert sorted(stamps) == sorted(s + 5 for found in given.values() for s, _, _ in found)
    assert any("was not closed" in note for note in bag.notes)


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", ""), ("mcap", ".mcap"), ("bag", ".bag")])
def test_a_run_that_was_killed_goes_on_and_writes_the_same(
    tmp_path, astronaut, monkeypatch, storage, suffix
):
    monkeypatch.setattr(bag_writing, "PART_BYTES", 700_000)
    maker = Maker(astronaut, ros1=storage == "bag")
    frames = 12 if not suffix else 6
    name = "in.bag" if storage == "bag" else "in"
    source = write_bag(tmp_path / name, maker, storage, frames=frames)
    result, once, out = tmp_path / "result.json", tmp_path / f"once{suffix}", f"out{suffix}"
    assert main(["anonymize", str(source), str(once), "--json", str(result)]) == 0
    whole = json.loads(result.read_bytes())
    assert suffix or len(list(once.glob("*.mcap"))) > 2
    write, count = bag_writing.PartsWriter.write, 0

    def killed(*args: Any) -> None:
        nonlocal count
        count += 1
        if count > 40 * frames // 12:
            raise KeyboardInterrupt
        write(*args)

    with monkeypatch.context() as context:
        context.setattr(bag_writing.PartsWriter, "write", killed)
        assert main(["anonymize", str(source), str(tmp_path / out)]) == 130
    assert not (tmp_path / out).exists()

    assert main(["anonymize", str(source), str(tmp_path / out), "--json", str(result)]) == 0

    assert read_bag(tmp_path / out) == read_bag(once)
    assert json.loads(result.read_bytes()) == whole
    assert not list(tmp_path.glob(".*"))


def test_how_messages_were_published_stays(tmp_path, astronaut):
    class Publisher(NumberedWriter):
        """Publishes 5 ms before messages are recorded."""

        count = 0

        def write(self, connection: Any, timestamp: int, data: Any) -> None:
            self.count += 1
            self.tell(Publishing(self.count, timestamp - 5_000_000))
            super().write(connection, timestamp, data)

    with pytest.MonkeyPatch.context() as context:
        context.setattr(rosbag2, "Writer", Publisher)
        source = write_bag(tmp_path / "in", Maker(astronaut, ros1=False), "mcap")

    assert (
        main(["anonymize", str(source), str(tmp_path / "out"), "--topics", "/front/image_raw"])
        == 0
    )

    def published(folder: Path) -> dict[tuple[int, str], Publishing]:
        reader = McapReader(next(folder.glob("*.mcap")))
        reader.open()
        topics = {c.id: c.topic for c in reader.connections}
        found = {(m.stamp_ns, topics[m.channel]): m.publishing for m in numbered_messages(reader)}
        reader.close()
        return found

    before, after = published(source), published(tmp_path / "out")
    assert {topic for _, topic in after} == {*COPIED, "/front/image_raw"}
    assert after == {key: before[key] for key in after}
    assert {key[0] - value.published_ns for key, value in after.items()} == {5_000_000}


def test_a_folder_of_other_things_is_never_replaced_by_a_bag(tmp_path, astronaut, capsys):
    source = write_bag(tmp_path / "in", Maker(astronaut, ros1=False), "mcap")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")

    assert main(["anonymize", str(source), str(tmp_path / "home"), "--force"]) == 1

    assert "it is a folder of other things" in capsys.readouterr().err
    assert (tmp_path / "home" / "thesis.txt").exists()


def test_latents_in_a_bag_become_video_and_films_from_any_place_on(tmp_path, astronaut, capsys):
    pytest.importorskip("torch")
    av = pytest.importorskip("av")
    source = write_bag(tmp_path / "in", Maker(astronaut, ros1=False), "mcap")
    latents, video = tmp_path / "latents.mcap", tmp_path / "video.mcap"
    topics = ["--topics", "/front/image_raw"]

    assert main(["anonymize", str(source), str(latents), "--as", "latent", *topics]) == 0
    assert main(["decode", str(latents), str(video)]) == 0
    assert main(["decode", str(latents), str(tmp_path / "front.mp4")]) == 0

    before, coded, shown = read_bag(source), read_bag(latents), read_bag(video)
    assert {t for _, _, t in coded["/front/image_raw"]} == {"roi_codec_ros/msg/CompressedLatent"}
    assert shown["/imu"] == before["/imu"]
    frames = shown["/front/image_raw"]
    assert [stamp for stamp, _, _ in frames] == [s for s, _, _ in before["/front/image_raw"]]
    assert {msgtype for _, _, msgtype in frames} == {"foxglove_msgs/msg/CompressedVideo"}
    store = typesys.get_typestore(typesys.Stores.LATEST)
    text = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    store.register(typesys.get_types_from_msg(text, frames[0][2]))
    context = av.CodecContext.create("h264", "r")
    pictures = []
    for _, content, msgtype in frames:
        message = store.deserialize_cdr(content, msgtype)
        assert (message.format, message.frame_id) == ("h264", "body")
        pictures += context.decode(av.Packet(bytes(message.data)))
    pictures += context.decode(None)
    assert len(pictures) == FRAMES
    with av.open(str(tmp_path / "front.mp4")) as film:
        times = [frame.time for frame in film.decode(video=0)]
    assert times == pytest.approx([0.1 * number for number in range(FRAMES)], abs=0.002)
    # Any slice of it decodes: here the second half.
    plugin = rosbag2.StoragePlugin.MCAP
    with (
        rosbag2.Reader(latents) as reader,
        rosbag2.Writer(tmp_path / "slice", version=9, storage_plugin=plugin) as writer,
    ):
        (given,) = [c for c in reader.connections if c.topic == "/front/image_raw"]
        kept = writer.add_connection(
            given.topic, given.msgtype, msgdef=given.msgdef.data, rihs01="RIHS01_" + "0" * 64
        )
        middle = coded["/front/image_raw"][FRAMES // 2][0]
        for _, stamp, content in reader.messages([given], start=middle):
            writer.write(kept, stamp, content)
    slices = tmp_path / "slice.mcap"
    assert main(["decode", str(tmp_path / "slice"), str(slices), "--as", "image"]) == 0
    assert main(["decode", str(latents), str(tmp_path / "whole.mcap"), "--as", "image"]) == 0
    found, whole = (read_bag(p)["/front/image_raw"] for p in (slices, tmp_path / "whole.mcap"))
    assert found == whole[FRAMES // 2 :] != []
    assert main(["decode", str(source), str(tmp_path / "none.mp4")]) == 1
    assert "expected a topic of roi_codec_ros/msg/CompressedLatent" in capsys.readouterr().err


VIDEO = "foxglove_msgs/msg/CompressedVideo"
PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
VIDEO_DEFINITIONS = {
    VIDEO: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    PACKET: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n"
    "uint8 flags\nbool is_bigendian\nuint8[] data\n",
}
VIDEO_FRAMES = 8


def packets(picture: np.ndarray, codec: str, options: dict[str, str]) -> list[Any]:
    """A film of a picture that moves to the side, in the order in which it is decoded."""
    av = pytest.importorskip("av")
    context = av.CodecContext.create(codec, "w")
    context.height, context.width, context.pix_fmt = *picture.shape[:2], "yuv420p"
    context.framerate, context.time_base, context.options = 25, Fraction(1, 25), options
    coded = []
    for number in range(VIDEO_FRAMES):
        frame = av.VideoFrame.from_ndarray(np.roll(picture, 2 * number, axis=1), format="rgb24")
        frame.pts = number
        coded += context.encode(frame)
    return coded + context.encode(None)


def pictures_of(contents: list[bytes], codec: str) -> list[np.ndarray]:
    av = pytest.importorskip("av")
    context = av.CodecContext.create(codec, "r")
    frames = [f for data in [*map(av.Packet, contents), None] for f in context.decode(data)]
    return [frame.to_ndarray(format="rgb24") for frame in frames]


def write_videos(path: Path, maker: Maker) -> dict[str, list[bytes]]:
    """A bag with a live H.264 topic and an H.265 one whose frames refer to later ones."""
    zero = {"tune": "zerolatency", "crf": "12"}
    coded = {
        "/front/video": packets(maker.picture, "libx264", zero),
        "/rear/ffmpeg": packets(
            maker.picture, "libx265", {"crf": "12", "x265-params": "log-level=error:bframes=2"}
        ),
    }
    types = {"/front/video": VIDEO, "/rear/ffmpeg": PACKET}
    for name, text in VIDEO_DEFINITIONS.items():
        maker.store.register(typesys.get_types_from_msg(text, name))
    store = maker.store.types
    plugin = rosbag2.StoragePlugin.MCAP
    with rosbag2.Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {
            t: writer.add_connection(t, n, typestore=maker.store) for t, n in types.items()
        }
        for number in range(VIDEO_FRAMES):
            header = maker.message("/portrait", number).image.header
            for topic, connection in connections.items():
                data = np.frombuffer(bytes(coded[topic][number]), np.uint8)
                if topic == "/front/video":
                    message = store[VIDEO](header.stamp, "front", data, "h264")
                else:
                    packet = coded[topic][number]
                    height, width = maker.picture.shape[:2]
                    message = store[PACKET](
                        header,
                        width,
                        height,
                        "hevc",
                        packet.pts,
                        int(packet.is_keyframe),
                        False,
                        data,
                    )
                content = bytes(maker.store.serialize_cdr(message, types[topic]))
                writer.write(connection, (100 + number) * SECOND // 25, content)
    return {topic: [bytes(p) for p in found] for topic, found in coded.items()}


def test_topics_of_video_are_decoded_and_written_again(tmp_path, astronaut, capsys):
    maker = Maker(astronaut, ros1=False)
    coded = write_videos(tmp_path / "in", maker)

    assert main(["anonymize", str(tmp_path / "in"), str(tmp_path / "out"), "--crf", "12"]) == 0

    before, after = read_bag(tmp_path / "in"), read_bag(tmp_path / "out")
    face = (slice(80, 160), slice(90, 160))
    for topic, msgtype, codec in (
        ("/front/video", VIDEO, "h264"),
        ("/rear/ffmpeg", PACKET, "hevc"),
    ):
        stamps = [stamp for stamp, _, _ in after[topic]]
        assert stamps == sorted(set(stamps))
        if topic == "/front/video":
            assert stamps == [stamp for stamp, _, _ in before[topic]]
        messages = [maker.read(content, msgtype) for _, content, _ in after[topic]]
        written = pictures_of([bytes(message.data) for message in messages], codec)
        given = pictures_of(coded[topic], codec)
        assert len(written) == len(given) == VIDEO_FRAMES
        for old, new in zip(given, written, strict=True):
            assert np.abs(new[face].astype(float) - old[face]).mean() > 15
            assert np.median(np.abs(new.astype(int) - old)) <= 4
    assert [m.flags & 1 for m in messages] == [1] + [0] * (VIDEO_FRAMES - 1)
    assert "dropped" not in capsys.readouterr().err


def test_pictures_become_video_and_video_becomes_pictures(tmp_path, astronaut):
    maker = Maker(astronaut, ros1=False)
    write_videos(tmp_path / "in", maker)
    pictures, again = tmp_path / "pictures.mcap", tmp_path / "again.mcap"

    assert main(["anonymize", str(tmp_path / "in"), str(pictures), "--as", "compressed"]) == 0
    assert main(["anonymize", str(pictures), str(again), "--as", "video"]) == 0

    for topic in ("/front/video", "/rear/ffmpeg"):
        stills, video = read_bag(pictures)[topic], read_bag(again)[topic]
        assert {msgtype for _, _, msgtype in stills} == {COMPRESSED}
        assert [stamp for stamp, _, _ in video] == [stamp for stamp, _, _ in stills]
        messages = [
            maker.read(content, VIDEO) for _, content, msgtype in video if msgtype == VIDEO
        ]
        shown = pictures_of([bytes(message.data) for message in messages], "h264")
        assert [picture.shape for picture in shown] == [astronaut.shape] * VIDEO_FRAMES


def attachment(name: str, data: bytes) -> tuple[int, bytes, bytes]:
    """Its kind in an index, its record, and its description in the index."""
    head, names = struct.pack("<QQ", 7, 8), b"".join(map(text, (name, "image/png")))
    content = head + names + struct.pack("<Q", len(data)) + data + bytes(4)
    description = head + struct.pack("<Q", len(data)) + names
    return ATTACHMENT_INDEX, struct.pack("<BQ", 0x09, len(content)) + content, description


def metadata(name: str) -> tuple[int, bytes, bytes]:
    entries = text("camera") + text("front")
    content = text(name) + struct.pack("<I", len(entries)) + entries
    return METADATA_INDEX, struct.pack("<BQ", 0x0C, len(content)) + content, text(name)


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def test_attachments_are_kept_by_name_and_metadata_always(tmp_path, astronaut, capsys):
    source = write_bag(tmp_path / "in", Maker(astronaut, ros1=False), "mcap", frames=1)
    given = {
        "map.png": attachment("map.png", b"streets"),
        "driver.png": attachment("driver.png", b"a face"),
        "calibration": metadata("calibration"),
    }
    for name, (kind, record, description) in given.items():
        (tmp_path / name).write_bytes(record)
        extra = Extra(tmp_path / name, 0, len(record), kind, name, description)
        add_extras(next(source.glob("*.mcap")), [extra])
    command = ["anonymize", str(source), str(tmp_path / "out.mcap")]

    assert main([*command, "--keep", "map.png"]) == 0

    found = {extra.name: extra for extra in extras(tmp_path / "out.mcap")}
    assert set(found) == {"rosbag2", "map.png", "calibration"}
    written = (tmp_path / "out.mcap").read_bytes()
    for name in ("map.png", "calibration"):
        place = slice(found[name].start, found[name].start + found[name].length)
        assert written[place] == given[name][1]
    assert b"a face" not in written
    assert read_bag(tmp_path / "out.mcap")["/shift"] == read_bag(source)["/shift"]
    said = capsys.readouterr().err
    assert "dropped: driver.png (an attachment of an MCAP file); --keep driver.png" in said
    assert "kept as it is, and may show persons: map.png" in said
    assert "metadata that are copied as they are: calibration" in said


class RawImage:
    """A sensor_msgs/Image of noise."""

    def __init__(self, encoding: str, height: int, width: int) -> None:
        deep = encoding.endswith("16") or encoding.startswith("16")
        channels = next((int(c) for c in encoding[-1:] if c in "134" and "C" in encoding), 1)
        channels = {"rgb": 3, "bgr": 3}.get(encoding[:3], channels)
        channels = 4 if encoding[:4] in ("rgba", "bgra") else channels
        channels = 2 if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv") else channels
        rows = height * 3 // 2 if encoding in ("nv12", "nv21") else height
        self.height, self.width, self.encoding, self.is_bigendian = height, width, encoding, 1
        self.step = width * channels * (2 if deep else 1) + 5
        noise = np.random.default_rng(1).integers(0, 256, rows * self.step, np.uint8)
        self.data = noise


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_of_every_encoding_nothing_changes_but_hidden_blocks(encoding):
    message = RawImage(encoding, 52, 70)
    hidden = np.zeros((4, 5), bool)
    hidden[1, 2] = hidden[3, 4] = True
    before = rgb_from_image(message)
    given = message.data.copy()

    message.data = hide_in_image(message, hidden)

    after = rgb_from_image(message)
    mask = hidden.repeat(16, axis=0).repeat(16, axis=1)[:52, :70]
    around = np.zeros_like(mask)  # interpolating a Bayer pattern looks two pixels further
    for down in range(-2, 3):
        for across in range(-2, 3):
            around |= np.roll(mask, (down, across), axis=(0, 1))
    np.testing.assert_array_equal(after[~around], before[~around])
    assert (after[mask] != before[mask]).any(axis=1).mean() > 0.9
    swapped = RawImage(encoding, 52, 70)
    rows = swapped.data.reshape(-1, swapped.step)
    share = np.flatnonzero(given != message.data)
    rows.reshape(-1)[share] = 0  # whatever stood there …
    assert (hide_in_image(swapped, hidden) == message.data).all()  # … the same comes out
