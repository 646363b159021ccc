# SPDX-License-Identifier: Apache-2.0
"""The executable server_node; its two nodes are put together in server.py."""

from __future__ import annotations

from collections.abc import Sequence

from roi_codec_ros.nodes.process import run


def main(args: Sequence[str] | None = None) -> int:
    """Run the nodes until SIGINT or SIGTERM; `args` as in process.run."""
    return run("roi_codec_ros.nodes.server", "server_nodes", args, publishes_images=True)


if __name__ == "__main__":
    raise SystemExit(main())
