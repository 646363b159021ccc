# SPDX-License-Identifier: Apache-2.0
"""Accuracy of this machine's clock: by the kernel's estimate, and against a time server."""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import struct
import time
from dataclasses import dataclass

from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of

NTP_PORT = 123
TRIES, TIMEOUT_S = 4, 1.0
_NTP_EPOCH_S = 2208988800  # 1900 to 1970
_CLIENT = bytes([0x23]) + bytes(47)  # version 4, mode client
_UNSYNCHRONISED = 0x40  # STA_UNSYNC
_TIME_ERROR = 5
_STRATUM_OF_NO_CLOCK = 16


class _Timex(ctypes.Structure):
    """The beginning of the kernel's struct timex, with room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror_us", ctypes.c_long),
        ("esterror_us", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


@dataclass(frozen=True)
class Offset:
    """offset_s: how much the server's clock is ahead. delay_s: of the exchange, to and fro."""

    offset_s: float
    delay_s: float


def kernel_error_s() -> float | None:
    """The largest error that the kernel expects of its clock; None if it is not synchronised.

    What chrony, ntpd and systemd-timesyncd tell the kernel, whichever of them runs. Raises OSError
    where the kernel does not say.
    """
    libc = ctypes.CDLL(ctypes.util.find_library("c") or None, use_errno=True)
    told = _Timex()
    state = libc.adjtimex(ctypes.byref(told))
    if state < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    if state == _TIME_ERROR or told.status & _UNSYNCHRONISED:
        return None
    return float(told.maxerror_us) / 1e6


def clock_offset(server: str) -> Offset:
    """Ask an NTP server (RFC 5905, as a simple client) several times; the fastest answer counts.

    server: HOST or HOST:PORT. Raises UsageError for another form, RoiCodecError without a valid
        answer.
    """
    host, _, port = server.partition(":")
    if not host or not (port or "0").isdecimal():
        raise UsageError(f"expected HOST or HOST:PORT, found {server!r}")
    answers = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(TIMEOUT_S)
            link.connect((host, int(port or NTP_PORT)))
            for _ in range(TRIES):
                if (answer := _exchange(link)) is not None:
                    answers.append(answer)
    except (OSError, OverflowError) as error:
        if not answers:
            raise RoiCodecError(
                f"expected an NTP server that answers, found none ({reason_of(error)}): on the "
                "server install chrony and give it `allow`"
            ) from error
    if not answers:
        raise RoiCodecError("expected an NTP server that has the time, found one that has not")
    return min(answers, key=lambda answer: answer.delay_s)


def _exchange(link: socket.socket) -> Offset | None:
    """One question and its answer; None for an answer without a time. Raises OSError."""
    sent_s = time.time()
    # The server gives back our transmit time as its originate time: that tells the answer apart.
    stamp = struct.pack("!II", int(sent_s) + _NTP_EPOCH_S, int(sent_s % 1 * 2**32))
    link.send(_CLIENT[:40] + stamp)
    while True:
        answer = link.recv(512)
        came_s = time.time()
        if len(answer) >= 48 and answer[24:32] == stamp:
            break
    if not 0 < answer[1] < _STRATUM_OF_NO_CLOCK:
        return None
    received_s, answered_s = (
        seconds - _NTP_EPOCH_S + fraction / 2**32
        for seconds, fraction in struct.iter_unpack("!II", answer[32:48])
    )
    return Offset(
        ((received_s - sent_s) + (answered_s - came_s)) / 2,
        (came_s - sent_s) - (answered_s - received_s),
    )
