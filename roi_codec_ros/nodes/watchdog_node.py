# SPDX-License-Identifier: Apache-2.0
"""The executable watchdog_node; the node itself is in watchdog.py."""

from __future__ import annotations

from collections.abc import Sequence

from roi_codec_ros.nodes.process import run


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; `args` as in process.run."""
    return run("roi_codec_ros.nodes.watchdog", "WatchdogNode", args)


if __name__ == "__main__":
    raise SystemExit(main())
