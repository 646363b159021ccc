# SPDX-License-Identifier: Apache-2.0
"""The policies against the graph: what each node really uses is allowed, and nothing else is.

The rules are read as DDS security reads them: denials first, then what is allowed, else denied.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config import launches
from roi_codec_ros.config.bringup import (
    ProcessOptions,
    camera_graph,
    command,
    joined,
    server_graph,
    watchdog_graph,
)
from roi_codec_ros.config.security import (
    ENCLAVE_FILES,
    SERVER,
    SERVER_NODES,
    WATCHDOG,
    encoder_policy,
    server_policy,
    watchdog_policy,
)

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ROOT / "config" / "security"
SCRIPT = ROOT / "scripts" / "security_keystore"
CAMERAS = ("front", "hall/back")
PROCESSES = ("encoder", *SERVER_NODES, SERVER, WATCHDOG)
SERVER_NAME = "north"
RAW_TOPICS = (
    "/front/image_raw",
    "/front/image_raw/compressed",
    "/front/image_rect",
    "/front/image_color",
    "/hall/back/image_mono",
    "/driver/image_raw",
    "/driver/rgb",
    "/image",
)


@dataclass(frozen=True)
class Policy:
    """The rules of one enclave: (way, rule, kind) → names, made absolute."""

    enclave: str
    rules: dict[tuple[str, str], list[str]]

    @staticmethod
    def read(text: str) -> Policy:
        (enclave,) = ElementTree.fromstring(text).iter("enclave")
        rules: dict[tuple[str, str], list[str]] = {}
        for profile in enclave.iter("profile"):  # one for each node of the process
            namespace, node = profile.get("ns", "").rstrip("/"), profile.get("node", "")
            for expressions in profile:
                for way, rule in expressions.items():
                    names = [e.text or "" for e in expressions]
                    rules.setdefault((way, rule), []).extend(
                        n
                        if n.startswith("/")
                        else n.replace("~", f"{namespace}/{node}")
                        if n.startswith("~")
                        else f"{namespace}/{n}"
                        for n in names
                    )
        return Policy(enclave.get("path", ""), rules)

    def names(self, way: str) -> set[str]:
        return set(self.rules.get((way, "ALLOW"), []))

    def allows(self, way: str, name: str) -> bool:
        def matches(rule: str) -> bool:
            return any(fnmatch.fnmatchcase(name, p) for p in self.rules.get((way, rule), []))

        return matches("ALLOW") and not matches("DENY")


def policy_of(node: str, cameras: tuple[str, ...] = CAMERAS) -> Policy:
    if node == "encoder":
        return Policy.read(encoder_policy(cameras[0]))
    if node == WATCHDOG:
        return Policy.read(watchdog_policy())
    return Policy.read(server_policy(node, cameras, SERVER_NAME if node == SERVER else ""))


# The policies by themselves


@pytest.mark.parametrize("node", PROCESSES)
def test_a_policy_file_has_the_form_of_sros2(node):
    """Its schema, version 0.2.0, in short; the real one is asked below where it is installed."""
    root = ElementTree.parse(POLICIES / f"{node}.policy.xml").getroot()

    shape = {
        "policy": {"enclaves"},
        "enclaves": {"enclave"},
        "enclave": {"profiles"},
        "profiles": {"profile"},
        "profile": {"topics", "services", "actions"},
        "topics": {"topic"},
        "services": {"service"},
        "actions": {"action"},
    }
    ways = {"topics": {"publish", "subscribe"}, "services": {"reply", "request"}}
    assert root.tag == "policy"
    assert root.attrib == {"version": "0.2.0"}
    for element in root.iter():
        assert {child.tag for child in element} <= shape.get(element.tag, set())
        if element.tag in ways:
            assert set(element.attrib) <= ways[element.tag]
            assert set(element.attrib.values()) <= {"ALLOW", "DENY"}


@pytest.mark.parametrize("node", PROCESSES)
def test_sros2_takes_the_policies(node, tmp_path):
    """Both as they lie in the package and with the cameras' names in them."""
    pytest.importorskip("lxml", reason="lxml is not installed")
    sros2 = pytest.importorskip("sros2.policy", reason="sros2 is not installed")
    filled = tmp_path / "filled.policy.xml"
    own = {"encoder": lambda: encoder_policy("front"), WATCHDOG: watchdog_policy}
    text = own.get(node, lambda: server_policy(node, CAMERAS))()
    filled.write_text(text, encoding="utf-8")

    for path in (POLICIES / f"{node}.policy.xml", filled):
        assert len(sros2.load_policy(path).findall("enclaves/enclave")) == 1


def test_an_enclave_has_the_nodes_full_name():
    specs = [camera_graph("front")[0], *server_graph(CAMERAS)]
    named = joined(server_graph(CAMERAS, server_name=SERVER_NAME))[0]

    assert [policy_of(spec.name).enclave for spec in specs] == [s.full_name for s in specs]
    assert policy_of(SERVER).enclave == named.full_name == f"/{SERVER}_{SERVER_NAME}"


@pytest.mark.parametrize("node", PROCESSES)
@pytest.mark.parametrize("topic", RAW_TOPICS)
def test_raw_images_are_denied(node, topic):
    policy = policy_of(node)

    assert not policy.allows("publish", topic)
    assert not policy.allows("subscribe", topic)


def test_only_an_encoder_with_a_topic_source_may_read_that_topic():
    text = encoder_policy(
        "front", image_topic="/driver/image_raw", camera_info_topic="/driver/camera_info"
    )
    policy = Policy.read(text)

    read = {topic for topic in RAW_TOPICS if policy.allows("subscribe", topic)}

    assert read == {"/driver/image_raw"}
    assert policy.allows("subscribe", "/driver/camera_info")
    assert not any(policy.allows("publish", topic) for topic in RAW_TOPICS)


def test_an_encoder_publishes_its_latent_its_camera_info_and_what_nodes_say_of_themselves():
    assert policy_of("encoder").names("publish") == {
        "/front/latent",
        "/front/latent/camera_info",
        "/front/bond",
        "/diagnostics",
        "/rosout",
        "/parameter_events",
        "/front/encoder/transition_event",
    }


def test_an_encoder_may_not_speak_for_another_camera_and_only_the_decoder_hears_latents():
    assert not policy_of("encoder").allows("publish", "/hall/back/latent")
    hears = [n for n in SERVER_NODES if policy_of(n).allows("subscribe", "/front/latent")]
    assert hears == ["decoder"]


@pytest.mark.parametrize("node", PROCESSES)
def test_nobody_may_call_services_nor_name_anything_by_a_pattern(node):
    policy = policy_of(node)

    assert policy.names("request") == set()
    for way in ("publish", "subscribe", "reply"):
        assert not [name for name in policy.names(way) if set(name) & set("*?[")]


def test_a_camera_whose_name_is_denied_is_refused():
    with pytest.raises(UsageError, match="/imager/latent"):
        encoder_policy("imager")
    with pytest.raises(UsageError, match="absolute"):
        encoder_policy("front", image_topic="image_raw")


# The policies against the running graph


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> Iterator[dict[str, dict[str, set[str]]]]:
    """Node → way → names, as the running graph knows them; simulated time is on."""
    pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
    pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")
    from graph_harness import PATIENCE_S, POLL_S, Graph, unused_domain
    from test_graph import person_weights

    from roi_codec_ros.codec import untrained_model

    folder = tmp_path_factory.mktemp("security")
    untrained_model("nano", 0).save(folder / "nano.safetensors")
    params_file = folder / "all.yaml"
    params_file.write_text("/**:\n  ros__parameters:\n    use_sim_time: true\n")
    model, weights = str(folder / "nano.safetensors"), person_weights()
    graph = Graph(unused_domain(), folder)
    given = {"models": [model], "detector": str(weights or ""), "threads": 1}
    specs = [
        camera_graph("front", "/dev/video97", model, threads=1)[0],
        *server_graph(CAMERAS, **given),
        *watchdog_graph(),
    ]
    # Beside them, under other names, decoder and detector in one process.
    server = joined(server_graph(CAMERAS, server_name=SERVER_NAME, **given))[0]
    processes = [*specs, server]
    specs += server.nodes
    if weights is None or importlib.util.find_spec("ultralytics") is None:
        processes = [spec for spec in processes if spec.name not in ("detector", server.name)]
        specs = [spec for spec in specs if spec.name != "detector" and spec not in server.nodes]
    subjects = {
        "encoder": "front/encoder: codec",
        "tracker": "tracker: front",
        "person_watchdog": "person_watchdog: watchdog",
    }
    try:
        for spec in processes:
            graph.start(spec, params_file)
        for spec in specs:
            subject = subjects.get(spec.name, f"{spec.name}: front")
            graph.wait_for(f"{spec.name} to be active", lambda name=subject: graph.status(name))

        def names(spec, what):
            query = getattr(graph.node, f"get_{what}_names_and_types_by_node")
            return {name for name, _ in query(spec.name, spec.namespace)}

        ways = {
            "publish": "publisher",
            "subscribe": "subscriber",
            "reply": "service",
            "request": "client",
        }

        def known() -> dict[str, dict[str, set[str]]]:
            found = {s.name: {w: names(s, what) for w, what in ways.items()} for s in specs}
            found[WATCHDOG] = found["person_watchdog"]
            held = [found[spec.name] for spec in server.nodes if spec.name in found]
            if held:
                found[SERVER] = {way: set().union(*(node[way] for node in held)) for way in ways}
            return found

        # Discovery goes on after a first message has come, and tells of a node bit by bit.
        found, deadline_s = known(), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s and any(
            spare(found[node], node) != only_elsewhere(node) for node in PROCESSES if node in found
        ):
            time.sleep(POLL_S)
            found = known()
        yield found
    finally:
        graph.close()


def spare(used: dict[str, set[str]], node: str) -> dict[str, set[str]]:
    """What the policy of a node allows and the node does not use."""
    policy = policy_of(node)
    return {way: policy.names(way) - used[way] for way in ("publish", "subscribe", "reply")}


def only_elsewhere(node: str) -> dict[str, set[str]]:
    """What a node needs only where another package or a newer ROS 2 is installed."""
    found = {name: importlib.util.find_spec(name) for name in ("vision_msgs", "tf2_ros")}
    # Nodes that a lifecycle manager of Nav2 activates, where bondpy is installed.
    bond = {"/front/bond" if node == "encoder" else "/bond"}
    absent: dict[str, set[str]] = {"publish": {*bond}, "subscribe": {*bond}, "reply": set()}
    if found["vision_msgs"] is None and node in ("detector", SERVER):
        absent["publish"] |= {f"/{camera}/detections" for camera in CAMERAS}
    if found["vision_msgs"] is None and node == "tracker":
        absent["publish"].add("/persons/detections")
    if found["tf2_ros"] is None and node == "tracker":
        absent["subscribe"] |= {"/tf", "/tf_static"}
        absent["publish"].add("/tf_static")
    if os.environ.get("ROS_DISTRO") == "humble":
        names = {"encoder": ["/front/encoder"], WATCHDOG: ["/person_watchdog"]}.get(
            node, [f"/{node}"]
        )
        if node == SERVER:
            names = [f"/{held}_{SERVER_NAME}" for held in ("decoder", "detector")]
        absent["reply"] = {f"{name}/get_type_description" for name in names}
    return absent


@pytest.mark.graph
@pytest.mark.parametrize("node", PROCESSES)
def test_what_a_node_uses_is_allowed_and_what_is_allowed_it_uses(used, node):
    if node not in used:
        pytest.skip("no person weights, or no ultralytics")
    policy = policy_of(node)

    refused = {
        (way, name)
        for way, names in used[node].items()
        for name in names
        if not policy.allows(way, name)
    }
    assert refused == set()
    assert spare(used[node], node) == only_elsewhere(node)


# Launching secured


def complete_keystore(folder: Path, *enclaves: str) -> Path:
    """Looks like a keystore; its files are empty."""
    for enclave in enclaves:
        place = folder / "enclaves" / enclave.lstrip("/")
        place.mkdir(parents=True)
        for name in ENCLAVE_FILES:
            (place / name).touch()
    return folder


def test_a_secured_process_gets_its_enclave_and_the_environment(tmp_path):
    keystore = complete_keystore(tmp_path, "/front/encoder")
    options = ProcessOptions(keystore=str(keystore), log_level="debug")
    (spec,) = camera_graph("front")

    argv = command(spec, options=options)

    assert argv[argv.index("--enclave") + 1] == "/front/encoder"
    assert argv[argv.index("--log-level") + 1] == "debug"
    assert argv.index("--ros-args") < argv.index("--enclave")
    assert options.environment() == {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(keystore),
    }
    assert ProcessOptions().environment() == {}


def test_a_keystore_that_is_not_there_or_lacks_an_enclave_is_one_clear_error(tmp_path):
    (spec,) = camera_graph("front")
    nowhere = ProcessOptions(keystore=str(tmp_path / "none"))
    other = ProcessOptions(keystore=str(complete_keystore(tmp_path, "/back/encoder")))

    with pytest.raises(UsageError, match=r"found none in .*none$"):
        command(spec, options=nowhere)
    with pytest.raises(UsageError, match="expected enclave /front/encoder"):
        command(spec, options=other)


@pytest.mark.parametrize("kind", launches.LAUNCHES)
def test_every_launch_file_has_the_arguments_of_processes(kind):
    arguments, build = launches.LAUNCHES[kind]
    given = {"keystore": "/k", "log_level": "warn", "params_file": "p.yaml"}
    config = {"config": str(ROOT / "config" / "cameras.yaml")} if kind == "cameras" else {}

    names = {argument.name for argument in arguments()}

    assert given.keys() <= names
    assert not any(given.keys() & spec.parameters.keys() for spec in build({**given, **config}))


def test_an_unknown_log_level_is_refused():
    with pytest.raises(UsageError, match=r"log_level: expected one of debug.*found 'loud'"):
        ProcessOptions(log_level="loud")


def test_a_parameters_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"params_file: expected a file, found none at .*x\.yaml"):
        ProcessOptions(params_file=str(tmp_path / "x.yaml"))


# The script


FAKE_ROS2 = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$2" in
  create_keystore) mkdir -p "$3/enclaves"; touch "$3/enclaves/governance.p7s";;
  create_enclave) mkdir -p "$3/enclaves$4"; touch "$3/enclaves$4/permissions.p7s";;
  create_permission) [ -z "$BROKEN" ] || { echo "no such policy" >&2; exit 1; }
    grep -q "path=\\"$4\\"" "$5";;
esac
"""


def run_script(tmp_path: Path, *arguments: str, **environment: str):
    """The script with a stand-in for `ros2`, and the calls that it made."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    ros2 = tmp_path / "bin" / "ros2"
    ros2.write_text(FAKE_ROS2, encoding="utf-8")
    ros2.chmod(0o755)
    calls = tmp_path / "calls"
    calls.write_text("", encoding="utf-8")
    path = f"{ros2.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "CALLS": str(calls), **environment},
    )
    return done, [line.split() for line in calls.read_text(encoding="utf-8").splitlines()]


def test_the_script_has_ros2_make_each_nodes_enclave_and_permissions(tmp_path):
    done, calls = run_script(tmp_path, "keys", "--cameras", "front", "back")

    assert done.returncode == 0, done.stderr
    enclaves = ["/front/encoder", "/back/encoder", "/decoder", "/detector", "/tracker", "/server"]
    assert [c[1] for c in calls].count("create_keystore") == 1
    assert [c[3] for c in calls if c[1] == "create_enclave"] == enclaves
    assert [c[3] for c in calls if c[1] == "create_permission"] == enclaves


def test_the_script_makes_enclaves_for_a_server_of_a_name(tmp_path):
    done, calls = run_script(tmp_path, "keys", "--cameras", "front", "--server-name", "north")

    assert done.returncode == 0, done.stderr
    enclaves = [c[3] for c in calls if c[1] == "create_permission"]
    nodes = ("decoder", "detector", "tracker", "server")
    assert enclaves == ["/front/encoder", *(f"/{node}_north" for node in nodes)]


def test_the_script_leaves_no_enclave_that_may_do_anything(tmp_path):
    """What create_enclave makes may, until create_permission has been there."""
    done, _ = run_script(tmp_path, "keys", "--cameras", "front", BROKEN="1")

    assert done.returncode == 1
    assert done.stderr == "security_keystore: ros2 security create_permission failed: " + (
        "no such policy\n"
    )
    assert not list((tmp_path / "keys").rglob("permissions.*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cameras", "1st"],
        ["--cameras", "front", "--topic-source", "back=/image_raw"],
        ["--cameras", "front", "--topic-source", "front=image_raw"],
    ],
)
def test_the_script_refuses_what_can_not_be_in_one_line(tmp_path, arguments):
    done, calls = run_script(tmp_path, "keys", *arguments)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert calls == []


# Enforced, where the DDS of the sourced ROS 2 has security

# A member of the graph with an enclave of its own: says whether an image and diagnostics came.
LISTENER = """
import sys, time
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init(args=sys.argv)
node, heard = rclpy.create_node("listener"), set()
node.create_subscription(
    Image, "/front/anonymized/image", lambda _: heard.add("image"), qos_profile_sensor_data
)
node.create_subscription(DiagnosticArray, "/diagnostics", lambda _: heard.add("diagnostics"), 10)
deadline = time.monotonic() + 180.0
while len(heard) < 2 and time.monotonic() < deadline:
    rclpy.spin_once(node, timeout_sec=0.5)
sys.exit(0 if len(heard) == 2 else 3)
"""


@pytest.mark.graph
def test_secured_nodes_work_together_and_tell_outsiders_nothing(tmp_path, monkeypatch):
    pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
    if shutil.which("ros2") is None or importlib.util.find_spec("sros2") is None:
        pytest.skip("sros2 is not installed")
    from graph_harness import Graph, unused_domain

    from roi_codec_ros.codec import untrained_model

    domain, keystore = unused_domain(), tmp_path / "keys"
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))  # permissions hold for one domain
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    subprocess.run([sys.executable, str(SCRIPT), str(keystore), "--cameras", "front"], check=True)
    subprocess.run(["ros2", "security", "create_enclave", str(keystore), "/listener"], check=True)
    (tmp_path / "picture.png").write_bytes(
        cv2.imencode(".png", np.full((96, 128, 3), 90, np.uint8))[1].tobytes()
    )
    model = str(tmp_path / "nano.safetensors")
    untrained_model("nano", 0).save(model)
    options = ProcessOptions(keystore=str(keystore))
    specs = [
        camera_graph("front", str(tmp_path / "picture.png"), model, threads=1)[0],
        server_graph(["front"], models=[model], threads=1)[0],
    ]
    graph = Graph(domain, tmp_path)
    try:
        processes = [graph.start(spec, options=options) for spec in specs]
        listener = subprocess.run(
            [sys.executable, "-c", LISTENER, "--ros-args", "--enclave", "/listener"],
            env={**os.environ, **options.environment()},
            capture_output=True,
            text=True,
        )
        if "security libraries" in listener.stderr:
            pytest.skip("the DDS of this ROS 2 is built without security")

        assert listener.returncode == 0, listener.stderr + graph.logs()
        assert all(process.alive for process in processes)
        assert graph.status("decoder: front") is None  # the harness has no enclave
    finally:
        graph.close()
