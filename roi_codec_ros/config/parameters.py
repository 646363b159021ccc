# SPDX-License-Identifier: Apache-2.0
"""Every parameter of every node, declared once.

Nodes and launch files read this table; `generated.py` writes reference and parameter files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from roi_codec_ros.common.errors import UsageError

Value: TypeAlias = str | int | float | bool | list[str]
# As the codec has them; a test holds that they agree (nothing here may import it).
BACKENDS = ("torch", "torch-half", "onnxruntime", "openvino", "openvino-half")
DEFAULT_MAX_PIXELS = 3840 * 2160
GPU_BATCH = 8
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*\Z")

_PYTHON_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "double": float,
    "bool": bool,
    "string_array": list,
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    type: "string", "integer", "double", "bool" or "string_array".
    range: smallest and largest value of a number, both allowed.
    choices: the only values a string may take; empty for any.
    live: may change while the node is active; the others only while it is unconfigured.
    """

    name: str
    default: Value
    description: str
    type: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    def __post_init__(self) -> None:
        if self.type not in _PYTHON_TYPES:
            raise ValueError(f"parameter {self.name}: unknown type {self.type!r}")
        self.check(self.default)

    def coerce(self, value: object) -> Value:
        """Turn a value from a command line, a launch argument or a YAML file into this type.

        Only lossless conversions: 10 → 10.0 for a double, 0 → "0" for a string, "a,b" → ["a", "b"]
        for an array. Raises UsageError for anything else or out of range.
        """
        converted = self._convert(value)
        self.check(converted)
        return converted

    def check(self, value: object) -> None:
        """Raise UsageError unless the value has this type and lies in range and choices."""
        expected = _PYTHON_TYPES[self.type]
        if not isinstance(value, expected) or (expected is not bool and isinstance(value, bool)):
            raise UsageError(f"parameter {self.name}: expected {self._phrase()}, found {value!r}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise UsageError(f"parameter {self.name}: expected a list of strings, found {value!r}")
        if self.range is not None and isinstance(value, (int, float)):
            low, high = self.range
            if not (math.isfinite(value) and low <= value <= high):
                raise UsageError(
                    f"parameter {self.name}: expected {low:g} to {high:g}, found {value!r}"
                )
        if self.choices and value not in self.choices:
            raise UsageError(
                f"parameter {self.name}: expected one of {', '.join(self.choices)}, "
                f"found {value!r}"
            )

    def _convert(self, value: object) -> Value:
        if self.type == "string" and isinstance(value, (int, float)):
            return str(value).lower() if isinstance(value, bool) else str(value)
        if self.type == "double" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.type == "string_array":
            if isinstance(value, str):
                return [part.strip() for part in value.split(",") if part.strip()]
            if isinstance(value, Sequence) and not isinstance(value, bytes):
                return [part if isinstance(part, str) else str(part) for part in value]
        if isinstance(value, str) and self.type in ("integer", "double", "bool"):
            return self._parse(value)
        return value  # type: ignore[return-value]  # check() says what is wrong with it

    def _parse(self, text: str) -> Value:
        try:
            if self.type == "bool":
                return {"true": True, "false": False}[text.strip().lower()]
            return int(text) if self.type == "integer" else float(text)
        except (KeyError, ValueError):
            raise UsageError(
                f"parameter {self.name}: expected {self._phrase()}, found {text!r}"
            ) from None

    def _phrase(self) -> str:
        return {
            "string": "a string",
            "integer": "a whole number",
            "double": "a number",
            "bool": "true or false",
            "string_array": "a list of strings",
        }[self.type]


AUTOSTART = Parameter(
    "autostart",
    True,
    "Configure and activate as soon as the process runs; false: wait for a lifecycle manager.",
    "bool",
)
DEVICE = Parameter(
    "device",
    "cpu",
    'Device of the network, by its torch name: "cpu", "cuda", "cuda:1".',
    "string",
)
THREADS = Parameter(
    "threads", 0, "CPU threads of the network; 0: torch chooses.", "integer", (0, 256)
)
MAX_BATCH = Parameter(
    "max_batch",
    0,
    "Maximum number of images, of different cameras, in one batch. 0: all that are waiting, up to "
    f"{GPU_BATCH}, on a GPU; one at a time on a CPU, where batching only adds latency.",
    "integer",
    (0, 256),
    live=True,
)
CAMERAS = Parameter(
    "cameras",
    ["camera"],
    "Names of the cameras to serve, which are the namespaces of their encoders.",
    "string_array",
)
STALE_AFTER = Parameter(
    "stale_after_s",
    2.0,
    "A camera without a new frame for this long is reported as STALE in the diagnostics.",
    "double",
    (0.1, 3600.0),
    live=True,
)

NODE_PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "encoder_node": (
        AUTOSTART,
        Parameter(
            "source",
            "0",
            'Source of the frames: a device ("0", "/dev/video0"), a video or image file, a '
            "folder of images, a stream (rtsp://…, http://…, or a GStreamer pipeline ending in "
            '"appsink"), or a topic ("topic:/camera/image_raw").',
            "string",
        ),
        Parameter(
            "model", "fast", "Name of an installed model, or path of a model file.", "string"
        ),
        Parameter(
            "backend",
            "torch",
            "Runtime of the network: torch reads model files (.safetensors); onnxruntime and "
            "openvino read the graphs (.onnx) that roi-codec export makes of them.",
            "string",
            choices=BACKENDS,
        ),
        DEVICE,
        THREADS,
        Parameter(
            "max_width",
            640,
            "Wider frames are scaled down to this width in pixels, keeping the aspect ratio; 0: "
            "no scaling.",
            "integer",
            (0, 8192),
            live=True,
        ),
        Parameter(
            "rate_hz",
            15.0,
            "Maximum frames per second to encode. A video plays in real time and is thinned to "
            "this rate; a folder of images is played at this rate. 0: no limit (folders: 10).",
            "double",
            (0.0, 1000.0),
            live=True,
        ),
        Parameter("loop", True, "Start a file or folder again when it ends.", "bool", live=True),
        Parameter(
            "frame_id",
            "",
            "Frame id of the camera's optical frame; empty: <namespace>_optical_frame. Frame ids "
            "of a topic source pass through unchanged.",
            "string",
        ),
        Parameter(
            "camera_info_file",
            "",
            "Calibration file as written by the camera_calibration package (YAML): a path, "
            "file:///… or package://PACKAGE/…; empty: none.",
            "string",
        ),
        Parameter(
            "camera_info_topic",
            "",
            "For a topic source: the driver's sensor_msgs/CameraInfo topic, instead of "
            "camera_info_file.",
            "string",
        ),
        Parameter(
            "rectified",
            "auto",
            "Whether the images of a topic source are rectified while its camera_info is that of "
            "the raw images, as with image_proc; intrinsics then come from the projection matrix. "
            'auto: yes if the topic is named "image_rect…".',
            "string",
            choices=("auto", "yes", "no"),
        ),
        Parameter(
            "capture_width",
            0,
            "Width in pixels to request from a device; 0: the device's default.",
            "integer",
            (0, 16384),
        ),
        Parameter(
            "capture_height",
            0,
            "Height in pixels to request from a device; 0: the device's default.",
            "integer",
            (0, 16384),
        ),
    ),
    "decoder_node": (
        AUTOSTART,
        CAMERAS,
        Parameter(
            "models",
            ["fast"],
            "Names or paths of the models to accept; payloads of other models are rejected.",
            "string_array",
        ),
        DEVICE,
        THREADS,
        MAX_BATCH,
        Parameter(
            "max_pixels",
            DEFAULT_MAX_PIXELS,
            "Payloads that claim more pixels are rejected before anything is allocated.",
            "integer",
            (1, 2**31 - 1),
        ),
        Parameter(
            "jpeg_quality",
            80,
            "JPEG quality of image_anonymized/compressed (published only while subscribed to).",
            "integer",
            (1, 100),
            live=True,
        ),
        Parameter(
            "restart_after_s",
            1.0,
            "A frame whose stamp or sequence is not newer than the last one is rejected as a "
            "replay, unless no other frame has arrived for this long, or its stamp is newer by "
            "this much: then its encoder was restarted or its clock was set. 0: accept any order.",
            "double",
            (0.0, 60.0),
            live=True,
        ),
        Parameter(
            "max_age_s",
            0.0,
            "Frames whose stamps differ more than this from the server's clock are rejected; "
            "needs synchronised clocks. 0: accept any age.",
            "double",
            (0.0, 3600.0),
            live=True,
        ),
        STALE_AFTER,
    ),
    "detector_node": (
        AUTOSTART,
        CAMERAS,
        Parameter(
            "weights",
            "",
            "YOLO weights file with a class named person; empty: models/person-*.pt, else "
            "yolov8n.pt, downloaded by ultralytics.",
            "string",
        ),
        Parameter(
            "confidence",
            0.25,
            "Minimum detection confidence.",
            "double",
            (0.0, 1.0),
            live=True,
        ),
        Parameter(
            "iou",
            0.7,
            "IoU above which two boxes are merged into one (non-maximum suppression).",
            "double",
            (0.0, 1.0),
            live=True,
        ),
        Parameter(
            "image_size",
            640,
            "Longer side in pixels of the detector's input image (a multiple of 32).",
            "integer",
            (32, 4096),
            live=True,
        ),
        DEVICE,
        THREADS,
        MAX_BATCH,
        STALE_AFTER,
    ),
    "tracker_node": (
        AUTOSTART,
        CAMERAS,
        Parameter(
            "map_frame",
            "map",
            "Frame of the tracks of all cameras with a known pose: z up, the ground at 0.",
            "string",
        ),
        Parameter(
            "camera_poses",
            [""],
            'Camera poses, each as "name: x y z roll pitch yaw" in the map frame (metres and '
            "radians, of the body: x forward, y left, z up; a positive pitch looks down) or as "
            '"name: file.yaml" as written by roi-codec calibrate-ground. Others are looked up in '
            "TF if tf2_ros is installed; persons of a camera without a pose stay in its optical "
            "frame.",
            "string_array",
        ),
        Parameter(
            "max_range_m",
            30.0,
            "Persons farther than this from a camera, along the ground, are ignored.",
            "double",
            (0.5, 100.0),
            live=True,
        ),
        Parameter(
            "person_height_m",
            1.7,
            "Body height in metres assumed to estimate a person's distance, where the camera has "
            "no pose or only the head is visible.",
            "double",
            (0.3, 3.0),
            live=True,
        ),
        Parameter(
            "person_radius_m",
            0.3,
            "Radius in metres of the rings of points that represent a person in persons/cloud.",
            "double",
            (0.01, 5.0),
            live=True,
        ),
        Parameter(
            "birth_hits",
            8,
            "Sightings after which a track is published in persons/tracks; persons/cloud has it "
            "from the first one.",
            "integer",
            (1, 1000),
        ),
        Parameter(
            "death_s",
            1.5,
            "A track ends when the cameras that see its position have missed it for this long.",
            "double",
            (0.0, 60.0),
        ),
        Parameter(
            "coast_s",
            3.0,
            "A track ends when no camera has detected it for this long, watched or not.",
            "double",
            (0.1, 60.0),
        ),
        Parameter(
            "coverage_cell_m",
            0.25,
            "Cell size in metres of persons/coverage.",
            "double",
            (0.1, 10.0),
        ),
        Parameter(
            "assumed_hfov_deg",
            60.0,
            "Horizontal field of view in degrees assumed for an uncalibrated camera.",
            "double",
            (1.0, 179.0),
            live=True,
        ),
        Parameter(
            "marker_lifetime_s",
            0.5,
            "Time in seconds after which rviz drops a marker that is not renewed.",
            "double",
            (0.05, 60.0),
            live=True,
        ),
        STALE_AFTER,
    ),
}


def check_camera_names(names: Sequence[str]) -> None:
    """Raise UsageError unless these are different names that ROS takes as namespaces."""
    if not names or len(set(names)) != len(names):
        raise UsageError(f"expected different camera names, found {', '.join(names) or 'none'}")
    for name in names:
        check_camera_name(name)


def check_camera_name(name: str) -> None:
    """Raise UsageError unless ROS takes this name as a namespace."""
    if not _CAMERA_NAME.match(name):
        raise UsageError(
            f"expected a camera name of letters, digits and underscores, found {name!r}"
        )


def parameters_of(executable: str) -> dict[str, Parameter]:
    """The parameters of one executable by name; UsageError for an unknown executable."""
    if executable not in NODE_PARAMETERS:
        raise UsageError(
            f"expected one of {', '.join(NODE_PARAMETERS)} as executable, found {executable!r}"
        )
    return {parameter.name: parameter for parameter in NODE_PARAMETERS[executable]}


def yaml_value(value: Value) -> str:
    """A value as it is written in YAML (and in `-p name:=value`)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        text = repr(value)
        # YAML 1.1 takes 1e-05 for a string; with a point in it, it is a number everywhere.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return str(value)


def _quoted(text: str) -> str:
    """A YAML double-quoted scalar in plain ASCII."""
    escaped = []
    for character in text:
        code = ord(character)
        if character in '\\"':
            escaped.append("\\" + character)
        elif 0x20 <= code < 0x7F:
            escaped.append(character)
        else:
            escaped.append(f"\\U{code:08X}")
    return '"' + "".join(escaped) + '"'
