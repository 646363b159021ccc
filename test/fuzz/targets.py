# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: bytes in, and nothing may come out but a refusal or a result that is right.

Each target takes any bytes. A RoiCodecError is a refusal; anything else that is raised is a find.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from roi_codec_ros.codec.bitstream import HEADER_BYTES, Payload
from roi_codec_ros.codec.decoding import Decoder
from roi_codec_ros.codec.entropy import FIRST_CLASS, SKIPPED, EntropyTables
from roi_codec_ros.codec.frequencies import neighbourly_map_cdf
from roi_codec_ros.codec.measured_entry import METADATA_KEY
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.models import untrained_model
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.stream_state import StreamState
from roi_codec_ros.codec.temporal import packed, unpacked
from roi_codec_ros.common import photographs
from roi_codec_ros.common.errors import BitstreamError, ModelFileError, RoiCodecError
from roi_codec_ros.lab.datasets.annotations_any import read_annotations, shortfall

MAX_PIXELS = 64 * 64
_SCALES = (0.2, 1.0, 30.0)
_CHANNELS, _UNEVEN = 8, 13
_CLASSES = 2  # of the tables with levels


def sealed(data: bytes) -> bytes:
    """With magic, version, flag, lengths and checksum made right, so that the fields are reached.

    The map is as long as it says, or as there are bytes for it; with the flag the last bytes, four
    at most, are those of temporal blocks.
    """
    data = data.ljust(HEADER_BYTES, b"\0")
    rest = data[HEADER_BYTES:]
    (map_bytes,) = struct.unpack_from("<I", data, 31)
    left = max(0, len(rest) - data[30])
    map_bytes = min(left, map_bytes)
    flag = data[5] & 1
    body_bytes = max(0, left - map_bytes - 4 * flag)
    fields = b"ROIC\x04" + bytes((flag,)) + data[6:31] + struct.pack("<II", map_bytes, body_bytes)
    return fields + struct.pack("<I", zlib.crc32(rest, zlib.crc32(fields))) + rest


def payload(data: bytes) -> None:
    """The header, as it came and with a right seal; what is read is written the same way."""
    for form in (data, sealed(data)):
        try:
            read = Payload.from_bytes(form, max_pixels=MAX_PIXELS)
        except BitstreamError:
            continue
        assert read.to_bytes() == form
        assert read.coded_height * read.coded_width <= MAX_PIXELS


def _tables() -> list[EntropyTables]:
    """Tables of one context, of three for channels that do not fill the states evenly, and of two
    classes and three levels with predicted channels.
    """
    plain = [EntropyTables.laplace(_CHANNELS, scale) for scale in _SCALES]
    rows = [table.cdf[0, : table.lengths[0]] for table in plain] * _UNEVEN
    pmfs = [np.diff(row) / 65536 for row in rows]
    offsets = [int(table.offsets[0]) for table in plain] * _UNEVEN
    tails = [float(pmf[-1]) for pmf in pmfs]
    by_context = EntropyTables.from_pmfs([p[:-1] for p in pmfs], tails, offsets, (3, 40))
    coded, predicted = (16, 8, 1), 10
    rows = 2 * sum(c + 2 * min(c, predicted) for c in coded)
    by_level = EntropyTables.from_pmfs(
        pmfs[:1] * rows,
        tails[:1] * rows,
        offsets[:1] * rows,
        (1,),
        coded,
        np.outer((256, 640, 5), np.arange(1, predicted + 1)),
        np.array(
            [
                (c, p, c // 2 if p else c - 1, 700 - 300 * p)
                for c in range(1, predicted)
                for p in range(5)
            ]
        ),
        neighbourly_map_cdf(_CLASSES),
    )
    return [*plain, by_context, by_level]


@cache
def _coders() -> list[tuple[EntropyTables, RansCoder, RansCoder]]:
    return [(table, RansCoder(table), RansCoder(table, "numpy")) for table in _tables()]


def entropy(data: bytes) -> None:
    """Maps and bodies: kernel and reference agree, and what they decode is coded as the same."""
    if len(data) < 6:
        return
    tables, kernel, reference = _coders()[data[0] % len(_coders())]
    height, width = data[1] % 16 + 1, data[2] % 16 + 1
    levels = np.array([data[3] // 4**c % 4 for c in range(tables.classes)]) % tables.levels
    map_end = 6 + data[4]
    bits_end = map_end + data[5] % 9
    map_bytes, bits, body = data[6:map_end], data[map_end:bits_end], data[bits_end:]
    try:
        decoded = kernel.decode(map_bytes, body, height, width, levels, bits)
    except BitstreamError as error:
        decoded = str(error)
    try:
        expected = reference.decode(map_bytes, body, height, width, levels, bits)
    except BitstreamError as error:
        assert decoded == str(error)
        return
    assert not isinstance(decoded, str)
    assert all(map(np.array_equal, decoded, expected))
    symbols, blocks, differ = decoded
    assert kernel.encode(symbols, blocks, levels, differ) == (map_bytes, body)


@cache
def _decoder() -> Decoder:
    return Decoder(untrained_model("nano"), threads=1, max_pixels=MAX_PIXELS)


def roic(data: bytes) -> None:
    """A whole `.roic` file: as it came, and sealed under the identity of a known model."""
    known = _decoder().models[0].id
    state = StreamState()
    for form in (data, sealed(data[:6].ljust(6, b"\0") + known + data[14:])):
        try:
            frame = _decoder().decode(form, state)
        except BitstreamError:
            continue
        assert frame.image.shape == (*frame.coded_size, 3)
        assert frame.image.dtype == np.uint8
        assert frame.known_share == 1.0 or (frame.blocks == SKIPPED).any()
        assert frame.coded_size[0] * frame.coded_size[1] <= MAX_PIXELS


def temporal(data: bytes) -> None:
    """Bits of temporal blocks, on any map and levels; and what a stream's state makes of them."""
    if len(data) < 8:
        return
    height, width = data[0] % 5 + 1, data[1] % 5 + 1
    levels, count = tuple(level % 64 for level in data[2:5]), height * width
    values = np.frombuffer(data[5 : 5 + count].ljust(count, b"\0"), np.uint8)
    blocks = (values % (FIRST_CLASS + len(levels))).reshape(height, width)
    bits = data[5 + count :]
    try:
        found = unpacked(bits, blocks, levels)
    except BitstreamError:
        return
    assert packed(found, blocks, levels) == bits
    assert not (found & (blocks < FIRST_CLASS)).any()
    symbols = np.full((2, height, width), 30000, np.int16)
    of_level = np.array((63, 63, *levels), np.uint8)[blocks]
    nothing, state = np.zeros_like(found), StreamState()
    first, second = (
        Payload(bytes(8), 1, 1, 1, 1, b"", levels=levels, stream=1, number=n) for n in (0, 1)
    )
    alone = StreamState().update(second, symbols, blocks, of_level, found)
    assert not (alone.known & found).any() and not alone.symbols[:, found].any()
    before = state.update(first, symbols, np.maximum(blocks, FIRST_CLASS), of_level, nothing)
    after = state.update(second, symbols, blocks, of_level, found)
    assert after.known.all() and before.known.all()
    assert (after.symbols[:, found] == np.int64(60000) - 65536).all()


@cache
def _small_model() -> Model:
    """Four latent channels and no networks."""
    preset = replace(get_preset("nano"), latent_channels=4)
    mean = {"latent_mean": np.zeros(4, np.float32)}
    return Model.build("small", preset, mean, EntropyTables.laplace(4, 0.2), {"steps": 1})


def model(data: bytes) -> None:
    """A model file: any bytes, or one whose header, card or tables they are."""
    kind, rest = data[:1], data[1:]
    content = _small_model().content
    length = int.from_bytes(content[:8], "little")
    header, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]
    if kind == b"h":
        content = len(rest).to_bytes(8, "little") + rest + tensors
    elif kind in (b"c", b"p"):
        text = rest.decode("utf-8", "replace")
        if kind == b"p":
            card = json.loads(header["__metadata__"][METADATA_KEY])
            try:
                card["preset"] = json.loads(text)
            except ValueError:
                return
            text = json.dumps(card)
        header["__metadata__"][METADATA_KEY] = text
        head = json.dumps(header).encode()
        content = len(head).to_bytes(8, "little") + head + tensors
    elif kind == b"t":
        content = content[: 8 + length] + rest[: len(tensors)] + tensors[len(rest) :]
    else:
        content = rest
    try:
        read = Model.from_bytes(content)
    except ModelFileError:
        return
    RansCoder(read.tables)
    try:
        Decoder(read)
    except RoiCodecError:
        return
    raise AssertionError("expected a model without networks to decode nothing")


def photograph(data: bytes) -> None:
    """A picture's file: its pixels have the size that its header tells, or it is refused."""
    photographs.LARGEST_PX = MAX_PIXELS
    try:
        width, height = photographs._shown_size(photographs._header(io.BytesIO(data), "it"))
        pixels = photographs.decode_photograph(data)
    except photographs.PhotographError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8


def driver_image(data: bytes) -> None:
    """A driver's image, plain or compressed: its pixels, or it is refused."""
    from sensor_msgs.msg import CompressedImage
    from sensor_msgs.msg import Image as PlainImage

    from roi_codec_ros.common import image_messages
    from roi_codec_ros.nodes import conversions

    image_messages.LARGEST_PX = MAX_PIXELS
    taker = Taker(data)
    kind = taker.small(len(image_messages.ENCODINGS) + 1)
    if kind < len(image_messages.ENCODINGS):
        layout = "<I" if taker.small(15) == 15 else "B"
        height, width, step = (taker.take(layout) for _ in range(3))
        message = PlainImage(height=height, width=width, step=step)
        message.encoding, message.is_bigendian = image_messages.ENCODINGS[kind], taker.small(1)
        message.data = taker.rest()
    else:
        message = CompressedImage(format=("bayer_rggb8; jpeg", "rgb8; png")[kind % 2])
        message.data = taker.rest()
    try:
        pixels = conversions.rgb_from_message(message)
    except image_messages.ImageMessageError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    if isinstance(message, PlainImage):
        assert pixels.shape[:2] == (message.height, message.width)


_LAYOUTS = {b"o": "odgt", b"c": "coco", b"y": "yolo", b"l": "labels"}


@cache
def _data_set(layout: str) -> Path:
    """A data set in which only what is fuzzed is missing."""
    root = Path(tempfile.mkdtemp(prefix=f"roi_codec_fuzz_{layout}_"))
    for name in ("a.png", "b.png", "day2/a.png"):
        path = root / "images" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 48)).save(path)
    if layout in ("yolo", "labels"):
        (root / "labels" / "val").mkdir(parents=True)
        (root / "labels" / "val" / "a.txt").write_text("0 .5 .5 .5 .5\n")
        (root / "data.yaml").write_text("names: [person, head, car]\nkpt_shape: [2, 3]\n")
    return root


def data_set(data: bytes) -> None:
    """Annotations: a line of `.odgt`, COCO's JSON, a `data.yaml` or rows of labels."""
    layout = _LAYOUTS.get(data[:1])
    if layout is None:
        return
    root = _data_set(layout)
    files = {
        "odgt": "annotation_val.odgt",
        "coco": "val.json",
        "yolo": "data.yaml",
        "labels": "labels/val/b.txt",
    }
    (root / files[layout]).write_bytes(data[1:])
    try:
        read = read_annotations(root, "val")
    except RoiCodecError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return
    for item in read:
        assert item.image_path.is_file()
        for name in (*item.classes(), "person", "head"):
            boxes = item.boxes(name)
            assert boxes.dtype == np.float32
            assert boxes.shape == (len(boxes), 4)
            assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] < boxes[:, 2:]).all()
            assert (boxes[:, 2:] <= [item.width, item.height]).all()
    for sentence in shortfall(read):
        sentence.encode()
        assert "\n" not in sentence


class Taker:
    """Takes values off the front of some bytes; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return max(0, len(self._data) - self._at)

    def take(self, layout: str) -> Any:
        """One value of a struct layout such as "<I"."""
        size = struct.calcsize(layout)
        taken = self._data[self._at : self._at + size].ljust(size, b"\0")
        self._at += size
        return struct.unpack(layout, taken)[0]

    def bytes(self, most: int) -> bytes:
        """As many as the next two bytes say, at most `most`."""
        count = min(self.take("<H"), most, self.left)
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        """All that is left."""
        at, self._at = self._at, len(self._data)
        return self._data[at:]

    def small(self, most: int) -> int:
        return self.take("B") % (most + 1)


class Nodes:
    """Decoder, detector and tracker in this process, fed by hand, on no executor."""

    CAMERAS = ("front", "yard")  # only the first has a place in the map

    def __init__(self) -> None:
        import rclpy
        import scipy.optimize  # noqa: F401 (the tracker's first match would import it, slowly)
        from builtin_interfaces.msg import Time
        from std_msgs.msg import Header

        from roi_codec_ros.nodes import detector as detector_module
        from roi_codec_ros.nodes.decoder import DecoderNode
        from roi_codec_ros.nodes.detector import DetectorNode
        from roi_codec_ros.nodes.tracker import TrackerNode
        from roi_codec_ros.perception.detections import Detections

        self._header, self._time = Header, Time
        path = Path(tempfile.mkdtemp(prefix="roi_codec_fuzz_")) / "model.safetensors"
        untrained_model("nano").save(path)
        rclpy.init(
            args=[
                "--ros-args", "--log-level", "fatal",
                "-p", f"cameras:=[{','.join(self.CAMERAS)}]",
                "-p", f"models:=[{path}]",
                "-p", "camera_poses:=['front: 0 0 2.6 0 0.5 0']",
                "-p", "threads:=1",
            ]
        )  # fmt: skip
        self.decoder, self.tracker = DecoderNode(), TrackerNode()
        for node in (self.decoder, self.tracker):
            node.trigger_configure()
            assert node.failure is None, node.failure
            node.trigger_activate()
        self.detector = DetectorNode()
        detector_module.SIZE_TIMEOUT_S = 0.0
        box = [[1.0, 2.0, 3.0, 4.0]]

        class OneBox:
            def detect_batch(self, images: list[np.ndarray], **_: object) -> list[Detections]:
                return [Detections.from_arrays(box, [0.5], i.shape[:2]) for i in images]

        self.detector._detector = OneBox()
        self.reset()

    def reset(self) -> None:
        """Forget everything that messages have left behind."""
        from roi_codec_ros.nodes import detector
        from roi_codec_ros.nodes.decoded_camera import DecodedCamera
        from roi_codec_ros.nodes.tracked_camera import TrackedCamera
        from roi_codec_ros.perception.tracking import Tracker
        from roi_codec_ros.stream.clocks import CommonClock
        from roi_codec_ros.stream.freshness import FreshnessGuard
        from roi_codec_ros.stream.newest import NewestByKey

        cameras = self.tracker._cameras
        self.tracker._cameras = {
            name: TrackedCamera(name, cameras[name].pose) for name in self.CAMERAS
        }
        self.tracker._tracker = Tracker(self.tracker._settings_of_tracks)
        self.tracker._clocks = CommonClock()
        for node, kind in ((self.decoder, DecodedCamera), (self.detector, detector._Camera)):
            if not node._cameras:
                node._cameras = {name: kind(node, name) for name in self.CAMERAS}
        for camera in self.decoder._cameras.values():
            camera.guard = FreshnessGuard()
        for camera in self.detector._cameras.values():
            camera.sizes = detector.OriginalSizes()
        self.detector._waiting = NewestByKey()

    def header(self, taker: Taker) -> Any:
        stamp = self._time(sec=taker.take("<i"), nanosec=taker.take("<I"))
        return self._header(stamp=stamp, frame_id=taker.bytes(16).decode("latin-1"))


@cache
def _nodes() -> Nodes:
    return Nodes()


def messages(data: bytes) -> None:
    """Up to eight messages, one after the other, to the callbacks of the nodes that get them."""
    nodes, taker = _nodes(), Taker(data)
    nodes.reset()
    for _ in itertools.takewhile(lambda _: taker.left, range(8)):
        kind, camera = taker.small(len(_SENDERS) - 1), Nodes.CAMERAS[taker.small(1)]
        _SENDERS[kind](nodes, camera, taker)
    for node in (nodes.decoder, nodes.tracker):
        node.statuses()


def _latent(nodes: Nodes, camera: str, taker: Taker) -> None:
    from roi_codec_ros.msg import CompressedLatent

    message = CompressedLatent(header=nodes.header(taker), sequence=taker.take("<Q"))
    message.model = taker.bytes(80).decode("latin-1")
    content = taker.bytes(200)
    message.data = sealed(content) if taker.small(1) else content
    if taker.small(1):
        known = nodes.decoder._decoder.models[0].id
        message.data = sealed(content[:6].ljust(6, b"\0") + known + content[14:])
    nodes.decoder._on_latent(nodes.decoder._cameras[camera], message)


def _frame(nodes: Nodes, camera: str, taker: Taker) -> None:
    from roi_codec_ros.msg import DecodedFrame

    message = DecodedFrame(header=nodes.header(taker))
    message.original_height, message.original_width = taker.take("<I"), taker.take("<I")
    message.coded_height, message.coded_width = taker.take("<H"), taker.take("<H")
    nodes.detector._on_frame(nodes.detector._cameras[camera], message)


def _image(nodes: Nodes, camera: str, taker: Taker) -> None:
    from sensor_msgs.msg import Image

    from roi_codec_ros.common.image_messages import ENCODINGS

    encoding = (*ENCODINGS, "rgb16", "")[taker.small(len(ENCODINGS) + 1)]
    message = Image(header=nodes.header(taker), encoding=encoding)
    layout = "<I" if taker.small(15) == 15 else "B"
    message.height, message.width, message.step = (taker.take(layout) for _ in range(3))
    message.data = taker.bytes(4096)
    nodes.detector._leave(nodes.detector._cameras[camera], message)
    nodes.detector._detect_next()


def _persons(nodes: Nodes, camera: str, taker: Taker) -> None:
    from roi_codec_ros.msg import Person, PersonArray

    message = PersonArray(header=nodes.header(taker), camera=taker.bytes(8).decode("latin-1"))
    layout = "<I" if taker.small(7) == 7 else "<H"
    message.image_height, message.image_width = taker.take(layout), taker.take(layout)
    message.detect_ms = taker.take("<f")
    for _ in range(taker.small(6)):
        person = Person(track_id=taker.take("<I"), position_valid=bool(taker.small(1)))
        # Half precision: whole and absurd numbers, infinities and NaNs are all near.
        for name in ("score", "x", "y", "width", "height"):
            setattr(person, name, taker.take("<e"))
        message.persons.append(person)
    nodes.tracker._on_persons(nodes.tracker._cameras[camera], message)


def _camera_info(nodes: Nodes, camera: str, taker: Taker) -> None:
    from sensor_msgs.msg import CameraInfo

    names = ("plumb_bob", "rational_polynomial", "equidistant", "fisheye", "", "x")
    message = CameraInfo(header=nodes.header(taker))
    message.distortion_model = names[taker.small(len(names) - 1)]
    layout = "<I" if taker.small(7) == 7 else "<H"
    message.width, message.height = taker.take(layout), taker.take(layout)
    message.d = [taker.take("<e") for _ in range(taker.small(14))]
    message.k = [taker.take("<e") for _ in range(9)]
    nodes.tracker._on_info(nodes.tracker._cameras[camera], message)


_SENDERS = (_latent, _frame, _image, _persons, _camera_info)

TARGETS: dict[str, Callable[[bytes], None]] = {
    "payload": payload,
    "entropy": entropy,
    "roic": roic,
    "temporal": temporal,
    "model": model,
    "photograph": photograph,
    "data_set": data_set,
    "driver_image": driver_image,
    "messages": messages,
}
