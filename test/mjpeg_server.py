# SPDX-License-Identifier: Apache-2.0
"""A network camera as a process: `python mjpeg_server.py PORT` serves a stream of JPEGs by HTTP.

It writes `serving` once it does. Pictures are noise; ten come a second.
"""

from __future__ import annotations

import contextlib
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

PERIOD_S = 0.1


class Stream(BaseHTTPRequestHandler):
    """Pictures until nobody wants them any longer."""

    def do_GET(self) -> None:
        picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            while True:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                time.sleep(PERIOD_S)

    def log_message(self, *_: object) -> None:
        """Nothing: the only line is the one that says that it serves."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Stream)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    server.serve_forever()
