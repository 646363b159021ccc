# SPDX-License-Identifier: Apache-2.0
"""docker/ and the workflows, as far as they can be looked at without running them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from roi_codec_ros.cli import main
from roi_codec_ros.lab.simulation.filmed_hall import HallClock, Stage

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


@pytest.fixture(scope="module")
def services() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def test_each_service_is_built_to_a_stage_that_is_there(services, dockerfile) -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.MULTILINE))

    targets = {s["build"]["target"] for s in services.values() if "target" in s["build"]}
    assert targets == {"camera", "server", "development"} <= stages


def test_a_camera_and_a_server_carry_no_torch(dockerfile) -> None:
    before_development = dockerfile.split(" AS development")[0]
    assert not re.search(r"install .*\b(torch|ultralytics)\b", before_development)


def test_the_site_of_the_containers_is_that_of_the_hall(services, capsys) -> None:
    site = yaml.safe_load((DOCKER / "site" / "cameras.yaml").read_text(encoding="utf-8"))
    (filming,) = [text for text in services["hall"]["command"] if "filming" in text]
    argument = filming.split(' "', 1)[1].removesuffix('"')
    given = json.loads(argument.replace("\\", "").replace("$$(date +%s%N)", "0"))
    stage = Stage(given.pop("cameras"), seed=given["seed"])
    assert given.pop("rate_hz") > 0
    HallClock(**given)

    assert {name: pytest.approx(c["pose"], abs=1e-4) for name, c in site["cameras"].items()} == {
        name: list(numbers) for name, numbers in stage.pose_numbers.items()
    }
    for host in [*site["cameras"], "server"]:
        assert f"host:={host}" in services[host]["command"]
        assert main(["site", "check", str(DOCKER / "site" / "cameras.yaml"), "--host", host]) == 0
    assert "/front/encoder" in capsys.readouterr().out


def test_the_bridge_hands_on_no_raw_picture(services) -> None:
    (argument,) = [text for text in services["bridge"]["command"] if "topic_whitelist" in text]
    patterns = re.findall(r"'([^']+)'", argument)

    def handed_on(topic: str) -> bool:
        return any(re.fullmatch(pattern, topic) for pattern in patterns)

    assert handed_on("/front/anonymized/image")
    assert handed_on("/persons/markers")
    assert not handed_on("/front/image_raw")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_scripts_that_are_there_with_the_least_rights(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        commands = "\n".join(step.get("run", "") for step in job["steps"])
        for script in re.findall(r"(?:scripts|docker)/\w[\w.]*", commands):
            assert (ROOT / script).is_file(), script


def test_every_supported_ros_is_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yaml").read_text(encoding="utf-8"))
    tested = workflow["jobs"]["ros"]["strategy"]["matrix"]["distribution"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert all(name.capitalize() in readme for name in tested)
    assert len(tested) == 4
