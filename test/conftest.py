# SPDX-License-Identifier: Apache-2.0
"""What several test files start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from graph_harness import Graph


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """An empty graph on a domain of its own."""
    from graph_harness import Graph, unused_domain

    graph = Graph(unused_domain(), tmp_path_factory.mktemp("logs"))
    yield graph
    graph.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long recoveries took: measured here, bounded nowhere, since machines are busy."""
    lines = [
        f"{report.nodeid}: {value}"
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "recovery" and report.when == "call"
    ]
    if lines:
        terminalreporter.section("from the end of a fault to the first good image")
        terminalreporter.write_line("\n".join(lines))
