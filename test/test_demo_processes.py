# SPDX-License-Identifier: Apache-2.0
"""Child processes end with their parent, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.demo.processes import Child, ProcessGroup
from roi_codec_ros.lab.demo.running import (
    camera_names,
    private_ros_environment,
    threads_per_process,
)

PYTHON = [sys.executable, "-c"]
STUBBORN = (
    "import signal, time\n"
    "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)"
)
PARENT = """
import os, sys, time
from pathlib import Path
from roi_codec_ros.lab.demo.processes import ProcessGroup
with ProcessGroup(os.environ, Path(sys.argv[1])) as group:
    child = group.start("sleeper", ["sleep", "60"])
    print(child.process.pid, flush=True)
    time.sleep(60)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_leaving_the_block_ends_every_process(tmp_path):
    with ProcessGroup(os.environ, tmp_path) as group:
        children = [group.start(f"sleeper{n}", ["sleep", "60"]) for n in range(3)]
        assert all(is_running(child.process.pid) for child in children)
    assert [child.process.returncode for child in children] == [-signal.SIGINT] * 3


def test_an_exception_ends_every_process(tmp_path):
    with pytest.raises(ZeroDivisionError), ProcessGroup(os.environ, tmp_path) as group:
        child = group.start("sleeper", ["sleep", "60"])
        raise ZeroDivisionError
    assert child.process.returncode is not None


def test_who_ignores_signals_is_killed(tmp_path, monkeypatch):
    endings = ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0))
    monkeypatch.setattr("roi_codec_ros.lab.demo.processes._ENDINGS", endings)
    with ProcessGroup(os.environ, tmp_path) as group:
        child = group.start("stubborn", [*PYTHON, STUBBORN])
        wait_for(lambda: "ready" in child.log.read_text())
    assert child.process.returncode == -signal.SIGKILL


def test_children_of_children_end_too(tmp_path):
    script = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    with ProcessGroup(os.environ, tmp_path) as group:
        child = group.start(
            "parent", [*PYTHON, script.replace("input()", "import time; time.sleep(60)")]
        )
        wait_for(lambda: child.log.read_text().endswith("\n"))
        grandchild = int(child.log.read_text())
        assert is_running(grandchild)
    wait_for(lambda: not is_running(grandchild))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs PR_SET_PDEATHSIG")
def test_a_killed_parent_takes_its_children_along(tmp_path):
    root = Path(__file__).resolve().parents[1]
    search_path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    parent = subprocess.Popen(
        [*PYTHON, PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search_path},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not is_running(child))


def test_a_process_that_ended_is_named_with_its_last_error(tmp_path):
    script = (
        "print('[ERROR] [1.5] [decoder]: expected a model, found none'); print('bye'); exit(3)"
    )
    with ProcessGroup(os.environ, tmp_path) as group:
        child = group.start("decoder", [*PYTHON, script])
        child.process.wait()
        with pytest.raises(RoiCodecError) as caught:
            group.check()
    message = str(caught.value)
    assert message.startswith("decoder ended with status 3; its last words: 'expected a model")
    assert str(tmp_path / "decoder.log") in message and "\n" not in message


def test_a_process_that_was_killed_is_said_to_be(tmp_path):
    with ProcessGroup(os.environ, tmp_path) as group:
        child = group.start("detector", ["sleep", "60"])
        child.process.kill()
        child.process.wait()
        with pytest.raises(RoiCodecError, match="detector was ended by SIGKILL"):
            group.check()


def test_a_program_that_is_not_there_is_one_line(tmp_path):
    group = ProcessGroup(os.environ, tmp_path)
    with pytest.raises(RoiCodecError, match=r"cannot start encoder: .*no-such-program"):
        group.start("encoder", ["/no-such-program"])


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("one\ntwo\n\n", "two"),
        ("", ""),
        ("Traceback (most recent call last):\n  x\nValueError: bad\nclosing\n", "ValueError: bad"),
        ("\x1b[31m[FATAL] [1.0] [node.x]: no weights\x1b[0m\nlater\n", "no weights"),
    ],
)
def test_last_words_are_the_last_error_or_the_last_line(tmp_path, log, words):
    (tmp_path / "a.log").write_text(log)
    child = Child("a", None, tmp_path / "a.log")  # type: ignore[arg-type]
    assert child.last_words() == words


def test_the_graph_is_private_unless_the_user_says_otherwise(tmp_path):
    private = private_ros_environment({}, tmp_path)
    assert 1 <= int(private["ROS_DOMAIN_ID"]) <= 101
    assert private["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert private["ROS_LOG_DIR"] == str(tmp_path / "ros")
    given = {
        "ROS_DOMAIN_ID": "0",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
        "ROS_LOG_DIR": "/x",
    }
    assert private_ros_environment(given, tmp_path) == {}


def test_humble_has_another_word_for_localhost(tmp_path):
    private = private_ros_environment({"ROS_DISTRO": "humble"}, tmp_path)
    assert private["ROS_LOCALHOST_ONLY"] == "1"
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE" not in private


def test_one_camera_is_called_camera():
    assert camera_names(1) == ["camera"]
    assert camera_names(3) == ["camera1", "camera2", "camera3"]


@pytest.mark.parametrize(
    ("cores", "cameras", "threads"), [(2, 1, 1), (1, 8, 1), (16, 1, 4), (8, 1, 2)]
)
def test_the_processes_share_the_cores(cores, cameras, threads):
    assert threads_per_process(cores, cameras) == threads
