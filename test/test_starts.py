# SPDX-License-Identifier: Apache-2.0
"""Starts that fail: one line that says why, and 2 for wrong use, 1 for the rest."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import unused_domain

from roi_codec_ros.common.opencv import has_gstreamer

PATIENCE_S = 60.0
TRACKS = "qos_overrides./persons/tracks.publisher"


@pytest.fixture(scope="module")
def domain():
    return str(unused_domain())


def start(domain, *arguments, folder, node="tracker_node", **environment):
    """The ended process of a node: of the one that needs neither model nor weights."""
    return subprocess.run(
        [sys.executable, "-m", f"roi_codec_ros.nodes.{node}", *arguments],
        cwd=folder,
        env={**os.environ, "ROS_DOMAIN_ID": domain, "ROS_LOG_DIR": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )


def check(outcome, status, sentence):
    assert outcome.returncode == status, outcome.stdout
    assert sentence in outcome.stdout
    assert len(outcome.stdout.strip().splitlines()) == 1, outcome.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "--params-file: expected a file, found none at given.yaml"),
        ('/tracker:\n  ros__parameters:\n   cameras: ["front"\n', "given.yaml"),
        ("/tracker:\n\tros__parameters:\n", "given.yaml"),
        ('cameras: ["front"]\n', "given.yaml"),
        ("/tracker:\n  ros__parameters:\n    cameras: [a]\n    map_frame:\n", "No value at line"),
        ("/tracker:\n  ros__parameters:\n    cameras: []\n", "different camera names, found none"),
        ("/tracker:\n  ros__parameters:\n    person_height_m: []\n", "a number, found []"),
        ("/tracker:\n  ros__parameters:\n    person_height_m: tall\n", "a number, found 'tall'"),
    ],
)
def test_a_parameters_file_that_can_not_be_used(tmp_path, domain, content, sentence):
    if content is not None:
        (tmp_path / "given.yaml").write_text(content, encoding="utf-8")

    check(start(domain, "--ros-args", "--params-file", "given.yaml", folder=tmp_path), 2, sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "cameras:=[front"], "-p cameras:=[front"),
        (["-p", "cameras"], "-p cameras"),
        (["-p", "use_sim_time:=perhaps"], "use_sim_time"),
        (["-p", f"{TRACKS}.reliability:=sometimes"], "`reliability`: `sometimes`"),
        (["-p", f"{TRACKS}.depth:=deep"], "depth' to 'deep'"),
        (["-p", f"{TRACKS}.depth:=-3"], "expected a depth of 0 to 10000, found -3"),
        (["-r", "a:=b:=c"], "-r a:=b:=c"),
        (["-r", "__node:=1bad"], "__node:=1bad"),
        (["-r", "__ns:=bad"], "__ns:=bad"),
        (["--log-level", "bogus"], "--log-level bogus"),
        (["--nonsense"], "--nonsense"),
        (["--params-file"], "--params-file"),
        (["--", "more"], "found more"),
    ],
)
def test_arguments_that_ros_can_not_use(tmp_path, domain, arguments, sentence):
    check(start(domain, "--ros-args", *arguments, folder=tmp_path), 2, sentence)


@pytest.mark.parametrize("argument", ["cameras:=front", "--cameras"])
def test_arguments_that_nobody_would_read(tmp_path, domain, argument):
    check(start(domain, argument, folder=tmp_path), 2, "expected --ros-args and then")


@pytest.mark.parametrize(
    ("environment", "status", "sentence"),
    [
        ({"ROS_DOMAIN_ID": "abc"}, 2, "ROS_DOMAIN_ID: expected a whole number up to 232"),
        ({"ROS_DOMAIN_ID": "233"}, 2, "found '233'"),
        ({"ROS_SECURITY_ENABLE": "true"}, 2, "ROS_SECURITY_KEYSTORE: expected a keystore"),
        (
            {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": "/no/such/keystore"},
            2,
            "found none in /no/such/keystore",
        ),
        ({"ROS_LOG_DIR": "/proc/none"}, 1, "/proc/none"),
    ],
)
def test_an_environment_that_ros_can_not_use(tmp_path, domain, environment, status, sentence):
    secured = {"ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": ""}
    check(start(domain, folder=tmp_path, **{**secured, **environment}), status, sentence)


@pytest.mark.skipif(has_gstreamer(), reason="this OpenCV runs pipelines")
def test_a_pipeline_is_nothing_for_the_opencv_of_pip(tmp_path, domain):
    pipeline = ["--ros-args", "-p", "source:=videotestsrc ! videoconvert ! appsink"]

    outcome = start(domain, *pipeline, folder=tmp_path, node="encoder_node")

    check(outcome, 2, "expected an OpenCV with GStreamer for a pipeline as source")
