# SPDX-License-Identifier: Apache-2.0
"""Documents: short where they must be, complete, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from roi_codec_ros.config.launches import LAUNCHES
from roi_codec_ros.config.parameters import NODE_PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md")
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    titles = re.findall(r"^#+ (.*)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", title.replace("`", "")).strip().lower().replace(" ", "-")
        for title in titles
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in LINK.findall(without_code((ROOT / page).read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, fragment = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_code_start_at_the_margin(page):
    """Within a list the site shows them as running text."""
    text = (ROOT / page).read_text(encoding="utf-8")

    assert re.findall(r"^ +```.*", text, re.MULTILINE) == []
    assert len(re.findall(r"^```", text, re.MULTILINE)) % 2 == 0


SOURCE = re.compile(r"`((?:roi_codec_ros|test|config|scripts|src|nodes|codec)/[\w/]+(?:\.\w+|/))`")
IMPORT = re.compile(r"from (roi_codec_ros[\w.]*) import ([\w, ]+)")


@pytest.mark.parametrize("page", PAGES)
def test_files_and_names_that_are_spoken_of_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")

    for path in SOURCE.findall(text):
        assert (ROOT / path).exists() or (ROOT / "roi_codec_ros" / path).exists(), path
    for module, names in IMPORT.findall(text):
        if module == "roi_codec_ros.msg":  # made by the build
            continue
        place = ROOT / module.replace(".", "/")
        source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        words = set(re.findall(r"\w+", source.read_text(encoding="utf-8")))
        assert set(re.findall(r"\w+", names)) <= words, (module, names)


LAUNCHED = re.compile(r"roi_codec_ros (\w+)\.launch\.py(.*)")


def test_launch_files_are_given_arguments_that_they_have():
    """They refuse any other."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.yaml")]
    found = [
        (path.name, kind, name)
        for path in texts
        for kind, rest in LAUNCHED.findall(path.read_text(encoding="utf-8"))
        for name in re.findall(r"(\w+):=", rest)
    ]
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    for service, words in ((n, s.get("command", [])) for n, s in compose["services"].items()):
        if "launch" in words:
            kind = words[words.index("roi_codec_ros") + 1].removesuffix(".launch.py")
            found += [(service, kind, word.split(":=")[0]) for word in words if ":=" in word]

    known = {kind: {a.name for a in made()} for kind, (made, _) in LAUNCHES.items()}
    assert len(found) > 20
    assert [entry for entry in found if entry[2] not in known[entry[1]]] == []


def test_the_readme_is_short_and_says_first_what_matters():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first_screen = text[:2000]

    assert len(text.encode()) < 10_000
    assert "AGPL-3.0" in first_screen
    assert "does not hide" in first_screen


def test_every_document_is_in_the_site_and_in_the_index():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w]+\.md", str(site["nav"])))
    documents = {path.name for path in (ROOT / "docs").glob("*.md")}
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert listed == documents
    for name in documents - {"index.md"}:
        assert f"]({name})" in index
        assert f"](docs/{name})" in readme


def test_every_node_is_described():
    interfaces = (ROOT / "docs" / "interfaces.md").read_text(encoding="utf-8")

    assert {name.removesuffix("_node") for name in NODE_PARAMETERS} <= set(
        re.findall(r"\w+", interfaces)
    )


def test_versions_agree():
    declared = re.search(
        r"<version>(.*)</version>", (ROOT / "package.xml").read_text(encoding="utf-8")
    )
    assert declared is not None
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines()

    assert citation["version"] == declared[1]
    assert declared[1] in changes
