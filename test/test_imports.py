# SPDX-License-Identifier: Apache-2.0
"""Imports run one way: the laboratory → commands → nodes → stream, perception, codec → common."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "roi_codec_ros"
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / PACKAGE
LIVE = {"common", "codec", "stream", "perception", "regions"}
# What each folder may import of the others, itself apart. Read downwards: nobody imports what
# stands below it.
MAY_IMPORT = {
    "common": set(),
    "config": {"common"},
    "regions": {"common"},
    "codec": {"common", "regions"},
    "stream": {"common"},
    "perception": {"common"},
    "recordings": LIVE,
    "nodes": LIVE | {"config"},
    "diagnosis": LIVE | {"config", "nodes"},
    "commands": LIVE | {"config", "nodes", "recordings", "diagnosis"},
    "cli": {"common"},
    "lab/faces": LIVE,
    "lab/datasets": LIVE | {"lab/faces"},
    "lab/simulation": LIVE,
    "lab/evaluation": LIVE | {"lab/faces", "lab/datasets", "lab/simulation"},
    "lab/training": LIVE | {"lab/faces", "lab/datasets", "lab/evaluation"},
    "lab/privacy": LIVE | {"lab/faces", "lab/datasets", "lab/evaluation", "lab/training"},
    "lab/demo": LIVE | {"config", "nodes", "lab/faces", "lab/simulation", "lab/evaluation"},
    "lab/tools": LIVE
    | {"config", "nodes", "recordings", "lab/datasets", "lab/evaluation", "lab/demo"}
    | {"lab/simulation"},
}
MAY_IMPORT["lab/commands"] = set(MAY_IMPORT) - {"cli"}
# The processes that the laboratory starts beside the nodes.
ROS_IN_THE_LABORATORY = {
    "lab/demo/filming.py",
    "lab/demo/background_node.py",
    "lab/demo/monitor.py",
    "lab/demo/robot_node.py",
    "lab/tools/camera_rates.py",
    "lab/tools/listening.py",
    "lab/tools/replaying.py",
}
ROS_PACKAGES = {
    "rclpy",
    "rcl_interfaces",
    "builtin_interfaces",
    "ament_index_python",
    "launch",
    "launch_ros",
}
# What may be imported where at all; elsewhere these must not appear.
ONLY_IN = {
    "ultralytics": {"perception/person_detector.py"},
    "compressai": {"lab/training", "lab/evaluation", "lab/tools", "lab/privacy"},
    "facenet_pytorch": {"perception/face_detectors.py"},
}
# In the codec these cost seconds, or are not there on a small camera: only inside functions.
LAZY_IN_CODEC = {"torch", "onnxruntime", "onnx", "openvino"}
TORCH_MODULES = {"networks.py"}
# Verbs, and rooms that are one thing each, may have the name of what they call.
VERBS = {"commands", "lab/commands"}


def modules() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*.py") if "msg" not in path.parts)


def room(path: Path) -> str:
    """The folder that a module is in, "lab/training" for one of the laboratory's."""
    return room_of(path.relative_to(FOLDER).with_suffix("").parts)


def room_of(parts: Sequence[str]) -> str:
    return "/".join(parts[: 2 if parts[0] == "lab" else 1])


@cache
def imports(path: Path, *, only_at_import_time: bool = False) -> tuple[str, ...]:
    """Dotted names that a module imports, those for type checkers left out."""
    return tuple(_imports(ast.parse(path.read_text(encoding="utf-8")), only_at_import_time))


def _imports(node: ast.AST, only_at_import_time: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield child.module or ""
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)) or (
            only_at_import_time and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        ):
            continue
        else:
            yield from _imports(child, only_at_import_time)


def ids(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_rooms_import_only_what_they_may(path):
    reached = {
        room_of(name.split(".")[1:])
        for name in imports(path)
        if name.startswith(f"{PACKAGE}.") and name.split(".")[1] != "msg"
    }

    assert reached - {room(path)} <= MAY_IMPORT.get(room(path), set())


def test_no_folder_imports_another_that_imports_it():
    seen: set[str] = set()
    for name, others in MAY_IMPORT.items():
        assert not [other for other in others if name in MAY_IMPORT[other]], name
        if name != "lab/commands":
            assert not {other for other in others if other.startswith("lab")} or "lab" in name
        seen.add(name)
    found = {room(path) for path in modules() if path.name != "__init__.py"}
    assert found <= seen


def test_no_two_modules_have_one_name():
    names = Counter(
        path.stem for path in modules() if path.name != "__init__.py" and room(path) not in VERBS
    )

    assert [name for name, count in names.items() if count > 1] == []


BARE = """
import importlib, runpy, sys
from importlib.machinery import PathFinder

class OnlyStandardLibrary:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in (*sys.stdlib_module_names, "roi_codec_ros"):
            raise ImportError(f"{name} is not in the standard library")

sys.meta_path.insert(0, OnlyStandardLibrary())
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    if name.endswith(".py"):
        runpy.run_path(name)
    else:
        importlib.import_module(name)
"""


def test_configuration_and_launch_files_import_with_only_the_standard_library():
    """A robot's computer launches cameras without NumPy; launch itself comes when it is asked."""
    given = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (*sorted((FOLDER / "config").glob("*.py")), FOLDER / "common" / "errors.py")
    ] + [str(path) for path in sorted((ROOT / "launch").glob("*.launch.py"))]

    done = subprocess.run(
        [sys.executable, "-c", BARE, str(ROOT), *given], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((FOLDER / "config").glob("*.py")), ids=ids)
def test_configuration_needs_no_more_than_what_launch_brings(path):
    """PyYAML, on which ROS's launch depends, where a file is read; launch where it is asked."""
    of_launch = {"launch", "launch_ros"} if path.name == "ros_launch.py" else set()
    tops = {name.partition(".")[0] for name in imports(path)}

    assert tops - sys.stdlib_module_names - {PACKAGE, "yaml"} <= of_launch


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_only_nodes_and_what_starts_beside_them_import_ros(path):
    relative = path.relative_to(FOLDER).as_posix()
    if room(path) == "nodes" or relative in ROS_IN_THE_LABORATORY:
        return

    found = {
        name
        for name in imports(path, only_at_import_time=relative == "config/ros_launch.py")
        if name.split(".")[0] in ROS_PACKAGES
        or name.split(".")[0].endswith("_msgs")
        or name.startswith(f"{PACKAGE}.msg")
    }

    assert not found


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_optional_packages_stay_where_they_belong(path):
    relative = path.relative_to(FOLDER).as_posix()

    for package, places in ONLY_IN.items():
        if relative in places or room(path) in places:
            continue
        assert package not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize(
    "path", [p for p in modules() if room(p) == "codec" and p.name not in TORCH_MODULES], ids=ids
)
def test_the_codec_imports_without_torch(path):
    at_once = {name.split(".")[0] for name in imports(path, only_at_import_time=True)}

    assert not at_once & LAZY_IN_CODEC
