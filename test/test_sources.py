# SPDX-License-Identifier: Apache-2.0
"""Sources: what a text names, what is read, at which pace, and what a failure does."""

from __future__ import annotations

import functools
import http.server
import itertools
import shutil
import threading
import time

import cv2
import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.stream.capture import Capture, RateLimiter
from roi_codec_ros.stream.capture_times import CaptureTime
from roi_codec_ros.stream.frame_readers import Frame, open_source
from roi_codec_ros.stream.sources import LIVE, Source, SourceError, SourceKind, parse_source

PATIENCE_S = 30.0


@pytest.fixture
def folder(tmp_path):
    """Three flat images whose red is 10, 20, 30, and a file that is none."""
    for index, red in enumerate((10, 20, 30)):
        bgr = np.zeros((4, 6, 3), np.uint8)
        bgr[..., 2] = red
        cv2.imwrite(str(tmp_path / f"{index}.png"), bgr)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 50.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG")
    for level in range(0, 200, 20):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


class Frames:
    """Collects what a capture delivers."""

    def __init__(self):
        self.frames: list[Frame] = []
        self.changed = threading.Condition()

    def __call__(self, frame):
        with self.changed:
            self.frames.append(frame)
            self.changed.notify_all()

    def wait(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.frames) >= count, PATIENCE_S)
            return self.frames[:count]


def play(capture, frames, count):
    capture.start()
    try:
        return frames.wait(count)
    finally:
        assert capture.stop(PATIENCE_S)


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# What a text names


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("0", SourceKind.DEVICE, "/dev/video0"),
        ("/dev/video3", SourceKind.DEVICE, "/dev/video3"),
        ("rtsp://camera/1", SourceKind.STREAM, "rtsp://camera/1"),
        ("videotestsrc ! appsink", SourceKind.STREAM, "videotestsrc ! appsink"),
        ("topic:/front/image_raw", SourceKind.TOPIC, "/front/image_raw"),
        ("topic:image", SourceKind.TOPIC, "image"),
        ("topic", SourceKind.TOPIC, "image_raw"),
    ],
)
def test_a_source_is_told_by_its_text(text, kind, target):
    source = parse_source(text)

    assert (source.kind, source.target) == (kind, target)
    assert source.live


def test_files_and_folders_are_told_by_what_is_there(folder, video):
    assert parse_source(str(folder)).kind is SourceKind.IMAGES
    assert parse_source(str(folder / "0.png")).kind is SourceKind.IMAGES
    assert parse_source(str(video)).kind is SourceKind.VIDEO
    assert not parse_source(str(video)).live


def test_addresses_of_files_are_files(tmp_path, folder, video, monkeypatch):
    spaced = tmp_path / "a film.avi"
    shutil.copy(video, spaced)
    (tmp_path / "share" / "site").mkdir(parents=True)
    shutil.copy(video, tmp_path / "share" / "site" / "film.avi")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))

    assert parse_source(folder.as_uri()) == Source(folder.as_uri(), SourceKind.IMAGES, str(folder))
    for text, target in (
        (video.as_uri(), video),
        (f"file://localhost{video}", video),
        (video.as_uri().replace("file:", "FILE:"), video),
        (spaced.as_uri(), spaced),  # a%20film.avi
        ("package://site/film.avi", tmp_path / "share" / "site" / "film.avi"),
    ):
        assert parse_source(text) == Source(text, SourceKind.VIDEO, str(target))
    assert parse_source("file:///dev/video3").kind is SourceKind.DEVICE


@pytest.mark.parametrize("text", ["file://elsewhere/film.mp4", "package://no_such/film.mp4"])
def test_an_address_that_names_no_file_here_is_refused(text):
    with pytest.raises(RoiCodecError, match="expected a"):
        parse_source(text)


@pytest.mark.parametrize("text", ["", "nothing.mp4", "/no/such/file.png", "file:///no/film.mp4"])
def test_a_file_that_is_not_there_is_refused(text):
    with pytest.raises(SourceError, match="expected a device, a file"):
        parse_source(text)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(SourceError, match="expected images in folder"):
        parse_source(str(tmp_path))


# What is read


def test_a_folder_gives_its_images_in_order_as_rgb(folder):
    frames = Frames()
    capture = Capture(parse_source(str(folder)), frames, rate_hz=200.0)

    played = play(capture, frames, 4)

    assert [frame.position for frame in played] == [0, 1, 2, 0]
    assert [frame.image[0, 0].tolist() for frame in played[:3]] == [
        [10, 0, 0],
        [20, 0, 0],
        [30, 0, 0],
    ]


def test_a_video_plays_in_real_time_thinned_to_the_rate(video):
    frames = Frames()
    capture = Capture(parse_source(str(video)), frames, rate_hz=25.0)

    started = time.monotonic()
    played = play(capture, frames, 6)

    # 50 frames/s thinned to 25: every other one, and the sixth is due 0.2 s after the first.
    assert [frame.position for frame in played] == [0, 2, 4, 6, 8, 0]
    assert time.monotonic() - started >= 0.19
    assert played[2].image.shape == (48, 64, 3)


def test_without_loop_a_folder_ends_once(folder):
    frames = Frames()
    capture = Capture(parse_source(str(folder)), frames, rate_hz=500.0, loop=False)
    capture.start()

    wait_for(lambda: capture.state.state == "ended")

    assert [frame.position for frame in frames.frames] == [0, 1, 2]
    assert capture.stop(PATIENCE_S)


def test_loop_that_is_set_after_the_end_starts_again(folder):
    frames = Frames()
    capture = Capture(parse_source(str(folder)), frames, rate_hz=500.0, loop=False)
    capture.start()
    wait_for(lambda: capture.state.state == "ended")

    capture.loop = True
    played = frames.wait(7)
    capture.loop = False
    wait_for(lambda: capture.state.state == "ended")

    assert [frame.position for frame in played] == [0, 1, 2, 0, 1, 2, 0]
    assert len(frames.frames) % 3 == 0
    assert capture.stop(PATIENCE_S)


@pytest.fixture
def server(video):
    """A web server that has the video."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=video.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_film_on_a_server_is_a_film(server, video):
    frames = Frames()
    source = parse_source(f"{server}/{video.name}")
    capture = Capture(source, frames, loop=False)
    started = time.monotonic()
    capture.start()

    wait_for(lambda: capture.state.state in ("ended", "lost"))

    # Ten frames at 50 a second, as from a file.
    assert [frame.position for frame in frames.frames] == list(range(10))
    assert time.monotonic() - started >= 0.19
    assert (capture.state.state, capture.state.losses) == ("ended", 0)
    assert capture.stop(PATIENCE_S)


class CutOff:
    """A film of ten frames on a server that is gone after five."""

    frame_rate_hz = 500.0
    film_frames = 10
    position = LIVE
    complaint = ""

    def advance(self):
        if self.position == 5:
            return False
        self.position += 1
        return True

    def taken(self):
        return None

    def image(self):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        pass


def test_a_film_that_a_server_cuts_off_has_not_ended():
    frames = Frames()
    source = parse_source("http://server/film.mp4")
    capture = Capture(source, frames, loop=False, open_reader=lambda *_: CutOff())
    capture.start()

    wait_for(lambda: capture.state.state in ("ended", "lost"))

    assert capture.state.state == "lost"
    assert "gave 6 of about 10 frames" in capture.state.detail
    assert capture.stop(PATIENCE_S)


def test_an_unreadable_image_is_counted_and_passed_over(folder):
    (folder / "1.png").write_bytes(b"not a png")
    frames = Frames()
    capture = Capture(parse_source(str(folder)), frames, rate_hz=500.0)

    played = play(capture, frames, 3)

    assert [frame.position for frame in played] == [0, 2, 0]
    assert capture.state.unreadable >= 1
    assert capture.state.last_unreadable == (
        f"expected a photograph at {folder / '1.png'}, found no picture"
    )


def test_a_photograph_that_cannot_be_read_is_named_and_tried_again(tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"")
    capture = Capture(parse_source(str(tmp_path / "torn.jpg")), Frames())
    capture.start()

    wait_for(lambda: capture.state.losses == 1)

    assert capture.state.state == "lost"
    assert "torn.jpg, found an empty file; next try in" in capture.state.detail
    assert capture.stop(PATIENCE_S)


def test_a_file_that_is_no_video_is_reported_and_tried_again(tmp_path):
    (tmp_path / "noise.mp4").write_bytes(bytes(1000))
    capture = Capture(parse_source(str(tmp_path / "noise.mp4")), Frames())
    capture.start()

    wait_for(lambda: capture.state.losses == 1)

    assert capture.state.state == "lost"
    assert "noise.mp4" in capture.state.detail
    assert capture.stop(PATIENCE_S)


# What happens when a camera fails


class FailingCamera:
    """Opens at the second try, gives two frames, is gone, and comes back."""

    frame_rate_hz = 30.0
    film_frames = 0
    position = LIVE
    complaint = ""

    def __init__(self, opened):
        self.left = 2
        self.opened = opened

    @classmethod
    def opener(cls):
        tries = itertools.count(1)

        def open_reader(source, size):
            number = next(tries)
            if number == 1:
                raise SourceError(f"expected frames from {source.text}, found nothing that opens")
            return cls(number)

        return open_reader

    def advance(self):
        self.left -= 1
        return self.left >= 0

    def taken(self):
        return CaptureTime(time.monotonic())

    def image(self):
        return np.full((2, 2, 3), self.opened, np.uint8)

    def close(self):
        pass


def test_a_camera_that_disappears_is_tried_again(monkeypatch):
    monkeypatch.setattr("roi_codec_ros.stream.capture.FIRST_RETRY_S", 0.01)
    frames, reasons = Frames(), []
    source = Source("0", SourceKind.DEVICE, "0")
    opener = FailingCamera.opener()
    capture = Capture(source, frames, open_reader=opener, lost=reasons.append)

    played = play(capture, frames, 4)

    assert [int(frame.image[0, 0, 0]) for frame in played] == [2, 2, 3, 3]
    assert capture.state.losses >= 2
    assert reasons[:2] == [
        "expected frames from 0, found nothing that opens",
        "0 gives no more frames",
    ]


def test_waits_double_up_to_the_longest(monkeypatch):
    monkeypatch.setattr("roi_codec_ros.stream.capture.FIRST_RETRY_S", 0.001)
    monkeypatch.setattr("roi_codec_ros.stream.capture.LAST_RETRY_S", 0.004)
    details = []

    def never(source, size):
        details.append(capture.state.detail)
        raise SourceError("gone")

    reasons = []
    source = Source("0", SourceKind.DEVICE, "0")
    capture = Capture(source, Frames(), open_reader=never, lost=reasons.append)
    capture.start()
    wait_for(lambda: len(details) >= 6)
    assert capture.stop(PATIENCE_S)
    assert reasons == ["gone"]  # told once

    waits = [detail.rsplit(" ", 2)[1] for detail in details[1:6]]
    assert waits == ["0.001", "0.002", "0.004", "0.004", "0.004"]


def test_a_driver_that_hangs_does_not_keep_stop_waiting():
    released = threading.Event()

    def hang(source, size):
        released.wait(PATIENCE_S)
        raise SourceError("gone")

    capture = Capture(Source("0", SourceKind.DEVICE, "0"), Frames(), open_reader=hang)
    capture.start()

    assert not capture.stop(0.01)
    released.set()
    assert capture.stop(PATIENCE_S)


def test_a_missing_device_does_not_open():
    with pytest.raises(SourceError, match="expected a camera at /dev/video97, found: No such f"):
        open_source(parse_source("97"))


def test_a_device_that_is_no_camera_does_not_open(capfd):
    with pytest.raises(SourceError, match="camera at /dev/zero, found: it gives no frames"):
        open_source(parse_source("/dev/zero"))

    assert capfd.readouterr().err == ""  # nothing of OpenCV's beside our line


# Rate limit


def test_rate_limit_halves_a_camera_with_jitter():
    times = [i / 30 + (0.002 if i % 3 else -0.002) for i in range(300)]
    limiter = RateLimiter()

    passed = sum(limiter.allows(time_s, 15.0) for time_s in times)

    assert passed == pytest.approx(150, abs=2)


def test_rate_limit_that_does_not_divide_the_rate_holds_on_average():
    limiter = RateLimiter()

    passed = sum(limiter.allows(i / 30, 20.0) for i in range(300))

    assert passed == pytest.approx(200, abs=3)


def test_no_rate_limit_lets_everything_pass():
    limiter = RateLimiter()

    assert all(limiter.allows(0.0, 0.0) for _ in range(10))


def test_after_a_pause_frames_do_not_come_in_a_burst():
    limiter = RateLimiter()
    limiter.allows(0.0, 10.0)

    assert [limiter.allows(t, 10.0) for t in (5.0, 5.01, 5.02, 5.1)] == [True, False, False, True]


def test_a_login_in_an_address_is_for_the_camera_only():
    """The text goes to logs and /diagnostics; the target opens the stream."""
    address = "rtsp://admin:s3cret@10.0.0.7:554/live@1"

    source = parse_source(address)

    assert source.text == "rtsp://…@10.0.0.7:554/live@1"
    assert source.target == address
    pipeline = parse_source(f"rtspsrc location={address} ! decodebin ! appsink")
    assert "s3cret" not in pipeline.text
    assert "s3cret" in pipeline.target
