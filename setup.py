# SPDX-License-Identifier: Apache-2.0
"""The Python package without ROS: `pip install .`. CMakeLists.txt installs the same for ROS."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
NAME = "roi_codec_ros"
WITHOUT_KERNEL_VARIABLE = "ROI_CODEC_WITHOUT_KERNEL"
WITHOUT_KERNEL = os.environ.get(WITHOUT_KERNEL_VARIABLE, "") not in ("", "0")
SLOW = "frames are then coded by the NumPy implementation, some 100 times slower"


def version() -> str:
    """The version that package.xml declares."""
    return ElementTree.parse(ROOT / "package.xml").getroot().findtext("version", "")


def executables() -> list[str]:
    """Lines `NAME = MODULE:FUNCTION` of resource/executables.txt."""
    lines = (ROOT / "resource" / "executables.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


SHARED_FOLDERS = (
    "config", "config/security", "config/training", "launch", "models", "msg", "urdf",
)  # fmt: skip


def shared_files() -> list[tuple[str, list[str]]]:
    """Launch files, configuration and models under share/, where colcon puts them too."""
    return [
        (
            f"share/{NAME}/{folder}",
            sorted(str(p.relative_to(ROOT)) for p in (ROOT / folder).glob("*") if p.is_file()),
        )
        for folder in SHARED_FOLDERS
    ]


def kernel(name: str) -> Extension:
    """A C++ kernel, src/NAME.cpp; where it is not wanted NumPy takes its place."""
    module, sources = f"{NAME}.codec._{name}", [f"src/{name}.cpp"]
    try:
        from pybind11.setup_helpers import Pybind11Extension
    except ImportError:
        return Extension(module, sources, optional=True)
    return Pybind11Extension(
        module,
        sources,
        cxx_std=17,
        extra_compile_args=["-O3", "-ffp-contract=off"],  # the same numbers everywhere
        optional=True,
    )


class BuildKernels(build_ext):
    """build_ext that goes without the kernels only where it was told to.

    pip shows what a build says only where it fails, so that a warning would not be read.
    """

    def run(self) -> None:
        if WITHOUT_KERNEL:
            sys.stderr.write(f"WARNING: built without the C++ kernels: {SLOW}\n")
            return
        super().run()
        names = [extension.name for extension in self.extensions]
        missing = [name for name in names if not Path(self.get_ext_fullpath(name)).exists()]
        if missing:
            raise SystemExit(
                f"error: expected to build {', '.join(missing)}, found no C++17 compiler or no "
                "Python.h that works (see above): install g++ and python3-dev; or set "
                f"{WITHOUT_KERNEL_VARIABLE}=1 to go without, though {SLOW}"
            )


setup(
    version=version(),
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_dir={"": "."},
    include_package_data=True,
    package_data={NAME: ["lab/*/*.j2", "recordings/*.j2"]},
    ext_modules=[kernel("rans"), kernel("transform")],
    cmdclass={"build_ext": BuildKernels},
    entry_points={"console_scripts": executables()},
    data_files=shared_files(),
    zip_safe=False,
)
