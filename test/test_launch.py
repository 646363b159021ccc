# SPDX-License-Identifier: Apache-2.0
"""The launch files, executed for real where ROS's launch system is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from roi_codec_ros.config import bringup

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 180.0

# Loads a launch file as `ros2 launch` does and prints what it would start.
DESCRIBE = """
import sys
from launch import LaunchContext
from launch.launch_description_sources import get_launch_description_from_python_launch_file

description = get_launch_description_from_python_launch_file(sys.argv[1])
context = LaunchContext()
context.launch_configurations.update(dict(a.split(":=", 1) for a in sys.argv[2:]))
def visit(entities):
    for entity in entities:
        found = entity.visit(context)
        if type(entity).__name__ == "OpaqueFunction":
            for node in found:
                node._perform_substitutions(context)
                named = "" if "unspecified" in node.node_name else f" {node.node_name}"
                print(node.node_package, node.node_executable + named)
        elif found:
            visit(found)
visit(description.entities)
"""

# Runs a launch file until SIGINT, as `ros2 launch` does.
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

service = LaunchService()
source = PythonLaunchDescriptionSource(sys.argv[1])
arguments = [tuple(a.split(":=", 1)) for a in sys.argv[2:]]
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


def require_launch() -> None:
    """Skip unless launch_ros is there (the folder `launch` of this repository is not it)."""
    probe = "import launch.actions, launch_ros.actions"
    outcome = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    if outcome.returncode:
        reason = (outcome.stderr.strip().splitlines() or ["?"])[-1]
        pytest.skip(f"ROS's launch system is not installed ({reason})")


def describe(kind: str, *arguments: str) -> list[str]:
    file = ROOT / "launch" / f"{kind}.launch.py"
    outcome = subprocess.run(
        [sys.executable, "-c", DESCRIBE, str(file), *arguments], capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.splitlines()


@pytest.mark.parametrize("kind", bringup.LAUNCHES)
def test_launch_files_are_plain_python(kind):
    text = (ROOT / "launch" / f"{kind}.launch.py").read_text(encoding="utf-8")

    compile(text, f"{kind}.launch.py", "exec")
    assert f'launch_description("{kind}")' in text


@pytest.mark.parametrize(
    ("kind", "arguments", "nodes"),
    [
        ("camera", ["name:=front", "source:=0"], ["encoder_node /front/encoder"]),
        (
            "server",
            ["cameras:=front,back"],
            ["server_node", "tracker_node /tracker"],
        ),
        (
            "server",
            ["cameras:=front,back", "separate:=true", "server_name:=north"],
            [
                "decoder_node /decoder_north",
                "detector_node /detector_north",
                "tracker_node /tracker_north",
            ],
        ),
        ("server", ["cameras:=front", "tracker:=false"], ["server_node"]),
        ("tracker", ["cameras:=front,back"], ["tracker_node /tracker"]),
        (
            "demo",
            ["name:=door", "model:=nano"],
            [
                "encoder_node /door/encoder",
                "server_node",
                "tracker_node /tracker",
            ],
        ),
    ],
)
def test_launch_files_start_the_nodes_of_bringup(kind, arguments, nodes):
    require_launch()

    assert describe(kind, *arguments) == [f"roi_codec_ros {node}" for node in nodes]


@pytest.mark.graph
def test_a_launched_tracker_runs_with_its_arguments_and_ends_on_sigint(tmp_path):
    """Only what starts without a model; the graph tests start the rest."""
    require_launch()
    if shutil.which("ros2") is None and not os.environ.get("AMENT_PREFIX_PATH"):
        pytest.skip("no ROS 2 workspace with this package is sourced")
    from graph_harness import unused_domain

    file = tmp_path / "tracker.launch.py"
    file.write_text(
        textwrap.dedent(
            """
            from roi_codec_ros.config import bringup

            def generate_launch_description():
                arguments, build = bringup.LAUNCHES["server"]
                only = lambda given: [s for s in build(given) if s.executable == "tracker_node"]
                bringup.LAUNCHES["server"] = (arguments, only)
                return bringup.launch_description("server")
            """
        ),
        encoding="utf-8",
    )
    log = tmp_path / "log.txt"
    environment = {**os.environ, "ROS_DOMAIN_ID": str(unused_domain())}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(file), "cameras:=front,back", "person_height_m:=1.8"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "cameras front, back" not in log.read_text(errors="replace"):
            if "not found" in log.read_text(errors="replace"):
                pytest.skip("the installed package has no executables: build it with colcon")
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, log.read_text(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
    text = log.read_text(errors="replace")
    assert "process has finished cleanly" in text
    assert "Traceback" not in text
