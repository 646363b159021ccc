# SPDX-License-Identifier: Apache-2.0
"""When frames of devices and streams were taken, and what devices are asked for."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from roi_codec_ros.stream import live
from roi_codec_ros.stream.capture_times import (
    ARRIVAL,
    DRIVER,
    STREAM,
    CaptureTime,
    StreamTimes,
    driver_time,
)
from roi_codec_ros.stream.frame_readers import open_source
from roi_codec_ros.stream.sources import CaptureFormat, parse_source

STEADY_S, WALL_S = 5000.0, 1.8e9


@pytest.mark.parametrize("clock_s", [STEADY_S, WALL_S])
def test_a_buffer_tells_its_time_by_either_clock(clock_s):
    taken = driver_time(clock_s - 0.04, STEADY_S, WALL_S)

    assert taken.source == DRIVER
    assert taken.taken_s == pytest.approx(STEADY_S - 0.04, abs=1e-5)


@pytest.mark.parametrize("told_s", [0.0, STEADY_S + 0.1, STEADY_S - 10.0, WALL_S + 5.0])
def test_a_time_that_no_clock_can_have_meant_is_not_believed(told_s):
    assert driver_time(told_s, STEADY_S, WALL_S) == CaptureTime(STEADY_S, ARRIVAL)


def arrivals(rate_hz: float, told_rate_hz: float, late_s, seconds: float):
    """Frames of a stream that began at 40 s: when taken, what they tell, when they arrive."""
    for index in range(1, int(seconds * rate_hz)):
        taken_s = 40.0 + index / rate_hz
        yield taken_s, index / told_rate_hz, taken_s + late_s(index)


def test_what_the_way_of_a_frame_varies_by_is_taken_off():
    random = np.random.default_rng(0)
    times = StreamTimes()
    errors = []
    for taken_s, told_s, arrived_s in arrivals(
        20.0, 20.0, lambda _: 0.08 + random.exponential(0.03), 30.0
    ):
        found = times.at(told_s, arrived_s)
        assert found.taken_s <= arrived_s
        errors.append(found.taken_s - taken_s - 0.08)
        assert found.source == STREAM

    assert np.abs(errors[40:]).max() < 0.02  # of up to 0.2 s by arrival


def test_times_ascend_and_a_stall_is_timed_by_arrival():
    times = StreamTimes()
    before_s = 0.0
    for _, told_s, arrived_s in arrivals(10.0, 10.0, lambda i: 1.0 if i == 50 else 0.1, 10.0):
        found = times.at(told_s, arrived_s)
        assert found.source == (ARRIVAL if told_s == 5.0 else STREAM)
        if told_s != 5.1:  # it arrives before the one that stalled
            assert found.taken_s > before_s
        before_s = found.taken_s


def test_a_stream_that_counts_frames_for_time_is_timed_by_arrival():
    times = StreamTimes()
    sources = [
        times.at(told_s, arrived_s).source
        for _, told_s, arrived_s in arrivals(15.0, 25.0 * 1.5, lambda _: 0.05, 20.0)
    ]

    assert set(sources[-100:]) == {ARRIVAL}


def test_a_stream_that_begins_anew_is_followed():
    times = StreamTimes()
    for offset_s in (0.0, 100.0):
        for _, told_s, arrived_s in arrivals(10.0, 10.0, lambda _: 0.1, 2.0):
            found = times.at(told_s, offset_s + arrived_s)
            assert found.taken_s == pytest.approx(offset_s + arrived_s, abs=0.01)
    assert found.source == STREAM


class Device:
    """Stands in for OpenCV's capture of a device or a stream."""

    def __init__(self, backend, told_s=0.0, gives=None):
        self.backend, self.told_s = backend, told_s
        self.values = dict(gives or {})
        self.fixed = set(self.values)
        self.asked = []

    def isOpened(self):
        return True

    def getBackendName(self):
        return self.backend

    def set(self, number, value):
        self.asked.append(number)
        if number not in self.fixed:
            self.values[number] = value
        return True

    def get(self, number):
        return 1e3 * self.told_s if number == cv2.CAP_PROP_POS_MSEC else self.values.get(number, 0)

    def grab(self):
        return True

    def retrieve(self):
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self):
        pass


def opened(monkeypatch, source, device, asked=None):
    monkeypatch.setattr(live.cv2, "VideoCapture", lambda *_: device)
    monkeypatch.setattr(live, "check_pipeline", lambda _: None)
    reader = open_source(parse_source(source), asked or CaptureFormat())
    assert reader.advance()
    return reader


def test_a_devices_frames_are_of_the_time_of_their_buffers(monkeypatch):
    told_s = time.monotonic() - 0.1

    taken = opened(monkeypatch, "0", Device("V4L2", told_s)).taken()

    assert taken.source == DRIVER
    assert taken.taken_s == pytest.approx(told_s, abs=1e-4)


@pytest.mark.parametrize(
    ("source", "backend", "told_by"),
    [
        ("rtsp://camera/1", "FFMPEG", STREAM),
        ("http://camera/mjpeg", "FFMPEG", ARRIVAL),  # its times are counted, not measured
        ("v4l2src ! appsink", "GSTREAMER", ARRIVAL),
    ],
)
def test_streams_tell_times_where_they_have_them(monkeypatch, source, backend, told_by):
    device = Device(backend, told_s=3.0)

    assert opened(monkeypatch, source, device).taken().source == told_by


def test_a_device_is_asked_for_its_pixels_first_and_what_it_does_not_give_is_named(monkeypatch):
    device = Device("V4L2", gives={cv2.CAP_PROP_FPS: 15.0})
    asked = CaptureFormat(1280, 720, 30.0, "MJPG")

    reader = opened(monkeypatch, "/dev/video0", device, asked)

    assert device.asked[1] == cv2.CAP_PROP_FOURCC
    assert device.values[cv2.CAP_PROP_FRAME_WIDTH] == 1280
    assert reader.complaint == "expected capture_fps 30, found 15"


def test_a_device_without_that_pixel_format_is_named(monkeypatch):
    found = cv2.VideoWriter.fourcc(*"YUYV")
    device = Device("V4L2", gives={cv2.CAP_PROP_FOURCC: found})

    reader = opened(monkeypatch, "0", device, CaptureFormat(pixel_format="MJPG"))

    assert reader.complaint == "expected pixel_format MJPG, found 'YUYV'"
