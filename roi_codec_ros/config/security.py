# SPDX-License-Identifier: Apache-2.0
"""SROS2: what each node may do, and what running it secured takes.

    config/security/<node>.policy.xml ─ camera names ─► policy of one enclave ─► ros2 security

An enclave (the identity of a process, with its key and its permissions) has the node's full name;
that of decoder and detector in one process is /server.
Nothing here makes keys: `scripts/security_keystore` has `ros2 security` do that.
"""

from __future__ import annotations

import copy
import fnmatch
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.share import shared_file

PLACEHOLDER = "CAMERA"
SERVER_NODES = ("decoder", "detector", "tracker")
WATCHDOG = "watchdog"  # of a robot
SERVER = "server"  # decoder and detector in one process
# What DDS security reads of an enclave.
ENCLAVE_FILES = (
    "cert.pem",
    "governance.p7s",
    "identity_ca.cert.pem",
    "key.pem",
    "permissions.p7s",
    "permissions_ca.cert.pem",
)


def encoder_policy(camera: str, *, image_topic: str = "", camera_info_topic: str = "") -> str:
    """The policy (XML) of one camera's encoder, enclave /<camera>/encoder.

    image_topic: absolute name of the topic that its `source` names; empty for an encoder that
    opens the camera itself and may then subscribe to no image. camera_info_topic: of the driver.
    Raises UsageError for a topic that is not absolute.
    """
    for topic in (image_topic, camera_info_topic):
        if topic and not topic.startswith("/"):
            raise UsageError(f"expected a topic's absolute name, found {topic!r}")
    root = _read("encoder")
    profile = next(root.iter("profile"))
    heard = [topic for topic in (image_topic, camera_info_topic) if topic]
    if image_topic:
        denied = [e for e in profile if e.tag == "topics" and e.get("subscribe") == "DENY"]
        for element in denied:
            profile.remove(element)
    if heard:
        allowed = next(e for e in profile if e.get("subscribe") == "ALLOW")
        for topic in heard:
            ElementTree.SubElement(allowed, "topic").text = topic
    return _filled(root, [camera])


def server_policy(node: str, cameras: Sequence[str], server_name: str = "") -> str:
    """The policy (XML) of one of SERVER_NODES or SERVER, enclave /<node>, for cameras.

    server_name: as `bringup.server_graph` takes it; the enclave is then /<node>_<server_name>.
    """
    if node not in (*SERVER_NODES, SERVER):
        raise UsageError(f"expected one of {', '.join((*SERVER_NODES, SERVER))}, found {node!r}")
    if not cameras:
        raise UsageError("expected at least one camera, found none")
    root = _read(node)
    if server_name:
        for tag, key in (("enclave", "path"), ("profile", "node")):
            for element in root.iter(tag):
                element.set(key, f"{element.get(key)}_{server_name}")
    return _filled(root, cameras)


def watchdog_policy() -> str:
    """The policy (XML) of a robot's watchdog, enclave /person_watchdog."""
    return ElementTree.tostring(_read(WATCHDOG), encoding="unicode", xml_declaration=True) + "\n"


def check_enclave(keystore: str, enclave: str) -> None:
    """Raise UsageError unless a keystore has all that a process of this enclave needs.

    The files of a real enclave are enough: a camera carries its own, and not the keystore's
    private folder.
    """
    root = Path(keystore).expanduser()
    if not (root / "enclaves").is_dir():
        raise UsageError(
            f"keystore: expected one that scripts/security_keystore made, found none in {root}"
        )
    folder = root / "enclaves" / enclave.lstrip("/")
    missing = [name for name in ENCLAVE_FILES if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"keystore: expected enclave {enclave} in {root}, found no {', '.join(missing)} in "
            f"{folder}; scripts/security_keystore makes it"
        )


def environment(keystore: str) -> dict[str, str]:
    """Environment that makes ROS 2 refuse to run a process without its enclave; empty for ""."""
    if not keystore:
        return {}
    return {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(Path(keystore).expanduser().absolute()),
    }


def _read(node: str) -> ElementTree.Element:
    name = f"{node}.policy.xml"
    path = shared_file("config", "security", name)
    if path is None:
        raise UsageError(f"expected config/security/{name} in this package, found none")
    return ElementTree.parse(path).getroot()


def _filled(root: ElementTree.Element, cameras: Sequence[str]) -> str:
    """The policy with the cameras' names; an entry of a list is repeated for each of them."""
    for parent in root.iter():
        for child in list(parent):
            if PLACEHOLDER in (child.text or ""):
                place = list(parent).index(child)
                parent.remove(child)
                for offset, camera in enumerate(cameras):
                    entry = copy.copy(child)
                    entry.text = (child.text or "").replace(PLACEHOLDER, camera)
                    parent.insert(place + offset, entry)
        for key, value in parent.attrib.items():
            parent.set(key, value.replace(PLACEHOLDER, cameras[0]))
    _check_names(root, cameras)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _check_names(root: ElementTree.Element, cameras: Sequence[str]) -> None:
    """Raise UsageError if a camera's name makes a topic that it needs one of those denied."""
    for profile in root.iter("profile"):
        for way in ("publish", "subscribe"):
            allowed, denied = (
                [e.text or "" for t in profile if t.get(way) == rule for e in t]
                for rule in ("ALLOW", "DENY")
            )
            for topic in allowed:
                name = topic if topic.startswith(("/", "~")) else f"{profile.get('ns')}/{topic}"
                pattern = next((p for p in denied if fnmatch.fnmatchcase(name, p)), None)
                if pattern is not None:
                    raise UsageError(
                        f"expected camera names that do not make {name} one of the denied topics "
                        f"{pattern}, found {', '.join(cameras)}"
                    )
