# SPDX-License-Identifier: Apache-2.0
"""Video that is coded and decoded frame by frame, each at once, as it goes through messages."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from roi_codec_ros.recordings.video_planes import require_av

RATE_HZ = 25  # of the header; frames have times of their own
KEY_FRAME_EVERY = 30  # frames; the longest wait of a late subscriber
QUALITY = 20  # "crf"
# By what a codec is called: the decoder, and the encoder with what makes it give back each frame.
_REALTIME = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "b": "0"}
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    r"264|avc": ("h264", "libx264", {"preset": "veryfast", "tune": "zerolatency"}),
    r"265|hevc": (
        "hevc",
        "libx265",
        {"preset": "superfast", "tune": "zerolatency", "x265-params": "log-level=error"},
    ),
    r"vp8": ("vp8", "libvpx", _REALTIME),
    r"vp9": ("vp9", "libvpx-vp9", _REALTIME),
    r"av1|av01": (
        "libdav1d",
        "libsvtav1",
        {"preset": "10", "svtav1-params": "pred-struct=1:lookahead=0:rc=0"},
    ),
}


def codec_named(name: str) -> str | None:
    """The decoder for a codec or an encoder of that name, as h265 or h264_nvenc; None: unknown."""
    for pattern, (decoder, _, _) in CODECS.items():
        if re.search(pattern, name.partition(";")[0].lower()):
            return decoder
    return None


class LiveDecoder:
    """Frames of packets that come one by one."""

    def __init__(self, codec: str) -> None:
        """codec: as `codec_named` says."""
        self.codec = codec
        self._context = require_av().CodecContext.create(codec, "r")
        self._context.thread_count = 1  # several would keep frames back

    def frames(self, data: bytes | None, number: int = 0) -> list[Any]:
        """Frames of PyAV that are whole now; the pts of each is the number of its packet.

        data: None at the end. Raises PyAV's FFmpegError.
        """
        if data is None:
            return list(self._context.decode(None))
        packet = require_av().Packet(data)
        packet.pts = packet.dts = number
        return list(self._context.decode(packet))


class LiveEncoder:
    """Packets of frames, one for each."""

    def __init__(self, codec: str, frame: Any, quality: int = QUALITY) -> None:
        """codec: as `codec_named` says. frame: one of PyAV, as all will be. quality: "crf"."""
        _, name, options = next(entry for entry in CODECS.values() if entry[0] == codec)
        self.codec, self.shape = codec, (frame.width, frame.height, frame.format.name)
        context = require_av().CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = self.shape
        context.time_base = Fraction(1, RATE_HZ)
        context.framerate = Fraction(RATE_HZ)
        context.gop_size = KEY_FRAME_EVERY
        context.thread_count = 1
        context.options = {**options, "crf": str(quality)}
        self._context, self._count = context, 0

    def packet(self, frame: Any) -> tuple[bytes, bool]:
        """The packet of a frame, and whether it stands alone. Raises PyAV's FFmpegError."""
        frame.pts, frame.time_base, frame.pict_type = self._count, Fraction(1, RATE_HZ), 0
        self._count += 1
        packets = self._context.encode(frame)
        return b"".join(bytes(p) for p in packets), any(p.is_keyframe for p in packets)


def frame_of_pixels(pixels: Any) -> Any:
    """A 4:2:0 frame of PyAV, of uint8 [H, W, 3] RGB; the last of odd rows and columns goes."""
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    whole = pixels[:height, :width].copy()
    frame = require_av().VideoFrame.from_ndarray(whole, format="rgb24")
    return frame.reformat(format="yuv420p")
