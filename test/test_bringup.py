# SPDX-License-Identifier: Apache-2.0
"""The graph as data: names, parameters, command lines and launch arguments."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config import launches
from roi_codec_ros.config.bringup import (
    NodeSpec,
    camera_graph,
    command,
    demo_graph,
    joined,
    server_graph,
)
from roi_codec_ros.config.parameters import NODE_PARAMETERS, parameters_of

ROOT = Path(__file__).resolve().parents[1]
GRAPHS = {
    "camera": camera_graph("front", "0"),
    "server": server_graph(["front", "back"], detector="person.pt", device="cuda"),
    "demo": demo_graph({"front": "a.mp4", "back": "b.mp4"}, camera_parameters={"rate_hz": 5}),
}

BY_ARGUMENTS = [kind for kind in launches.LAUNCHES if kind != "cameras"]  # which has a file


def specs():
    return [pytest.param(s, id=f"{name}{s.full_name}") for name, g in GRAPHS.items() for s in g]


def test_camera_graph_is_one_encoder_in_the_cameras_namespace():
    (spec,) = camera_graph("front", "/dev/video0", "quality", rate_hz=10)

    assert spec == NodeSpec(
        "encoder_node",
        "encoder",
        "/front",
        {"source": "/dev/video0", "model": "quality", "rate_hz": 10.0},
    )
    assert spec.full_name == "/front/encoder"


def test_server_graph_gives_each_node_what_it_declares():
    decoder, detector, tracker = server_graph(
        ["a", "b"], models=["m"], detector="w", device="cuda"
    )

    assert decoder.parameters == {"cameras": ["a", "b"], "models": ["m"], "device": "cuda"}
    assert detector.parameters == {"cameras": ["a", "b"], "weights": "w", "device": "cuda"}
    assert tracker.parameters == {"cameras": ["a", "b"]}
    assert [s.full_name for s in (decoder, detector, tracker)] == [
        "/decoder",
        "/detector",
        "/tracker",
    ]


def test_demo_graph_is_an_encoder_per_camera_and_the_server():
    names = [spec.full_name for spec in GRAPHS["demo"]]

    assert names == ["/front/encoder", "/back/encoder", "/decoder", "/detector", "/tracker"]
    assert GRAPHS["demo"][0].parameters["rate_hz"] == 5.0
    assert GRAPHS["demo"][2].parameters["models"] == ["fast"]


@pytest.mark.parametrize("spec", specs())
def test_every_node_and_parameter_exists_in_the_nodes(spec):
    assert importlib.util.find_spec(f"roi_codec_ros.nodes.{spec.executable}") is not None
    known = parameters_of(spec.executable)
    for name, value in spec.parameters.items():
        known[name].check(value)


@pytest.mark.parametrize("spec", specs())
def test_a_spec_passes_only_what_was_given(spec):
    assert "autostart" not in spec.parameters
    assert len(spec.parameters) < len(NODE_PARAMETERS[spec.executable])


def test_command_names_node_namespace_remappings_and_parameters():
    spec = NodeSpec("encoder_node", "encoder", "/front", {"source": "0"}, (("latent", "/l"),))

    assert command(spec, "p.yaml") == [
        sys.executable,
        "-m",
        "roi_codec_ros.nodes.encoder_node",
        "--ros-args",
        *("-r", "__node:=encoder"),
        *("-r", "__ns:=/front"),
        *("-r", "latent:=/l"),
        *("--params-file", "p.yaml"),
        *("-p", 'source:="0"'),
    ]


def test_a_server_joins_decoder_and_detector_and_leaves_the_tracker_alone():
    apart = server_graph(["a"], threads=2)

    server, tracker = joined(apart)

    assert (server.executable, server.full_name, server.parameters) == (
        "server_node",
        "/server",
        {},
    )
    assert server.nodes == tuple(apart[:2])
    assert tracker == apart[2]
    assert joined(apart[1:]) == apart[1:]  # no decoder, nothing to join


def test_the_command_of_several_nodes_tells_each_its_own():
    server, _ = joined(server_graph(["a"], confidence=0.5, server_name="north"))

    argv = command(server)

    assert argv[2:] == [
        "roi_codec_ros.nodes.server_node",
        "--ros-args",
        *("-r", "decoder:__node:=decoder_north", "-r", "decoder:__ns:=/"),
        *("-r", "detector:__node:=detector_north", "-r", "detector:__ns:=/"),
        *("-p", 'decoder_north:cameras:=["a"]', "-p", 'decoder_north:models:=["fast"]'),
        *("-p", 'detector_north:cameras:=["a"]', "-p", "detector_north:confidence:=0.5"),
    ]


@pytest.mark.parametrize("name", ["", "1st", "a b", "/front", "front/", "ä", "a//b"])
def test_a_name_that_ros_would_refuse_is_refused(name):
    with pytest.raises(UsageError, match="camera name"):
        camera_graph(name)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: camera_graph(width=3), "width"),
        (lambda: server_graph(["a"], rate_hz=3), "rate_hz"),
        (lambda: server_graph([]), "none"),
        (lambda: server_graph(["a", "a"]), "a, a"),
        (lambda: camera_graph(max_width=-1), "-1"),
        (lambda: server_graph(["a"], server_name="no-rth"), "no-rth"),
        (lambda: launches.server_launch({"tracker": "yes"}), "yes"),
    ],
)
def test_a_graph_that_can_not_work_is_refused(make, found):
    with pytest.raises(UsageError, match=found):
        make()


# Launch arguments


@pytest.mark.parametrize("kind", BY_ARGUMENTS)
def test_a_launch_without_arguments_leaves_every_value_to_the_nodes(kind):
    arguments, build = launches.LAUNCHES[kind]

    specs = build({argument.name: argument.default for argument in arguments()})

    given = {name for spec in specs for name in spec.parameters}
    assert given <= {"cameras"}


@pytest.mark.parametrize("kind", BY_ARGUMENTS)
def test_every_parameter_of_a_launch_files_nodes_is_an_argument_of_it(kind):
    arguments, build = launches.LAUNCHES[kind]
    names = [argument.name for argument in arguments()]

    wanted = {p.name for spec in build({}) for p in NODE_PARAMETERS[spec.executable]}

    assert len(set(names)) == len(names)
    assert wanted - set(names) <= ({"cameras", "models"} if kind == "demo" else set())


def test_launch_arguments_arrive_in_their_types():
    (encoder,) = launches.camera_launch({"name": "front", "source": "0", "rate_hz": "5"})

    assert encoder.full_name == "/front/encoder"
    assert encoder.parameters == {"source": "0", "rate_hz": 5.0}


def test_server_launch_takes_camera_names_with_commas():
    specs = launches.server_launch({"cameras": "front,back", "confidence": "0.4"})

    assert all(spec.parameters["cameras"] == ["front", "back"] for spec in specs)
    assert [spec.parameters.get("confidence") for spec in specs] == [None, 0.4, None]


@pytest.mark.parametrize("build", [launches.server_launch, launches.tracker_launch])
@pytest.mark.parametrize(
    ("cameras", "found"), [("a,b,a", "a, b, a"), ("a,1b", "'1b'"), ("a b", "'a b'"), (",", "none")]
)
def test_launch_files_refuse_camera_names_before_any_node_starts(build, cameras, found):
    with pytest.raises(UsageError, match=f"expected .*camera name.*, found {found}$"):
        build({"cameras": cameras})


def test_a_named_server_without_a_tracker_leaves_the_map_to_one_that_has_all_cameras():
    north = launches.server_launch({"cameras": "a", "server_name": "north", "tracker": "false"})
    (tracker,) = launches.tracker_launch({"cameras": "a,b"})

    assert [spec.full_name for spec in north] == ["/decoder_north", "/detector_north"]
    assert tracker.full_name == "/tracker"
    assert tracker.parameters == {"cameras": ["a", "b"]}


def test_demo_launch_gives_the_servers_nodes_the_cameras_name_and_model():
    encoder, decoder, *_ = launches.demo_launch({"name": "door", "model": "nano"})

    assert encoder.full_name == "/door/encoder"
    assert decoder.parameters == {"cameras": ["door"], "models": ["nano"]}


def test_there_is_a_launch_file_for_each_kind():
    files = {path.name for path in (ROOT / "launch").glob("*.launch.py")}

    assert files == {f"{kind}.launch.py" for kind in launches.LAUNCHES}
