# SPDX-License-Identifier: Apache-2.0
"""The launch files, executed for real where ROS's launch system is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from roi_codec_ros.config import launches

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
            for node in [e for e in found or () if type(e).__name__ == "Node"]:
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

service = LaunchService(argv=sys.argv[2:])
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


@pytest.mark.parametrize("kind", launches.LAUNCHES)
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


@pytest.fixture
def workspace():
    """The environment of nodes that are launched for real, on a domain of their own."""
    require_launch()
    if shutil.which("ros2") is None and not os.environ.get("AMENT_PREFIX_PATH"):
        pytest.skip("no ROS 2 workspace with this package is sourced")
    from graph_harness import unused_domain

    return {**os.environ, "ROS_DOMAIN_ID": str(unused_domain())}


@pytest.mark.graph
def test_a_launched_tracker_comes_back_when_killed_and_ends_on_sigint(tmp_path, workspace):
    """Only what starts without a model; the graph tests start the rest."""
    file = ROOT / "launch" / "tracker.launch.py"
    arguments = ["cameras:=front,back", "person_height_m:=1.8"]
    respawn = ["use_respawn:=true", "respawn_delay:=0.1"]
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(file), *arguments, *respawn],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=workspace,
        )

    def text():
        return log.read_text(errors="replace")

    def wait_for_starts(count):
        deadline = time.monotonic() + PATIENCE_S
        while text().count("cameras front, back") < count:
            if "not found" in text():
                pytest.skip("the installed package has no executables: build it with colcon")
            assert process.poll() is None, text()
            assert time.monotonic() < deadline, text()
            time.sleep(0.05)

    try:
        wait_for_starts(1)
        [pid] = re.findall(r"process started with pid \[(\d+)\]", text())
        os.kill(int(pid), signal.SIGKILL)
        wait_for_starts(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, text()
    finally:
        if process.poll() is None:
            process.kill()
    assert "process has finished cleanly" in text()
    assert "Traceback" not in text()


@pytest.mark.graph
def test_a_launched_node_that_can_not_start_ends_the_launch_with_its_reason(workspace):
    file = ROOT / "launch" / "tracker.launch.py"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(file), "cameras:=front", "camera_poses:=back: 1 2 3"],
        env=workspace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )

    if "not found" in done.stdout:
        pytest.skip("the installed package has no executables: build it with colcon")
    assert done.returncode == 1, done.stdout
    assert "camera_poses: expected" in done.stdout
    assert "expected /tracker to run, found that it ended with status 2" in done.stdout
    assert "Traceback" not in done.stdout


# What is launched, by real launch files that include ours; a recorder stands in for the nodes

RECORDER = """#!{python}
import json, os, pathlib, sys
record = pathlib.Path({record!r})
runs = record.read_text().splitlines() if record.exists() else []
files = [sys.argv[i + 1] for i, a in enumerate(sys.argv) if a == "--params-file"]
run = dict(argv=sys.argv[1:], files=[pathlib.Path(f).read_text() for f in files])
with record.open("a") as file:  # in one write: several run at once
    file.write(json.dumps(run) + "\\n")
statuses = {statuses!r}
sys.exit(statuses[min(len(runs), len(statuses) - 1)])
"""

PARENT = """
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetParameter

def ours(kind, **arguments):
    source = PythonLaunchDescriptionSource({folder!r} + "/" + kind + ".launch.py")
    return IncludeLaunchDescription(source, launch_arguments=arguments.items())

def generate_launch_description():
    return LaunchDescription([{entities}])
"""


class Launched:
    """A launch that has ended: its status, what it wrote, and what it ran."""

    def __init__(self, folder, file, *arguments, statuses=(0,)):
        require_launch()
        if not os.environ.get("AMENT_PREFIX_PATH"):
            pytest.skip("no ROS 2 workspace with this package is sourced")
        record, recorder = folder / "record", folder / "recorder"
        recorder.write_text(
            RECORDER.format(python=sys.executable, record=str(record), statuses=statuses)
        )
        recorder.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(file), f"python:={recorder}", *arguments],
            env={**os.environ, "ROS_LOG_DIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
        )
        self.status, self.text = done.returncode, done.stdout
        if "not found" in self.text and not record.exists():
            pytest.skip("the installed package has no executables: build it with colcon")
        lines = record.read_text().splitlines() if record.exists() else []
        self.runs = [json.loads(line) for line in lines]

    def of(self, name):
        """The arguments and parameters files of the process with a rule, as one text."""
        found = [run for run in self.runs if name in run["argv"]]
        assert len(found) == 1, self.runs
        return " ".join([*found[0]["argv"], *found[0]["files"]])


def launched(folder, kind, *arguments, **options):
    return Launched(folder, ROOT / "launch" / f"{kind}.launch.py", *arguments, **options)


def parent(folder, entities, *arguments, **options):
    file = folder / "parent.launch.py"
    file.write_text(PARENT.format(folder=str(ROOT / "launch"), entities=entities))
    return Launched(folder, file, *arguments, **options)


def test_two_cameras_of_one_parent_do_not_share_arguments(tmp_path):
    (tmp_path / "front.yaml").write_text("/**: {ros__parameters: {loop: false}}")
    outcome = parent(
        tmp_path,
        f"""
        ours("camera", name="front", source="/dev/video0", max_width="320",
             camera_info_file="/lens.yaml", params_file="{tmp_path}/front.yaml"),
        ours("camera", name="back", model="nano"),
        ours("camera"),
        """,
    )

    front, back = outcome.of("__ns:=/front"), outcome.of("__ns:=/back")
    third = outcome.of("__ns:=/camera")
    assert outcome.status == 0, outcome.text
    assert "max_width: 320" in front
    assert "loop: false" in front
    assert "model: nano" in back
    for name in ("max_width", "camera_info_file", "source", "loop"):
        assert name not in back + third
    assert "model" not in third
    assert "not taken from an earlier one: " in outcome.text


def test_what_the_command_line_gives_holds_for_all_cameras(tmp_path):
    outcome = parent(
        tmp_path,
        """
        ours("camera", name="front", rate_hz="5"),
        ours("camera", name="back"),
        """,
        "rate_hz:=7",
        "use_sim_time:=true",
        "log_level:=warn",
    )

    assert "rate_hz: 5.0" in outcome.of("__ns:=/front")
    assert "rate_hz: 7.0" in outcome.of("__ns:=/back")
    for run in ("__ns:=/front", "__ns:=/back"):
        assert outcome.of(run).count("use_sim_time") == 1
        assert "use_sim_time: true" in outcome.of(run)
        assert "--log-level warn" in outcome.of(run)


def test_a_parents_own_arguments_stay_what_they_are(tmp_path):
    """Ours end with our files: a parent's `model` is not reset to our default."""
    outcome = parent(
        tmp_path,
        """
        ours("camera", name="front"),
        __import__("launch").actions.LogInfo(
            msg=["model is ", __import__("launch").substitutions.LaunchConfiguration("model")]),
        """,
        "model:=quality",
    )

    assert "model is quality" in outcome.text


def test_namespaces_that_are_pushed_move_everything(tmp_path):
    outcome = parent(
        tmp_path,
        """
        GroupAction([
            PushRosNamespace("site"),
            SetParameter("use_sim_time", True),
            ours("camera", name="front"),
            ours("server", cameras="front"),
            ours("camera", name="back", namespace="robot"),
            ours("camera", name="left", namespace="/alone"),
            ours("camera", name="right", namespace="site"),
        ]),
        """,
    )

    assert outcome.status == 0, outcome.text
    assert "use_sim_time:=True" in outcome.of("__ns:=/site/front")
    server = outcome.of("decoder:__ns:=/site")
    assert "detector:__ns:=/site" in server
    assert "cameras:=[" in server
    assert "use_sim_time:=True" in server
    assert "__ns:=/site " in outcome.of("__node:=tracker")
    outcome.of("__ns:=/site/robot/back")
    outcome.of("__ns:=/alone/left")
    assert "has no argument" not in outcome.text
    outcome.of("__ns:=/site/right")  # who pushed it has it as an argument too


def parameter_read(argv, node, name):
    """What a node of that name in a process of those arguments takes as a parameter."""
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    rclpy.init(args=argv, context=context)
    try:
        made = rclpy.create_node(
            node, context=context, automatically_declare_parameters_from_overrides=True
        )
        value = made.get_parameter(name).value
        made.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    return value


@pytest.mark.parametrize("separate", ["false", "true"])
def test_arguments_win_over_a_parameters_file(tmp_path, separate):
    file = tmp_path / "server.yaml"
    sections = (
        f"{n}: {{ros__parameters: {{cameras: [camera], use_sim_time: false}}}}"
        for n in ("decoder", "detector")
    )
    file.write_text("\n".join(sections))
    given = ("tracker:=false", "use_sim_time:=true", f"separate:={separate}")
    options = (*given, f"params_file:={file}")

    outcome = launched(tmp_path, "server", "cameras:=front", *options)

    assert outcome.status == 0, outcome.text
    assert len(outcome.runs) == (2 if separate == "true" else 1)
    for node in ("decoder", "detector"):
        (run,) = [r for r in outcome.runs if any(f"__node:={node}" in a for a in r["argv"])]
        assert list(parameter_read(run["argv"], node, "cameras")) == ["front"]
        assert parameter_read(run["argv"], node, "use_sim_time") is True


@pytest.mark.parametrize("namespace", ["a b", "1", "a//b"])
def test_a_namespace_that_can_not_be_ends_the_launch(tmp_path, namespace):
    outcome = launched(tmp_path, "tracker", f"namespace:={namespace}")

    assert outcome.status == 1
    assert "namespace: expected names between slashes" in outcome.text
    assert not outcome.runs


@pytest.mark.parametrize("status", [1, 2])
def test_a_node_that_can_not_start_ends_the_launch_with_a_status(tmp_path, status):
    outcome = launched(tmp_path, "tracker", statuses=(status,))

    assert outcome.status == 1
    assert f"expected /tracker to run, found that it ended with status {status}" in outcome.text
    assert len(outcome.runs) == 1


def test_a_node_that_fails_comes_back_where_that_is_asked_for(tmp_path):
    """Until it says that it was used wrongly, which does not change."""
    outcome = launched(
        tmp_path, "tracker", "use_respawn:=true", "respawn_delay:=0.2", statuses=(1, 0, 2)
    )

    assert len(outcome.runs) >= 3  # one more may begin while the launch ends
    assert outcome.status == 1
    assert "ended with status 2" in outcome.text


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("use_respawn:=often", "use_respawn: expected true or false, found 'often'"),
        ("respawn_delay:=soon", "respawn_delay: expected seconds, found 'soon'"),
        ("use_sim_time:=1", "use_sim_time: expected true or false, found '1'"),
        ("params_file:=/no/such.yaml", "params_file: expected a file, found none"),
        ("person_height_m:=tall", "person_height_m: expected a number, found 'tall'"),
    ],
)
def test_arguments_that_can_not_be_end_the_launch(tmp_path, argument, sentence):
    outcome = launched(tmp_path, "tracker", argument)

    assert outcome.status == 1
    assert sentence in outcome.text
    assert not outcome.runs


def test_a_python_that_is_not_there_ends_the_launch(tmp_path):
    outcome = launched(tmp_path, "tracker", "python:=/no/such/python")

    assert outcome.status == 1
    assert "python: expected a Python that can be run, found none at /no/such" in outcome.text


def test_what_a_launch_file_has_no_argument_for_ends_the_launch(tmp_path):
    outcome = launched(tmp_path, "camera", "max_widht:=320", "foo:=1", "cameras:=front")

    assert outcome.status == 1
    assert "found 'max_widht': is max_width meant?, 'foo', 'cameras'" in outcome.text
    assert not outcome.runs


def test_a_misspelt_argument_of_an_include_is_named(tmp_path):
    """What else a parent has is its own affair."""
    outcome = parent(
        tmp_path, """ours("camera", name="front", rate_hs="5", robot="r1"),""", "max_widht:=320"
    )

    assert outcome.status == 0
    assert "camera.launch.py has no argument 'max_widht': is max_width meant?" in outcome.text
    assert "camera.launch.py has no argument 'rate_hs': is rate_hz meant?" in outcome.text
    assert "robot" not in outcome.text
    assert len(outcome.runs) == 1


def test_a_parameters_file_for_other_nodes_is_named(tmp_path):
    other, right = tmp_path / "other.yaml", tmp_path / "right.yaml"
    other.write_text("encoder: {ros__parameters: {rate_hz: 3.0}}")
    right.write_text("front: {encoder: {ros__parameters: {rate_hz: 3.0}}}")

    passed_over = launched(tmp_path, "camera", "name:=front", f"params_file:={other}")
    taken = launched(tmp_path, "camera", "name:=front", f"params_file:={right}")

    sentence = "expected a section for one of /front/encoder (or /**) in"
    assert sentence in passed_over.text
    assert "found /encoder: nothing of it is taken" in passed_over.text
    assert sentence not in taken.text
