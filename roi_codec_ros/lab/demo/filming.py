# SPDX-License-Identifier: Apache-2.0
"""The process in which the demo's hall is filmed; `roi-codec demo` starts it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from roi_codec_ros.lab.simulation.filmed_hall import HallClock


def filming_command(clock: HallClock, cameras: Sequence[str], rate_hz: float) -> list[str]:
    """The argv that starts it."""
    given = {**vars(clock), "cameras": list(cameras), "rate_hz": rate_hz}
    return [sys.executable, "-m", __name__, json.dumps(given)]


def main(text: str) -> None:
    """Film until told to stop. text: what filming_command wrote."""
    from roi_codec_ros.lab.demo.camera_driver import run
    from roi_codec_ros.lab.simulation.filmed_hall import Stage

    given = json.loads(text)
    cameras, rate_hz = given.pop("cameras"), given.pop("rate_hz")
    clock = HallClock(**given)
    stage = Stage(cameras, seed=clock.seed)
    run(cameras, lambda camera, stamp_ns: stage.film(camera, clock.seconds(stamp_ns)), rate_hz)


if __name__ == "__main__":
    main(sys.argv[1])
