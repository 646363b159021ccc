# SPDX-License-Identifier: Apache-2.0
"""A bond to Nav2's lifecycle manager, if bondpy is installed, so that it detects a dead node.

The manager (`bond_timeout` above 0) waits for a bond from each node that it activates, on topic
`bond` of its own namespace and under the node's name. Without bondpy it needs `bond_timeout: 0.0`.
"""

from __future__ import annotations

import importlib.util
from typing import Any

TOPIC = "bond"
HEARTBEAT_S = 0.1  # as in Nav2's own nodes
TIMEOUT_S = 4.0
# Whether bonds break without heartbeats; bondpy declares it on first use, and only once.
_NO_TIMEOUT = "/bond_disable_heartbeat_timeout"


def bond_installed() -> bool:
    """Whether bondpy can be imported."""
    return importlib.util.find_spec("bondpy") is not None


class Bond:
    """Held from construction until `end`, which signals a regular stop."""

    def __init__(self, node: Any) -> None:
        """Needs bondpy. Without a manager the bond has no effect."""
        from bondpy.bondpy import Bond as BondOfRos

        if node.has_parameter(_NO_TIMEOUT):
            node.undeclare_parameter(_NO_TIMEOUT)
        self._node = node
        self._bond = BondOfRos(node, TOPIC, node.get_name())
        self._bond.heartbeat_period = HEARTBEAT_S
        self._bond.heartbeat_timeout = TIMEOUT_S
        self._bond.start()

    def end(self) -> None:
        """Break the bond."""
        self._bond.shutdown()
        self._node.destroy_subscription(self._bond.sub)
        self._node.destroy_publisher(self._bond.pub)
