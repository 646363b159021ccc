# SPDX-License-Identifier: Apache-2.0
"""Print the requirements that pyproject.toml declares, with the extras named on the command line.

`pip install .[train]` would build the package as well; scripts/bootstrap wants them apart, so that
a change of the package does not go through gigabytes of requirements again.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

from pip._vendor.packaging.requirements import Requirement


def requirements(extras: list[str]) -> list[str]:
    """Requirements of the package and of `extras` that apply to this Python, without spaces."""
    path = Path(__file__).resolve().parent.parent / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    chosen = []
    for line in dict.fromkeys(lines):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            requirement.marker = None
            chosen.append(str(requirement).replace(" ", ""))
    return chosen


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
