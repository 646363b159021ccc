# SPDX-License-Identifier: Apache-2.0
"""Every parameter of every node, declared once, as the typed settings that the node reads.

Launch files read the same classes; `generated.py` writes reference and parameter files of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config.parameter_values import Parameter, parameter

# As the codec has them; a test holds that they agree (nothing here may import it).
BACKENDS = ("auto", "torch", "torch-half", "onnxruntime", "openvino", "openvino-half")
SERVER_BACKENDS = (
    "auto",
    "torch",
    "onnxruntime-int8",
    "onnxruntime",
    "openvino-int8",
    "openvino",
)
DEFAULT_MAX_PIXELS = 3840 * 2160
GPU_BATCH = 8
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*\Z")
# How the types of settings are called in ROS.
_ROS_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "double",
    "bool": "bool",
    "list[str]": "string_array",
}


def _device() -> Any:
    return parameter(
        "cpu",
        'Device of the network: "cpu"; of torch also "cuda", "cuda:1"; of onnxruntime "cuda", '
        '"cuda:1", "tensorrt", "openvino" where it was built for them; of openvino "gpu" and '
        "others that it names.",
    )


def _threads() -> Any:
    return parameter(
        0,
        "CPU threads of the network; 0: its runtime chooses.",
        range=(0, 256),
    )


def _server_backend(network: str, graph: str) -> Any:
    return parameter(
        "auto",
        f"Runtime of the {network}. auto: the fastest installed one that passes a self-test at "
        f"start. -int8: in 8-bit integers, where {graph}-int8.onnx lies beside it.",
        choices=SERVER_BACKENDS,
    )


def _cameras() -> Any:
    return parameter(
        ["camera"],
        "Names of the cameras to serve, which are the namespaces of their encoders.",
        live=True,
    )


def _max_batch() -> Any:
    return parameter(
        0,
        "Maximum number of images, of different cameras, in one batch. 0: all that are "
        f"waiting, up to {GPU_BATCH}, on a GPU; one at a time on a CPU, where batching only adds "
        "latency.",
        range=(0, 256),
        live=True,
    )


def _stale_after_s() -> Any:
    return parameter(
        2.0,
        "A camera without a new frame for this long is reported as STALE in the diagnostics.",
        range=(0.1, 3600.0),
        live=True,
    )


@dataclass(frozen=True)
class NodeParameters:
    """What every node has."""

    autostart: bool = parameter(
        True,
        "Configure and activate as soon as the process runs; false: wait for a lifecycle manager.",
    )


@dataclass(frozen=True)
class EncoderParameters(NodeParameters):
    """Parameters of encoder_node."""

    source: str = parameter(
        "0",
        'Source of the frames: a device ("0", "/dev/video0"), a video or image file, a '
        "folder of images, a stream (rtsp://…, http://…, or a GStreamer pipeline ending "
        'in "appsink"), or a topic ("topic:/camera/image_raw").',
    )
    model: str = parameter(
        "fast",
        "Name of an installed model, or path of a model file.",
    )
    backend: str = parameter(
        "auto",
        "Runtime of the network on the camera: onnxruntime or openvino for the regions model of "
        "a codec of blocks; torch for the analysis of other codecs, or the former two for a "
        "graph (.onnx) of it made by roi-codec export. auto: onnxruntime for codecs of blocks, "
        "torch for others.",
        choices=BACKENDS,
    )
    regions: str = parameter(
        "regions",
        "Name or path of the regions model (.onnx), which finds the heads to hide and the "
        "persons to code finely.",
    )
    quality: float = parameter(
        0.0,
        "How finely frames are coded, as an offset in levels from the model's own: +4 halves the "
        "quantiser steps, -4 doubles them.",
        range=(-16.0, 16.0),
        live=True,
    )
    target_kbit_s: float = parameter(
        0.0,
        "Target bit rate in kbit/s. The quality starts at the parameter quality and is adjusted "
        "to hold the rate within 10 % over five seconds, from one second after a change of "
        "scene. 0: constant quality.",
        range=(0.0, 1e6),
        live=True,
    )
    skip: str = parameter(
        "auto",
        "Skip unchanged blocks, for static cameras. Every block is refreshed once a second; "
        "blocks with persons are sent in every frame. auto: on for devices, streams and topics, "
        "off for files and folders.",
        choices=("auto", "on", "off"),
    )
    predict: bool = parameter(
        False,
        "With skip: send changed blocks as differences to what was sent before. This takes fewer "
        "bits, but after a lost frame persons, too, may be unknown for up to a second.",
    )
    hide_memory_s: float = parameter(
        0.5,
        "Time in seconds for which the blocks of a head that is not found again stay hidden, and "
        "those beside them coarse, while a person is still seen there, so that a head missed in "
        "one frame is not shown. 0: no memory.",
        range=(0.0, 10.0),
    )
    persons_every: int = parameter(
        2,
        "For devices, streams and topics: search every n-th frame in full, for persons and for "
        "heads seen from behind; in between they are assumed to be where they were, or one block "
        "beside it. Faces are searched for in every frame. A frame more than 0.08 s after the "
        "last full search is searched in full, as are all frames of files and folders.",
        range=(1, 4),
    )
    device: str = _device()
    threads: int = _threads()
    max_width: int = parameter(
        640,
        "Wider frames are scaled down to this width in pixels, keeping the aspect "
        "ratio; 0: no scaling.",
        range=(0, 8192),
        live=True,
    )
    rate_hz: float = parameter(
        15.0,
        "Maximum frames per second to encode. A video plays in real time and is thinned "
        "to this rate; a folder of images is played at this rate. 0: no limit (folders: "
        "10).",
        range=(0.0, 1000.0),
        live=True,
    )
    loop: bool = parameter(
        True,
        "Start a file or folder again when it ends.",
        live=True,
    )
    frame_id: str = parameter(
        "",
        "Frame id of the camera's optical frame; empty: <namespace>_optical_frame. "
        "Frame ids of a topic source pass through unchanged.",
    )
    camera_info_file: str = parameter(
        "",
        "Calibration file as written by the camera_calibration package (YAML): a path, "
        "file:///… or package://PACKAGE/…; empty: none.",
    )
    camera_info_topic: str = parameter(
        "",
        "For a topic source: the driver's sensor_msgs/CameraInfo topic, instead of "
        "camera_info_file.",
    )
    rectified: str = parameter(
        "auto",
        "Whether the images of a topic source are rectified while its camera_info is "
        "that of the raw images, as with image_proc; intrinsics then come from the "
        'projection matrix. auto: yes if the topic is named "image_rect…".',
        choices=("auto", "yes", "no"),
    )
    capture_width: int = parameter(
        0,
        "Width in pixels to request from a device; 0: the device's default.",
        range=(0, 16384),
    )
    capture_height: int = parameter(
        0,
        "Height in pixels to request from a device; 0: the device's default.",
        range=(0, 16384),
    )
    capture_fps: float = parameter(
        0.0,
        "Frames per second to request from a device; 0: the device's default. rate_hz decides how "
        "many of them are encoded.",
        range=(0.0, 1000.0),
    )
    pixel_format: str = parameter(
        "",
        "Pixel format to request from a device, by its four letters (MJPG, YUYV, …); empty: the "
        "device's default. v4l2-ctl --list-formats-ext shows what it has.",
    )
    stamp_offset_s: float = parameter(
        0.0,
        "Offset in seconds added to each stamp. Negative: makes up for a constant delay between "
        "the exposure and the driver's or the stream's time, or the arrival.",
        range=(-10.0, 10.0),
        live=True,
    )


@dataclass(frozen=True)
class DecoderParameters(NodeParameters):
    """Parameters of decoder_node."""

    cameras: list[str] = _cameras()
    models: list[str] = parameter(
        ["fast"],
        "Names or paths of the models to accept; payloads of other models are rejected.",
    )
    backend: str = _server_backend("decoder's network", "MODEL-decoder")
    device: str = _device()
    threads: int = _threads()
    max_batch: int = _max_batch()
    deadline_ms: float = parameter(
        0.0,
        "Latents that can no longer become persons (without a detector in the same process: an "
        "image) within this time of their arrival, judging by how long recent ones took, are not "
        "decoded to pixels; later frames can still build on them. 0: no deadline.",
        range=(0.0, 60000.0),
        live=True,
    )
    max_pixels: int = parameter(
        DEFAULT_MAX_PIXELS,
        "Payloads that claim more pixels are rejected before anything is allocated.",
        range=(1, 2147483647),
    )
    jpeg_quality: int = parameter(
        80,
        "JPEG quality of anonymized/image/compressed (published only while subscribed to) and of "
        "snapshots.",
        range=(1, 100),
        live=True,
    )
    snapshot_folder: str = parameter(
        "",
        "Folder that the service ~/snapshot writes anonymized images into, as "
        "<camera>_<stamp>.jpg; empty: the service is refused.",
    )
    restart_after_s: float = parameter(
        1.0,
        "A frame whose stamp or sequence is not newer than the last one is rejected as "
        "a replay, unless no other frame has arrived for this long, or its stamp is "
        "newer by this much: then its encoder was restarted or its clock was set. 0: "
        "accept any order.",
        range=(0.0, 60.0),
        live=True,
    )
    max_age_s: float = parameter(
        0.0,
        "Frames whose stamps differ more than this from the server's clock are "
        "rejected; needs synchronised clocks. 0: accept any age.",
        range=(0.0, 3600.0),
        live=True,
    )
    stale_after_s: float = _stale_after_s()


@dataclass(frozen=True)
class DetectorParameters(NodeParameters):
    """Parameters of detector_node."""

    cameras: list[str] = _cameras()
    weights: str = parameter(
        "",
        "YOLO weights file with a class named person, or a graph (.onnx) that roi-codec export "
        "made from one; empty: models/person-*.pt, else yolov8n.pt, downloaded by "
        "ultralytics.",
    )
    confidence: float = parameter(
        0.25,
        "Minimum detection confidence.",
        range=(0.0, 1.0),
        live=True,
    )
    iou: float = parameter(
        0.7,
        "IoU above which two boxes are merged into one (non-maximum suppression).",
        range=(0.0, 1.0),
        live=True,
    )
    image_size: int = parameter(
        640,
        "Longer side in pixels of the detector's input image (a multiple of 32).",
        range=(32, 4096),
        live=True,
    )
    backend: str = _server_backend("detector", "WEIGHTS")
    device: str = _device()
    threads: int = _threads()
    max_batch: int = _max_batch()
    stale_after_s: float = _stale_after_s()


@dataclass(frozen=True)
class TrackerParameters(NodeParameters):
    """Parameters of tracker_node."""

    cameras: list[str] = _cameras()
    map_frame: str = parameter(
        "map",
        "Frame of the tracks of all cameras with a known pose: z up, the ground at 0.",
    )
    camera_poses: list[str] = parameter(
        [""],
        'Camera poses, each as "name: x y z roll pitch yaw" in the map frame (metres '
        "and radians, of the body: x forward, y left, z up; a positive pitch looks "
        'down) or as "name: file.yaml" as written by roi-codec calibrate-ground. Others '
        "are looked up in TF if tf2_ros is installed; persons of a camera without a "
        "pose stay in its optical frame.",
        live=True,
    )
    tf_timeout_s: float = parameter(
        0.2,
        "If a camera's pose comes from TF: how long a frame waits for the transform at its stamp, "
        "in seconds; for a moving camera set it to more than TF lags behind the images. 0: no "
        "waiting.",
        range=(0.0, 5.0),
        live=True,
    )
    broadcast_poses: bool = parameter(
        True,
        "Broadcast camera_poses on /tf_static, from map_frame to the frame ids of the cameras' "
        "images, where tf2_msgs is installed. false: where a robot_state_publisher has them too.",
    )
    max_range_m: float = parameter(
        30.0,
        "Persons farther than this from a camera, along the ground, are ignored.",
        range=(0.5, 100.0),
        live=True,
    )
    person_height_m: float = parameter(
        1.7,
        "Body height in metres assumed to estimate a person's distance, where the "
        "camera has no pose or only the head is visible.",
        range=(0.3, 3.0),
        live=True,
    )
    person_radius_m: float = parameter(
        0.3,
        "Radius in metres of the rings of points that represent a person in persons/cloud.",
        range=(0.01, 5.0),
        live=True,
    )
    birth_hits: int = parameter(
        8,
        "Sightings after which a track is published in persons/tracks; persons/cloud "
        "has it from the first one.",
        range=(1, 1000),
    )
    death_s: float = parameter(
        1.5,
        "A track ends when the cameras that see its position have missed it for this long.",
        range=(0.0, 60.0),
    )
    coast_s: float = parameter(
        3.0,
        "A track ends when no camera has detected it for this long, watched or not.",
        range=(0.1, 60.0),
    )
    coverage_cell_m: float = parameter(
        0.25,
        "Cell size in metres of persons/coverage.",
        range=(0.1, 10.0),
    )
    assumed_hfov_deg: float = parameter(
        60.0,
        "Horizontal field of view in degrees assumed for an uncalibrated camera.",
        range=(1.0, 179.0),
        live=True,
    )
    marker_lifetime_s: float = parameter(
        0.5,
        "Time in seconds after which rviz drops a marker that is not renewed.",
        range=(0.05, 60.0),
        live=True,
    )
    stale_after_s: float = _stale_after_s()


@dataclass(frozen=True)
class WatchdogParameters(NodeParameters):
    """Parameters of watchdog_node."""

    cloud_timeout_s: float = parameter(
        1.0,
        "Stop the robot when persons/cloud has been silent for this long, in seconds, or when its "
        "stamps are older than this by this machine's clock.",
        range=(0.05, 60.0),
        live=True,
    )
    coverage_timeout_s: float = parameter(
        3.0,
        "The same for persons/coverage, which is published once a second. 0: ignore it.",
        range=(0.0, 60.0),
        live=True,
    )
    required_cameras: list[str] = parameter(
        [""],
        "Cameras that must be watching, by persons/health, or the robot stops; *: every camera of "
        "the tracker. None: the robot may drive as long as any camera watches.",
    )
    base_frame: str = parameter(
        "base_link",
        "Frame of the robot, around which the obstacles are published.",
        live=True,
    )
    ring_radius_m: float = parameter(
        0.3,
        "Radius in metres of the ring of obstacles around the robot; it must lie within the stop "
        "zone of its collision monitor.",
        range=(0.01, 5.0),
        live=True,
    )
    rate_hz: float = parameter(
        10.0,
        "Rate in Hz at which the watchdog checks its inputs and publishes.",
        range=(1.0, 100.0),
    )


NODES: dict[str, type[NodeParameters]] = {
    "encoder_node": EncoderParameters,
    "decoder_node": DecoderParameters,
    "detector_node": DetectorParameters,
    "tracker_node": TrackerParameters,
    "watchdog_node": WatchdogParameters,
}


def _described(node: type[NodeParameters]) -> tuple[Parameter, ...]:
    defaults = node()
    return tuple(
        Parameter(
            name=item.name,
            default=getattr(defaults, item.name),
            type=_ROS_TYPES[str(item.type)],
            **item.metadata,
        )
        for item in fields(node)
    )


NODE_PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    executable: _described(node) for executable, node in NODES.items()
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
