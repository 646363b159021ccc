# SPDX-License-Identifier: Apache-2.0
"""Parameters are declared once; the reference and the parameter files say the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from roi_codec_ros.codec import backends, bitstream
from roi_codec_ros.common import devices, graph_choice
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.config import parameters
from roi_codec_ros.config.generated import PARAMETER_FILES, REFERENCE, generated
from roi_codec_ros.config.parameter_values import Parameter, yaml_value
from roi_codec_ros.config.parameters import NODE_PARAMETERS, parameters_of

ROOT = Path(__file__).resolve().parents[1]
CONFIG_SECTIONS = {
    "encoder_node": ("camera.yaml", "/**"),
    "decoder_node": ("server.yaml", "/decoder"),
    "detector_node": ("server.yaml", "/detector"),
    "tracker_node": ("server.yaml", "/tracker"),
    "watchdog_node": ("watchdog.yaml", "/person_watchdog"),
}


@pytest.mark.parametrize("executable", NODE_PARAMETERS)
def test_every_parameter_is_described_and_named_once(executable):
    parameters = NODE_PARAMETERS[executable]

    assert len(parameters_of(executable)) == len(parameters)
    for parameter in parameters:
        assert parameter.description.endswith("."), parameter.name
        assert parameter.name.islower(), parameter.name


def test_limits_are_those_of_the_codec():
    assert parameters.BACKENDS == backends.BACKENDS
    assert parameters.SERVER_BACKENDS == graph_choice.SERVER_BACKENDS
    assert parameters.DEFAULT_MAX_PIXELS == bitstream.DEFAULT_MAX_PIXELS
    assert parameters.GPU_BATCH == devices.GPU_BATCH


@pytest.mark.parametrize("executable", NODE_PARAMETERS)
def test_config_file_holds_every_parameter_at_its_default(executable):
    file, section = CONFIG_SECTIONS[executable]
    content = yaml.safe_load((ROOT / "config" / file).read_text(encoding="utf-8"))

    values = content[section]["ros__parameters"]

    assert values == {p.name: p.default for p in NODE_PARAMETERS[executable]}


@pytest.mark.parametrize("path", generated())
def test_generated_files_are_up_to_date(path):
    assert (ROOT / path).read_text(encoding="utf-8") == generated()[path], (
        "run `python -m roi_codec_ros.config.generated`"
    )


def test_every_parameter_has_a_row_in_the_reference_and_a_comment_in_its_file():
    rows = [line for line in generated()[REFERENCE].splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(parameters) for parameters in NODE_PARAMETERS.values())
    assert all(row.count("|") == 7 for row in rows)
    for path, (_, sections) in PARAMETER_FILES.items():
        lines = generated()[path].splitlines()
        assert set(yaml.safe_load("\n".join(lines))) == set(sections.values())
        named = {p.name for executable in sections for p in NODE_PARAMETERS[executable]}
        for above, line in pairwise(lines):
            assert len(line) <= 99
            if line.partition(":")[0].strip() in named:
                assert above.strip().startswith("# "), line


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("string", 0, "0"),
        ("string", "a,b", "a,b"),
        ("integer", "640", 640),
        ("double", 10, 10.0),
        ("double", "1e-3", 0.001),
        ("bool", "False", False),
        ("string_array", "front, back", ["front", "back"]),
        ("string_array", ["front"], ["front"]),
        ("string_array", ("front",), ["front"]),
    ],
)
def test_coerce_takes_what_loses_nothing(kind, given, value):
    default = {"string": "", "integer": 0, "double": 0.0, "bool": True, "string_array": []}[kind]

    coerced = Parameter("p", default, "d", kind).coerce(given)

    assert coerced == value
    assert type(coerced) is type(value)


@pytest.mark.parametrize(
    ("name", "typed"), [("skip", "on"), ("skip", "off"), ("rectified", "yes")]
)
def test_a_choice_that_yaml_reads_as_a_boolean_is_what_was_typed(name, typed):
    """As in `--ros-args -p skip:=off`."""
    parameter = parameters_of("encoder_node")[name]

    assert parameter.coerce(yaml.safe_load(typed)) == typed


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("integer", 1.5),
        ("integer", "1.5"),
        ("integer", True),
        ("integer", None),
        ("double", "fast"),
        ("double", float("nan")),
        ("bool", 1),
        ("bool", "yes"),
        ("string", ["a"]),
        ("string_array", 3),
    ],
)
def test_coerce_refuses_what_does_not_fit_in_one_line(kind, given):
    default = {"string": "", "integer": 0, "double": 0.0, "bool": True, "string_array": []}[kind]
    limits = (0, 10) if kind in ("integer", "double") else None

    with pytest.raises(UsageError, match=r"^parameter p: expected .* found .*$"):
        Parameter("p", default, "d", kind, limits).coerce(given)


@pytest.mark.parametrize("value", [-1, 11])
def test_a_value_out_of_range_is_refused(value):
    with pytest.raises(UsageError, match="expected 0 to 10, found"):
        Parameter("p", 5, "d", "integer", (0, 10)).check(value)


def test_a_value_that_is_no_choice_is_refused():
    with pytest.raises(UsageError, match="expected one of a, b, found 'c'"):
        Parameter("p", "a", "d", "string", choices=("a", "b")).check("c")


def test_a_default_that_breaks_its_own_rule_is_a_mistake_in_the_table():
    with pytest.raises(UsageError):
        Parameter("p", 11, "d", "integer", (0, 10))
    with pytest.raises(ValueError, match="unknown type"):
        Parameter("p", 11, "d", "number")


def test_unknown_executable_is_refused():
    with pytest.raises(UsageError, match="encoder_node"):
        parameters_of("coder_node")


@pytest.mark.parametrize(
    "value", ["", "0", 'a "b" \\ c', "Grüße 📷", "x: y # z", True, 3, 1e-05, 10.0, 1e30, ["a", ""]]
)
def test_yaml_value_reads_back_as_itself(value):
    text = yaml_value(value)

    assert yaml.safe_load(text) == value
    assert text.isascii()
