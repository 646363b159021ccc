# SPDX-License-Identifier: Apache-2.0
"""All cameras of a site in one file: what it starts where, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config import launches
from roi_codec_ros.config.site import read_site, site_graph

ROOT = Path(__file__).resolve().parents[1]
LENS = """
image_width: 640
image_height: 480
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 320, 0, 500, 240, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [500, 0, 320, 0, 0, 500, 240, 0, 0, 0, 1, 0]}
"""
SITE = """
defaults: {model: fast, parameters: {rate_hz: 10}}
cameras:
  front:
    source: 0
    lens: lens.yaml
    pose: [0, 0, 2.5, 0, 0.4, 1]
    host: jetson
    quality: 2
  back:
    source: rtsp://10.0.0.7/stream
    model: paper-128-2
    pose: pose.yaml
    parameters: {rate_hz: 5, max_width: 0}
  spare: {enabled: false}
server:
  host: server
  parameters: {map_frame: hall, device: cuda}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "lens.yaml").write_text(LENS)
    (tmp_path / "pose.yaml").write_text("{x: 1, y: 2, z: 2.5, roll: 0, pitch: 0.4, yaw: 0}")
    path = tmp_path / "cameras.yaml"
    path.write_text(SITE)
    return path


def names(specs):
    return [spec.full_name for spec in specs]


def test_each_host_starts_what_belongs_there(site: Path) -> None:
    found = read_site(site)

    assert names(site_graph(found, host="jetson")) == ["/front/encoder", "/back/encoder"]
    assert names(site_graph(found, "server", "server")) == ["/server", "/tracker"]
    assert names(site_graph(found, host="server")) == ["/back/encoder", "/server", "/tracker"]
    with pytest.raises(UsageError, match="something to start on host elsewhere, found hosts "):
        site_graph(found, "server", "elsewhere")


def test_the_nodes_get_what_the_file_says(site: Path) -> None:
    front, back = site_graph(read_site(site), "cameras", "jetson")
    server, tracker = site_graph(read_site(site), "server", "server")
    decoder, detector = server.nodes
    folder = site.parent

    assert front.parameters == {
        "rate_hz": 10.0,
        "source": "0",
        "camera_info_file": f"{folder}/lens.yaml",
        "model": "fast",
        "quality": 2.0,
    }
    assert back.parameters == {
        "rate_hz": 5.0,
        "max_width": 0,
        "source": "rtsp://10.0.0.7/stream",
        "model": "paper-128-2",
    }
    assert decoder.parameters == {
        "cameras": ["front", "back"],
        "models": ["fast", "paper-128-2"],
        "device": "cuda",
    }
    assert detector.parameters == {"cameras": ["front", "back"], "device": "cuda"}
    assert tracker.parameters == {
        "cameras": ["front", "back"],
        "camera_poses": [
            "front: 0.0 0.0 2.5 0.0 0.4 1.0",
            f"back: {folder}/pose.yaml",
        ],
        "map_frame": "hall",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cameras: {}", "cameras: expected at least one camera, found none"),
        ("cameras: [front]", "cameras: expected keys and values, found ['front']"),
        ("camera: {a: {}}", "camera: expected keys among cameras, defaults, server, found"),
        ("cameras: {a: {sorce: 0}}", "cameras.a.sorce: expected keys among source, lens,"),
        ("cameras: {a: {parameters: {rate_hs: 3}}}", "cameras.a.parameters.rate_hs: expected"),
        ("cameras: {a: {}, b: {}, a: {}}", "cameras.a: expected it once, found it twice"),
        ("cameras: {a: {quality: high}}", "cameras.a.quality: expected a number, found 'high'"),
        ("cameras: {a: {quality: 99}}", "cameras.a.quality: expected -16 to 16, found 99"),
        ("cameras: {a: {parameters: {fps: 3}}}", "cameras.a.parameters.fps: expected a param"),
        ("cameras: {a: {pose: [1, 2]}}", "cameras.a.pose: expected [x, y, z, roll, pitch, yaw]"),
        ("cameras: {a: {enabled: 1}}", "cameras.a.enabled: expected true or false, found 1"),
        ("cameras: {a: {enabled: false}}", "cameras: expected one that is enabled, found none"),
        ("cameras: {a: {host: 3}}", "cameras.a.host: expected a name, found 3"),
        ("cameras: {yes: {}}", "cameras: expected a name (in quotes?), found True"),
        ("cameras: {1st: {}}", "cameras: expected a camera name of letters"),
        (
            "cameras: {a: {source: 0, parameters: {source: 1}}}",
            "cameras.a: expected source or parameters.source, found both",
        ),
        ("{cameras: {a: }, server: {parameters: {cameras: [b]}}}", "server.parameters.cameras: "),
        ("{cameras: {a: }, server: {parameters: {loop: true}}}", "server.parameters.loop: "),
        ("{cameras: {a: }, server: {name: a b}}", "server.name: "),
        ("{cameras: {a: }, defaults: {pose: [0]}}", "defaults.pose: expected keys among"),
        ("cameras: {a: {", "expected a file of cameras (YAML), found: "),
        ("cameras: !!timestamp today", "expected a file of cameras (YAML), found: "),
        ("", "expected the keys cameras, defaults and server, found None"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_key(
    text: str, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text(text)

    with pytest.raises(UsageError) as caught:
        read_site(path)

    assert f"{path}: {sentence}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cameras: {a: {parameters: {rate_hs: 3}}}", "found none of that name: is rate_hz meant?"),
        (
            "cameras: {a: {source: 0}, b: {source: /dev/video0}}",
            "cameras.b.source: expected a device of its own, found /dev/video0, which a has",
        ),
        (
            "{cameras: {a: }, server: {parameters: {weights: no.pt}}}",
            "server.parameters.weights: expected YOLO weights at no.pt, found no such file",
        ),
        ("cameras: {a: {pose: [0, 0, 2, 0, 25, 180]}}", "cameras.a.pose: expected roll, pitch"),
        ("cameras: {a: {pose: a.yaml}}", "a.yaml, found: No such file or directory"),
        ("cameras: {a: {parameters: {regions: fsat}}}", "cameras.a.parameters.regions: "),
    ],
)
def test_site_check_names_what_its_nodes_would_not_take(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from roi_codec_ros import cli

    path = tmp_path / "cameras.yaml"
    path.write_text(text)

    assert cli.main(["site", "check", str(path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cameras\.yaml: expected a file of cameras .*No such"):
        read_site(tmp_path / "cameras.yaml")


def test_the_example_is_good_and_shows_every_key() -> None:
    path = ROOT / "config" / "cameras.yaml"
    text = path.read_text(encoding="utf-8")

    specs = launches.cameras_launch({"config": str(path)})

    assert names(specs) == ["/front/encoder", "/back/encoder", "/server", "/tracker"]
    for key in ("lens", "host", "enabled", "quality", "parameters", "name", "separate"):
        assert f"{key}:" in text


def test_site_check_reads_what_the_nodes_of_a_host_would(site: Path, tmp_path: Path) -> None:
    from test_cli import roi_codec

    report = tmp_path / "report.json"
    good = roi_codec("site", "check", str(site), "--host", "server", "--json", str(report))
    assert good.returncode == 0, good.stderr
    assert "on server: /back/encoder, /decoder, /detector, /tracker" in good.stdout
    assert [camera["enabled"] for camera in json.loads(report.read_text())["cameras"]] == [
        True,
        True,
        False,
    ]

    (tmp_path / "lens.yaml").write_text("image_width: 0")
    elsewhere = roi_codec("site", "check", str(site), "--host", "server", "--start", "server")
    there = roi_codec("site", "check", str(site), "--host", "jetson")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert there.returncode == 2
    assert f"{site}: cameras.front.lens: expected" in there.stderr
    assert len(there.stderr.strip().splitlines()) == 1
