# SPDX-License-Identifier: Apache-2.0
"""What several test files start from."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from graph_harness import Graph


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """An empty graph on a domain of its own."""
    from graph_harness import Graph

    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_LOCALHOST_ONLY"] = "1" if os.environ.get("ROS_DISTRO") == "humble" else "0"
    graph = Graph(random.SystemRandom().randrange(1, 100), tmp_path_factory.mktemp("logs"))
    yield graph
    graph.close()
