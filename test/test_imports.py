# SPDX-License-Identifier: Apache-2.0
"""Imports run one way: nodes, evaluation, training, demo → perception → codec."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "roi_codec_ros"
FOLDER = Path(__file__).resolve().parents[1] / PACKAGE
MAY_IMPORT = {
    "codec": set(),
    "perception": {"codec"},
    "evaluation": {"codec", "perception"},
    "training": {"codec", "perception"},
    "demo": {"codec", "perception"},
    "nodes": {"codec", "perception", "parameters"},
    "parameters": {"codec"},
    "security": {"codec"},
    "bringup": {"codec", "parameters", "security"},
    "launching": {"bringup", "codec", "parameters"},
}
ROS_PACKAGES = {"rclpy", "rcl_interfaces", "builtin_interfaces", "ament_index_python", "launch"}
# What may be imported where at all; elsewhere these must not appear.
ONLY_IN = {
    "ultralytics": {"perception/detector.py"},
    "compressai": {"training", "evaluation", "commands"},
    "facenet_pytorch": {"perception"},
}
# In the codec these cost seconds, or are not there on a small camera: only inside functions.
LAZY_IN_CODEC = {"torch", "onnxruntime", "onnx", "openvino"}
TORCH_MODULES = {"networks.py"}


def modules() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*.py") if "msg" not in path.parts)


def room(path: Path) -> str:
    return path.relative_to(FOLDER).parts[0].removesuffix(".py")


def imports(path: Path, *, only_at_import_time: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, those for type checkers left out."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), only_at_import_time)


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
    if room(path) not in MAY_IMPORT:
        return

    reached = {
        name.split(".")[1]
        for name in imports(path)
        if name.startswith(f"{PACKAGE}.") and name.split(".")[1] not in ("msg", room(path))
    }

    assert reached <= MAY_IMPORT[room(path)]


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_only_nodes_import_ros(path):
    if room(path) == "nodes":
        return

    found = {
        name
        for name in imports(path, only_at_import_time=room(path) == "launching")
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
