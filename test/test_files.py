# SPDX-License-Identifier: Apache-2.0
"""What commands write: whole or not at all, never over what is somebody else's."""

from __future__ import annotations

import ast
import errno
import json
import multiprocessing
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of
from roi_codec_ros.common.files import (
    GENERATOR,
    is_ours,
    json_bytes,
    replacement,
    stamped,
    write,
    write_whole,
)
from roi_codec_ros.common.images import picture_bytes
from roi_codec_ros.common.output_files import Output, RunFolder, check_outputs

PACKAGE = Path(__file__).resolve().parents[1] / "roi_codec_ros"
THEIRS = b"the work of years\n"
PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="making devices is for root")
NOBODY = 65534


# -------------------------------------------------------------------------------------- primitives


def test_a_file_keeps_its_mode_and_a_new_one_gets_the_usual(tmp_path: Path) -> None:
    secret, new = tmp_path / "secret", tmp_path / "sub" / "new"
    secret.write_bytes(THEIRS)
    secret.chmod(0o600)
    write_whole(secret, b"a")
    write_whole(new, b"b")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(new.stat().st_mode) == 0o666 & ~umask
    assert (secret.read_bytes(), new.read_bytes()) == (b"a", b"b")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real", tmp_path / "link"
    if there:
        real.write_bytes(THEIRS)
    link.symlink_to(Path("far") / "real")
    write_whole(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "link", "real"]


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    Output(pipe).write(bytes(200_000))
    reader.join()
    assert read == [bytes(200_000)]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@as_root
def test_a_device_is_written_into(tmp_path: Path) -> None:
    nothing, full = tmp_path / "null", tmp_path / "full"
    os.mknod(nothing, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    Output(nothing).write(b"new")
    with replacement(nothing) as partial:
        partial.write_bytes(b"more")
    with pytest.raises(RoiCodecError, match=r"write .*full: No space left"):
        Output(full).write(b"new")
    assert stat.S_ISCHR(nothing.stat().st_mode)
    assert stat.S_ISCHR(full.stat().st_mode)
    assert {path.name for path in tmp_path.iterdir()} == {"null", "full"}


@as_root
def test_a_disk_is_no_file_to_write(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    os.mknod(disk, stat.S_IFBLK | 0o600, os.makedev(7, 250))
    with pytest.raises(RoiCodecError, match=r"disk: it is a disk; --force"):
        Output(disk)


def test_a_descriptor_is_written_into_where_it_stands(tmp_path: Path) -> None:
    """As `> file` makes /dev/stdout one: what was printed before stays, in its place."""
    path = tmp_path / "redirected"
    with path.open("wb", 0) as file:
        file.write(b"before ")
        Output(Path(f"/dev/fd/{file.fileno()}")).write(b"within ")
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
        Output(tmp_path / "link").write(b"linked ")
        file.write(b"after")
    assert path.read_bytes() == b"before within linked after"


def fail_half_way(path: Path) -> None:
    with replacement(path) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "film.mp4"
    if there:
        path.write_bytes(THEIRS)
    with pytest.raises(KeyboardInterrupt):
        fail_half_way(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
        {"film.mp4": THEIRS} if there else {}
    )


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder in which we are not root, who may write anything."""
    with tempfile.TemporaryDirectory() as name:
        me = os.geteuid()
        if me == 0:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(me)


def test_a_file_that_may_not_be_written_is_not_replaced(nobodys_folder: Path) -> None:
    path = nobodys_folder / "protected"
    path.write_bytes(b"")
    path.chmod(0o444)
    with pytest.raises(RoiCodecError, match="Permission denied"):
        Output(path)
    with pytest.raises(RoiCodecError, match="Permission denied"):
        write(path, b"new")
    nobodys_folder.chmod(0o555)
    with pytest.raises(RoiCodecError, match="Permission denied"):
        Output(nobodys_folder / "new")
    nobodys_folder.chmod(0o755)


def test_a_name_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")
    write_whole(path, b"new")
    write_whole(path, b"newer")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"newer"]


def test_many_writers_of_one_file_leave_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "one"
    contents = [bytes([n]) * 50_000 for n in range(8)]
    threads = [
        threading.Thread(target=write_whole, args=(path, c)) for c in contents for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    "content",
    [
        json_bytes({"a": 1}),
        picture_bytes(PIXELS, ".png"),
        picture_bytes(PIXELS, ".jpg"),
        b"ROIC and what follows",
        f"# {GENERATOR} calibrate-ground\nx: 1\n".encode(),
    ],
)
def test_what_we_made_is_made_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out"
    Output(path).write(content)
    assert is_ours(path)
    Output(path).write(b"new")


def test_a_stamp_changes_no_pixel() -> None:
    import cv2

    for suffix in (".png", ".jpg", ".bmp", ".webp"):
        plain = cv2.imencode(suffix, PIXELS[..., ::-1])[1].tobytes()
        for content in (plain, stamped(plain), picture_bytes(PIXELS, suffix)):
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            np.testing.assert_array_equal(
                decoded, cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR)
            )


def test_what_somebody_else_made_stays_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "thesis.md"
    path.write_bytes(THEIRS)
    with pytest.raises(RoiCodecError, match=r"a file that roi-codec did not make; --force"):
        Output(path)
    assert path.read_bytes() == THEIRS
    Output(path, force=True).write(b"new")
    assert path.read_bytes() == b"new"
    # One in which nothing is to lose, as mktemp makes it, is free.
    path.write_bytes(b"")
    Output(path).write(b"newer")


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_an_input_is_not_written_over_under_any_name(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    read, other = tmp_path / "in.roic", tmp_path / "other.roic"
    read.write_bytes(b"ROIC")
    make(read, other)
    for path in (read, other, tmp_path / "." / "in.roic"):
        with pytest.raises(UsageError, match="cannot write over the input"):
            Output(path, force=True, inputs=[read])
    assert read.read_bytes() == b"ROIC"


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    paths = {"json": tmp_path / "a.json", "html": tmp_path / "x" / ".." / "a.json"}
    (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match="a file of its own for every output"):
        check_outputs(paths)
    assert set(check_outputs({"json": paths["json"], "html": None})) == {"json"}


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RoiCodecError, match="it is a folder"):
        Output(tmp_path)
    (tmp_path / "file").write_bytes(THEIRS)
    with pytest.raises(RoiCodecError, match=": Not a directory"):
        Output(tmp_path / "file" / "out.json")


# ----------------------------------------------------------------------------------------- folders


def test_a_folder_is_filled_again_by_whom_it_was_filled(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for _ in range(2):
        with RunFolder(out, "demo", ("report.json", "log")) as folder:
            write(out / "report.json", json_bytes({"a": 1}))
            (out / "log").mkdir(exist_ok=True)
            folder.remember("notes", "12ab")
    assert RunFolder(out, "demo", ()).remembered("notes") == "12ab"
    assert json.loads((out / ".roi-codec.json").read_bytes())["verb"] == "demo"


@pytest.mark.parametrize("name", ["report.json", "log"])
def test_what_lies_in_a_folder_of_somebody_elses_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.json").write_bytes(THEIRS)
    (tmp_path / "log").mkdir()
    (tmp_path / "report.json").write_bytes(THEIRS)
    with pytest.raises(RoiCodecError, match=rf"write .*{name}: it is something"):
        RunFolder(tmp_path, "demo", (name, "absent"))
    with RunFolder(tmp_path, "demo", ("absent",)):
        pass  # nothing of theirs would be touched
    with RunFolder(tmp_path, "demo", (name,), force=True):
        pass


def hold(out: Path, held: multiprocessing.synchronize.Event) -> None:
    with RunFolder(out, "train", ()):
        held.set()
        threading.Event().wait()


def test_a_folder_has_one_run_at_a_time_and_is_free_when_that_was_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=hold, args=(tmp_path, held))
    other.start()
    assert held.wait(600)
    with pytest.raises(RoiCodecError, match="no other run in"), RunFolder(tmp_path, "train", ()):
        pass
    half_written = tmp_path / ".0123456789ab.partial.pt"
    half_written.write_bytes(b"half")
    mine = tmp_path / ".mine.partial.pt"
    mine.write_bytes(THEIRS)
    other.kill()
    other.join()
    with RunFolder(tmp_path, "train", ()):
        assert not half_written.exists()
        assert mine.exists()


# --------------------------------------------------------------------------------------- one way


WRITERS = {
    "write_bytes", "write_text", "imwrite", "VideoWriter", "savefig", "save_file", "savez",
    "rename", "renames", "rmtree", "copyfile", "copy2", "copytree", "move", "symlink",
    "symlink_to", "hardlink_to", "link", "touch", "unlink", "truncate",
}  # fmt: skip
# Where something is written besides common/files.py, and what.
BESIDES = {
    # Never a file, and only links of ours.
    "lab/datasets/annotations_write.py": {"symlink", "unlink"},
    # Into the file that common/files.py gave, with its stamp.
    "common/videos.py": {"open ab"},
    "lab/demo/outputs.py": {"VideoWriter"},
    "lab/simulation/photograph_cameras.py": {"VideoWriter"},
    "recordings/bag_decoding.py": {"open w"},
    "recordings/film_files.py": {"open w"},
    # Into a folder beside a bag that becomes the bag, or is what an interrupted run goes on from.
    "recordings/bag_writing.py": {"link", "open w", "rmtree", "unlink"},
    "recordings/film_parts.py": {"open w", "open wb"},
    "recordings/parts.py": {"rmtree", "unlink"},
    "recordings/mcap_extras.py": {"open r+b", "truncate"},
    "recordings/mcap_repair.py": {"open wb", "truncate"},
    "recordings/ros1_repair.py": {"open wb"},
    "recordings/sqlite_repair.py": {"copyfile", "unlink"},
    # Into a folder that was made for it and is gone after it.
    "common/onnx_int8.py": {"write_bytes"},
    "perception/person_detector.py": {"symlink_to"},
    # Into bytes.
    "common/plotting.py": {"savefig"},
    # In a folder of a run, which is marked and locked (`RunFolder`).
    "lab/training/codec_run.py": {"unlink"},
    "lab/training/progress.py": {"open a"},
    "lab/demo/processes.py": {"open wb"},
    # Locked, and never but added to.
    "lab/evaluation/cache.py": {"open a+"},
}


def writers_in(file: Path) -> set[str]:
    found = set()
    for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        name = name or (call.func.id if isinstance(call.func, ast.Name) else "")
        if name in WRITERS:
            found.add(name)
        if name in ("open", "fdopen"):
            texts = [*call.args, *(keyword.value for keyword in call.keywords)]
            modes = [t.value for t in texts if isinstance(t, ast.Constant)]
            modes = [m for m in modes if isinstance(m, str) and set(m) <= set("rwaxbt+")]
            found |= {f"open {mode}" for mode in modes if set(mode) & set("wax+")}
    return found


def test_nothing_is_written_past_the_one_way() -> None:
    found = {
        str(file.relative_to(PACKAGE)): writers
        for file in sorted(PACKAGE.rglob("*.py"))
        if (writers := writers_in(file)) and file != PACKAGE / "common" / "files.py"
    }
    assert found == BESIDES


@pytest.mark.parametrize(
    ("error", "most", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "/a/b"), None, "No such file"),
        (OSError("image file\n  is truncated"), None, "image file is truncated"),
        (AssertionError(), None, "AssertionError"),
        (ValueError("x" * 20), 16, f"{'x' * 15}…"),
    ],
)
def test_what_another_library_says_is_one_line_without_the_path(error, most, said):
    assert reason_of(error, most=most) == said
