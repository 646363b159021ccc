# SPDX-License-Identifier: Apache-2.0
"""Points that a user clicks in an image, and whose places in the map are typed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError

TITLE = "click a point; Enter or Escape when done"
DONE = {10, 13, 27}  # what Enter and Escape give in waitKey
MARK_BGR = (0, 200, 255)


def ask_in_terminal(question: str) -> str:
    """What the user answers; nothing where there is no more input."""
    try:
        return input(question)
    except EOFError:
        return ""


def click_points(
    image: np.ndarray, ask: Callable[[str], str] | None = None
) -> list[tuple[float, float, float, float, float]]:
    """Show uint8 [H, W, 3], RGB, until the user is done; u, v, x, y, z of each point.

    Raises RoiCodecError where there is no display to show it on.
    """
    import cv2

    check_display()
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    clicks: list[tuple[int, int]] = []

    def on_mouse(event: int, u: int, v: int, *_: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            clicks.append((u, v))

    cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
    cv2.setMouseCallback(TITLE, on_mouse)
    points = []
    try:
        while cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1:
            cv2.imshow(TITLE, shown)
            if cv2.waitKey(30) & 0xFF in DONE:
                break
            while clicks:
                u, v = clicks.pop(0)
                place = _ask_place(u, v, ask or ask_in_terminal)
                if place is not None:
                    points.append((float(u), float(v), *place))
                    cv2.drawMarker(shown, (u, v), MARK_BGR, cv2.MARKER_CROSS, 20, 2)
    finally:
        cv2.destroyAllWindows()
    return points


def check_display() -> None:
    """Raises RoiCodecError where OpenCV cannot open a window.

    Tried in a process of its own: without a display, Qt ends the process that asks for a window.
    """
    program = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    if done.returncode:
        raise RoiCodecError(
            "expected a display and an OpenCV that opens windows, found none; read the pixels in "
            "an image viewer and give them with --point U,V,X,Y"
        )


def _ask_place(u: int, v: int, ask: Callable[[str], str]) -> tuple[float, float, float] | None:
    """Ask until the answer is a place; None where it is empty: a click by mistake."""
    while True:
        answer = ask(f"{u}, {v} is at x,y[,z] metres (empty: forget it): ").strip()
        if not answer:
            return None
        try:
            numbers = [float(part) for part in answer.split(",")]
        except ValueError:
            continue
        if len(numbers) in (2, 3) and np.isfinite(numbers).all():
            x, y, z = [*numbers, 0.0][:3]
            return x, y, z
