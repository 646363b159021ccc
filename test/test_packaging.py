# SPDX-License-Identifier: Apache-2.0
"""`pip install .` and `colcon build` give the same package, and every dependency is declared."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "roi_codec_ros"

# Imported where they are installed; the package works without them.
OPTIONAL_ROS = {"bondpy", "cv_bridge", "sensor_msgs_py", "tf2_msgs", "tf2_ros", "vision_msgs"}
# Asks for an old torch, so that no extra can name it: scripts/bootstrap installs it apart.
UNDECLARED = {"facenet-pytorch"}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "facenet_pytorch": "facenet-pytorch",
    "lightning_fabric": "lightning-fabric",
    "ruamel": "ruamel-yaml",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}


def executables() -> dict[str, tuple[str, str]]:
    """Name → (module, function), as resource/executables.txt lists them."""
    lines = (ROOT / "resource" / "executables.txt").read_text(encoding="utf-8").splitlines()
    entries = [re.split(r" = |:", line) for line in lines if line and not line.startswith("#")]
    return {name: (module, function) for name, module, function in entries}


def modules_of_the_source() -> set[str]:
    """The modules, and the templates beside them."""
    paths = [path for kind in ("*.py", "*.j2") for path in (ROOT / PACKAGE).rglob(kind)]
    return {str(path.relative_to(ROOT)) for path in paths}


def shared_files_of_the_source() -> set[str]:
    folders = ("config", "launch", "models")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(ROOT)) for path in paths}


def files_below(folder: Path) -> set[str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)) for p in paths if "__pycache__" not in p.parts}


def environment_without_ros(**extra: str) -> dict[str, str]:
    ours = ("AMENT_", "COLCON_", "COVERAGE_", "ROS_", "PYTHONPATH", "LD_LIBRARY_PATH")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | extra


@pytest.fixture(scope="module")
def source_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a package is built from, away from what earlier builds left behind."""
    copy = tmp_path_factory.mktemp("source")
    unwanted = shutil.ignore_patterns("__pycache__", "*.so")
    for folder in (PACKAGE, "config", "launch", "models", "msg", "resource", "src"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, copy / folder, ignore=unwanted)
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def pip_prefix(source_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` makes: a prefix with bin, lib and share."""
    prefix = tmp_path_factory.mktemp("pip") / "prefix"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--prefix", str(prefix), "."]
    subprocess.run([*pip, *options], cwd=source_copy, env=environment_without_ros(), check=True)
    return prefix


@pytest.fixture(scope="module")
def pip_site(pip_prefix: Path) -> Path:
    return next(pip_prefix.glob(f"**/{PACKAGE}/__init__.py")).parent.parent


@pytest.fixture(scope="module")
def colcon_prefix() -> Path:
    """What `colcon build` made, as scripts/bootstrap runs it."""
    index = "share/ament_index/resource_index/packages"
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    for prefix in [Path(p) for p in prefixes if p]:
        if (prefix / index / PACKAGE).exists():
            return prefix
    pytest.skip(f"{PACKAGE} was not built with colcon, or its workspace is not sourced")


def test_every_executable_has_a_function_to_start() -> None:
    for name, (module, function) in executables().items():
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
        imported = [a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names]
        assert function in functions + imported, f"{name}: no {function} in {module}"


def test_pip_installs_the_listed_executables(pip_prefix: Path) -> None:
    assert {path.name for path in (pip_prefix / "bin").iterdir()} == set(executables())


def test_colcon_installs_the_listed_executables(colcon_prefix: Path) -> None:
    nodes = {path.name for path in (colcon_prefix / "lib" / PACKAGE).iterdir()}
    commands = {path.name for path in (colcon_prefix / "bin").iterdir()}

    assert nodes | commands == set(executables())
    assert nodes == {name for name in executables() if name.endswith("_node")}


def test_installed_executables_can_be_executed(colcon_prefix: Path) -> None:
    folders = (colcon_prefix / "lib" / PACKAGE, colcon_prefix / "bin")
    for path in [path for folder in folders for path in folder.iterdir()]:
        assert os.access(path, os.X_OK), path
        interpreter = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
        assert os.access(interpreter, os.X_OK), f"{path} starts with {interpreter}"


def test_both_ways_install_every_module_and_shared_file(
    pip_prefix: Path, pip_site: Path, colcon_prefix: Path
) -> None:
    colcon_site = next(colcon_prefix.glob(f"**/{PACKAGE}/__init__.py")).parent.parent
    for site in (pip_site, colcon_site):
        installed = {f"{PACKAGE}/{name}" for name in files_below(site / PACKAGE)}
        assert modules_of_the_source() <= installed
        for kernel in ("_rans", "_transform"):
            assert any(f"codec/{kernel}." in name for name in installed), f"no {kernel}"
    for prefix in (pip_prefix, colcon_prefix):
        assert shared_files_of_the_source() <= files_below(prefix / "share" / PACKAGE)


def test_source_tree_and_messages_live_under_one_name(colcon_prefix: Path) -> None:
    pytest.importorskip("rclpy")
    import roi_codec_ros.common.errors
    import roi_codec_ros.msg

    assert Path(roi_codec_ros.common.errors.__file__).is_relative_to(ROOT / PACKAGE)
    assert Path(str(roi_codec_ros.msg.__file__)).is_relative_to(colcon_prefix)


def test_pip_installation_codes_with_the_kernel_and_without_ros(
    pip_site: Path, tmp_path: Path
) -> None:
    program = (
        "import roi_codec_ros.codec.rans as rans\n"
        "from roi_codec_ros.codec.entropy import EntropyTables\n"
        "print(rans.__file__)\n"
        "print(rans.RansCoder(EntropyTables.laplace(4)).implementation)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment_without_ros(PYTHONPATH=str(pip_site)),
        check=True,
        capture_output=True,
        text=True,
    )
    origin, implementation = done.stdout.splitlines()

    assert Path(origin).is_relative_to(pip_site)
    assert implementation == "c++"


def build_without_a_compiler(
    source: Path, folder: Path, **extra: str
) -> subprocess.CompletedProcess[str]:
    folders = ["--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", *folders],
        cwd=source,
        env=environment_without_ros(CC="false", CXX="false", **extra),
        capture_output=True,
        text=True,
    )


def test_a_build_without_a_compiler_fails_and_says_what_to_install(
    source_copy: Path, tmp_path: Path
) -> None:
    done = build_without_a_compiler(source_copy, tmp_path)

    assert done.returncode == 1
    assert f"expected to build {PACKAGE}.codec._rans" in done.stderr
    assert "install g++ and python3-dev" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_build_goes_without_the_kernel_where_it_is_told_to(
    source_copy: Path, tmp_path: Path
) -> None:
    done = build_without_a_compiler(source_copy, tmp_path, ROI_CODEC_WITHOUT_KERNEL="1")

    assert done.returncode == 0, done.stderr
    assert "WARNING: built without the C++ kernels" in done.stderr


def test_pip_version_is_the_one_of_package_xml(pip_site: Path) -> None:
    metadata = next(pip_site.glob(f"{PACKAGE}-*.dist-info/METADATA")).read_text(encoding="utf-8")
    assert f"\nVersion: {package_xml().findtext('version')}\n" in metadata


def test_cmake_builds_every_message() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^\s*(msg/\w+\.msg)$", cmake, re.MULTILINE)
    assert sorted(listed) == sorted(f"msg/{path.name}" for path in (ROOT / "msg").glob("*.msg"))


def package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@cache
def imported_names() -> list[tuple[str, Path]]:
    """(top-level name, file) of every import in the package and the launch files."""
    return list(_imported_names())


def _imported_names() -> Iterator[tuple[str, Path]]:
    for path in [*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name.split(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0], path


def is_ros(name: str) -> bool:
    known = {"ament_index_python", "launch", "launch_ros", "rclpy", "tf2_ros", "cv_bridge"}
    return name in known | OPTIONAL_ROS or name.endswith(("_msgs", "_srvs", "_interfaces"))


def test_package_xml_declares_every_ros_package_that_is_imported() -> None:
    tags = ("depend", "exec_depend")
    declared = {element.text for tag in tags for element in package_xml().iter(tag)}
    missing = {
        f"{name} ({path.relative_to(ROOT)})"
        for name, path in imported_names()
        if is_ros(name) and name not in declared | OPTIONAL_ROS
    }
    assert not missing


def requirements(*extras: str) -> dict[str, str]:
    """Distribution name → requirement, as scripts/requirements.py gives them to pip."""
    command = [sys.executable, str(ROOT / "scripts" / "requirements.py"), *extras]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return {normalized(line): line for line in lines}


def normalized(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_pyproject_declares_every_package_that_is_imported() -> None:
    declared = (
        requirements("train", "detect", "server", "openvino", "recordings", "dev").keys()
        | UNDECLARED
    )
    missing = {
        f"{name} ({path.relative_to(ROOT)})"
        for name, path in imported_names()
        if name not in sys.stdlib_module_names
        and name != PACKAGE
        and not is_ros(name)
        and DISTRIBUTIONS.get(name, name) not in declared
    }
    assert not missing


def test_a_camera_that_only_encodes_needs_no_torch() -> None:
    assert "onnxruntime" in requirements()
    assert not {"torch", "compressai", "onnx", "ultralytics"} & requirements().keys()


def test_a_server_needs_neither_torch_nor_ultralytics() -> None:
    assert not {"torch", "ultralytics"} & requirements("server").keys()


def test_an_environment_holds_one_opencv() -> None:
    headless, desktop = "opencv-python-headless", "opencv-python"
    small, large = ("edge", "server", "openvino", "recordings"), ("detect", "train", "audit")

    assert not {headless, desktop} & requirements("openvino", "recordings").keys()
    assert {headless, desktop} & requirements(*small).keys() == {headless}
    assert {headless, desktop} & requirements(*large, "recordings").keys() == {desktop}


def test_ultralytics_is_optional() -> None:
    assert "ultralytics" not in requirements()
    assert "ultralytics" in requirements("detect")


def test_constraints_pin_everything_that_is_installed() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {normalized(line) for line in lines if line and not line.startswith("#")}
    ros = (ROOT / "scripts" / "ros-jazzy.txt").read_text(encoding="utf-8").splitlines()
    wanted = {normalized(line) for line in ros if line and not line.startswith("#")}
    wanted |= (
        requirements("train", "detect", "server", "openvino", "recordings", "dev").keys()
        | UNDECLARED
    )

    assert wanted <= pins


def test_no_registry_is_named() -> None:
    files = ["constraints.txt", "pyproject.toml", "setup.py", ".pre-commit-config.yaml"]
    paths = [*(ROOT / name for name in files), *(ROOT / "scripts").glob("*")]
    for path in [path for path in paths if path.is_file()]:
        found = re.findall(r"\w+://\S+|--(?:extra-)?index-url", path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found}"


@pytest.mark.parametrize(
    "script", ["scripts/bootstrap", "scripts/demo", "scripts/test", ".ci/run"]
)
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_a_node_without_ros_says_so_in_one_line(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if "PATH" not in k or k == "PATH"}
    environment["PYTHONPATH"] = str(tmp_path)
    # The folder hides an installed rclpy, as if there were none.
    (tmp_path / "rclpy.py").write_text("raise ImportError('hidden')\n")
    done = subprocess.run(
        [sys.executable, "-m", "roi_codec_ros.nodes.encoder_node"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "encoder_node: expected ROS 2 with this package in a workspace, found no rclpy (hidden); "
        "source ROS 2 and the workspace's install/setup.bash"
    ]
