# SPDX-License-Identifier: Apache-2.0
"""A full disk: one line, status 1, and no file that looks like one and is not.

The pictures are written against a limit on the size of files, which needs no rights; the whole
demo, with its processes, into a small file system that gets full, where mounting is allowed.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_demo_report import record, store_with

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.demo.outputs import Run, write_contact_sheet, write_side_by_side
from roi_codec_ros.lab.simulation.photograph_cameras import render_film

SIZE = (48, 64)
FILM = [np.random.default_rng(n).integers(0, 255, (*SIZE, 3), np.uint8) for n in range(30)]


@contextlib.contextmanager
def no_file_larger_than(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def a_run() -> Run:
    raw = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    return Run(
        "fast",
        2.0,
        [record().summary(100, 102)],
        {"camera": store_with(20).moments()},
        {"camera": lambda position: raw},
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("film.avi", lambda path: render_film(path, iter(FILM), frame_size=SIZE)),
        ("side_by_side.mp4", partial(write_side_by_side, a_run())),
        ("contact_sheet.png", partial(write_contact_sheet, a_run())),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_picture_or_a_film_is_whole_or_not_there(
    tmp_path: Path, name: str, write: Callable[[Path], object], share: float
):
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    path.write_bytes(b"an older one")

    with (
        no_file_larger_than(int(share * len(whole))),
        pytest.raises(RoiCodecError, match=name) as refused,
    ):
        write(path)

    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == [path], "something half-written was left behind"
    assert path.read_bytes() == b"an older one"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.graph
def test_the_demo_on_a_full_disk_ends_with_one_line_and_nothing_half_written(
    small_disk: Path, tmp_path: Path
):
    demo = pytest.importorskip("test_demo")
    if not demo.DETECTOR.is_file():
        pytest.skip(f"no weights at {demo.DETECTOR}")
    picture = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 255, (360, 480, 3), np.uint8)
    pixels[:, :240] //= 4  # noise of one brightness looks like a covered lens
    cv2.imwrite(str(picture), pixels)
    arguments = ["--source", str(picture), "--rate", "4", "--detector", str(demo.DETECTOR)]

    process = demo.start(small_disk, "--seconds", "1", *arguments)
    try:
        demo.read_until(process, "starting ")
        children = demo.children_of(process.pid)
        with contextlib.suppress(OSError), (small_disk / "others").open("wb", 0) as others:
            while others.write(bytes(4096)):
                pass
        said, _ = process.communicate(timeout=3 * demo.PATIENCE_S)
    finally:
        process.kill()

    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1] == (
        f"roi-codec demo: cannot write {small_disk}/report.json: No space left on device"
    )
    assert len(children) == 3 and demo.alive(children) == set()
    assert {path.name for path in small_disk.iterdir()} == {".roi-codec.json", "log", "others"}
