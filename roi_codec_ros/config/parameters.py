# SPDX-License-Identifier: Apache-2.0
"""Every parameter of every node, declared once: nodes, launch files, config and README read this.

`python -m roi_codec_ros.config.parameters` writes the README's tables to standard output.
"""

from __future__ import annotations

import math
import re
import sys
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
    "Configure and activate as soon as the process runs; false leaves both to a manager.",
    "bool",
)
DEVICE = Parameter(
    "device",
    "cpu",
    'Where the network runs, by its torch name: "cpu", "cuda", "cuda:1".',
    "string",
)
THREADS = Parameter(
    "threads", 0, "CPU threads of the network; 0 leaves the choice to torch.", "integer", (0, 256)
)
MAX_BATCH = Parameter(
    "max_batch",
    0,
    "Most images, of different cameras, that the network takes at once. 0: as many as wait, up to "
    f"{GPU_BATCH}, on a GPU; one by one on a CPU, where they would only wait for each other.",
    "integer",
    (0, 256),
    live=True,
)
CAMERAS = Parameter(
    "cameras",
    ["camera"],
    "Names of the cameras to serve: the namespaces that their encoders run in.",
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
            'Where the pixels come from: a device ("0", "/dev/video0"), a video or image file, a '
            "folder of images, a stream (rtsp://…, http://…, or a GStreamer pipeline that ends in "
            '"appsink"), or a topic ("topic:/camera/image_raw").',
            "string",
        ),
        Parameter(
            "model", "fast", "Name of an installed model, or the path of a model file.", "string"
        ),
        Parameter(
            "backend",
            "torch",
            "What runs the network: torch takes model files (.safetensors), onnxruntime and "
            "openvino graphs that roi-codec export made of them (.onnx), found by the same names.",
            "string",
            choices=BACKENDS,
        ),
        DEVICE,
        THREADS,
        Parameter(
            "max_width",
            640,
            "Frames wider than this many pixels are scaled down to it, the aspect kept; 0 codes "
            "them as they come.",
            "integer",
            (0, 8192),
            live=True,
        ),
        Parameter(
            "rate_hz",
            15.0,
            "Most frames per second to encode. A video plays in real time, thinned to this rate; "
            "images of a folder are shown at this rate. 0: no limit (folders: 10).",
            "double",
            (0.0, 1000.0),
            live=True,
        ),
        Parameter("loop", True, "Start a file or folder again at its end.", "bool", live=True),
        Parameter(
            "frame_id",
            "",
            "Frame id of the camera's optical frame; empty: <namespace>_optical_frame. A topic's "
            "own frame ids pass through unchanged.",
            "string",
        ),
        Parameter(
            "camera_info_file",
            "",
            "Calibration as the camera_calibration package writes it (YAML); empty: uncalibrated.",
            "string",
        ),
        Parameter(
            "camera_info_topic",
            "",
            "For a topic source: the sensor_msgs/CameraInfo topic of the driver, in place of "
            "camera_info_file.",
            "string",
        ),
        Parameter(
            "capture_width",
            0,
            "Width in pixels to ask a device for; 0: the device's choice.",
            "integer",
            (0, 16384),
        ),
        Parameter(
            "capture_height",
            0,
            "Height in pixels to ask a device for; 0: the device's choice.",
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
            "Names or paths of the models to accept; payloads of any other model are refused.",
            "string_array",
        ),
        DEVICE,
        THREADS,
        MAX_BATCH,
        Parameter(
            "max_pixels",
            DEFAULT_MAX_PIXELS,
            "Payloads that claim more pixels than this are refused before anything is allocated.",
            "integer",
            (1, 2**31 - 1),
        ),
        Parameter(
            "jpeg_quality",
            80,
            "Quality of image_anonymized/compressed, which is made only while someone subscribes.",
            "integer",
            (1, 100),
            live=True,
        ),
        Parameter(
            "restart_after_s",
            1.0,
            "A frame whose stamp or sequence is not newer than the last is refused as a replay, "
            "until nothing else has come for this long, or the stamp is newer by this much: then "
            "its encoder began anew, or its clock was set. 0: any order.",
            "double",
            (0.0, 60.0),
            live=True,
        ),
        Parameter(
            "max_age_s",
            0.0,
            "Frames whose stamps are farther than this from the server's clock are refused, which "
            "needs clocks that agree. 0: any age.",
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
            "YOLO weights with a class named person; empty: a models/person-*.pt, else yolov8n.pt "
            "as ultralytics fetches it.",
            "string",
        ),
        Parameter(
            "confidence",
            0.25,
            "Least score of a person to report.",
            "double",
            (0.0, 1.0),
            live=True,
        ),
        Parameter(
            "iou",
            0.7,
            "Boxes that overlap by more than this are one person (non-maximum suppression).",
            "double",
            (0.0, 1.0),
            live=True,
        ),
        Parameter(
            "image_size",
            640,
            "Longer side in pixels of the image that the detector works on (a multiple of 32).",
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
            "Frame that persons of cameras with a known pose are given in: z up, the ground at 0.",
            "string",
        ),
        Parameter(
            "camera_poses",
            [""],
            'Where cameras are, each as "name: x y z roll pitch yaw" in the map frame (metres and '
            "radians, of the body: x forward, y left, z up; a positive pitch looks down) or as "
            '"name: file.yaml" as roi-codec calibrate-ground writes it. Others are looked up in '
            "TF where tf2_ros is installed; a camera without a pose stays in its optical frame.",
            "string_array",
        ),
        Parameter(
            "max_range_m",
            30.0,
            "Persons farther than this from a camera along the ground are left out.",
            "double",
            (0.5, 100.0),
            live=True,
        ),
        Parameter(
            "person_height_m",
            1.7,
            "Height in metres that the distance of a person is estimated from where the camera "
            "has no pose, or where only the head is seen.",
            "double",
            (0.3, 3.0),
            live=True,
        ),
        Parameter(
            "person_radius_m",
            0.3,
            "Radius in metres of the ring of points that stands for a person in persons/cloud.",
            "double",
            (0.01, 5.0),
            live=True,
        ),
        Parameter(
            "birth_hits",
            8,
            "A track counts as a person after so many sightings; persons/cloud holds it from the "
            "first one.",
            "integer",
            (1, 1000),
        ),
        Parameter(
            "death_s",
            1.5,
            "A track ends when cameras that look at its place have missed it for this long.",
            "double",
            (0.0, 60.0),
        ),
        Parameter(
            "coast_s",
            3.0,
            "A track ends when no camera has seen it for this long, whether any looked or not.",
            "double",
            (0.1, 60.0),
        ),
        Parameter(
            "coverage_cell_m",
            0.25,
            "Length in metres of a cell of persons/coverage.",
            "double",
            (0.1, 10.0),
        ),
        Parameter(
            "assumed_hfov_deg",
            60.0,
            "Horizontal field of view in degrees assumed for a camera without calibration.",
            "double",
            (1.0, 179.0),
            live=True,
        ),
        Parameter(
            "marker_lifetime_s",
            0.5,
            "How long a marker stays in rviz unless it is renewed.",
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


def markdown() -> str:
    """The parameter tables of all nodes as Markdown, as they stand in the README."""
    parts = []
    for executable, parameters in NODE_PARAMETERS.items():
        parts += [f"### `{executable}`", ""]
        parts += ["| parameter | type | default | range | live | meaning |"]
        parts += ["|---|---|---|---|---|---|"]
        parts += [_row(parameter) for parameter in parameters]
        parts += [""]
    return "\n".join(parts).rstrip() + "\n"


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


def _row(parameter: Parameter) -> str:
    limits = "–"
    if parameter.range is not None:
        limits = " to ".join(_number(limit) for limit in parameter.range)
    elif parameter.choices:
        limits = ", ".join(f"`{choice}`" for choice in parameter.choices)
    return (
        f"| `{parameter.name}` | {parameter.type} | `{yaml_value(parameter.default)}` | {limits} "
        f"| {'yes' if parameter.live else 'no'} | {parameter.description.replace('|', '/')} |"
    )


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


if __name__ == "__main__":
    sys.stdout.write(markdown())
