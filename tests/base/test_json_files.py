"""Files of settings are read within bounds: whatever they hold, the answer is a value or one error."""

import json

import pytest

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import MAX_DEPTH, parse_json, parse_toml, read_object


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ' + "1" * 5000 + "}",
        '{"a": 1' + "0" * 50 + "}",
        '{"a": 1e999}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        "[" * 100_000,
        "[" * 500 + "]" * 500,
        '{"a":' * 200 + "1" + "}" * 200,
        '{"\\ud800": 1}',
        '{"a": ["x\\udfffy"]}',
        '{"a": 1',
        "",
    ],
)
def test_no_json_beyond_the_bounds(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_json_within_the_bounds():
    for value in (
        {"a": [1, 2.5, None, True, "\U0001f642", "ü"]},
        {"n": -(2**63), "m": 2**64 - 1, "f": 1e308, "no limit": int(1e30)},
        [],
        "text",
    ):
        assert parse_json(json.dumps(value)) == value
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(deepest) == json.loads(deepest)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "9" * 5000,
        "a = 0x" + "f" * 300,
        "a = 9223372036854775808",
        "a = inf",
        "a = [nan]",
        "a = " + "[" * 5000,
        "a = " + "[" * 150 + "]" * 150,
        ".".join("a" * 300_000) + " = 1",
        "[" + ".".join("a" * 300) + "]",
        "x = {" + ".".join("a" * 300) + " = 1}",
        "a = ",
    ],
)
def test_no_toml_beyond_the_bounds(text):
    with pytest.raises(ValueError):
        parse_toml(text)


def test_toml_within_the_bounds():
    text = 'a.b = 9223372036854775807\nprose = "One. Two. Three, and so on..."\n[t]\nf = 1e-300\nl = [1, [2]]\n'
    assert parse_toml(text) == {
        "a": {"b": 2**63 - 1},
        "prose": "One. Two. Three, and so on...",
        "t": {"f": 1e-300, "l": [1, [2]]},
    }


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_object(tmp_path / "a.json", "Fix it")
    with pytest.raises(InputError, match="is not a file"):
        read_object(tmp_path, "Fix it")
    (tmp_path / "l.json").write_text("[1]")
    with pytest.raises(DamagedError, match="does not hold a JSON object"):
        read_object(tmp_path / "l.json", "Fix it")
    (tmp_path / "b.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DamagedError, match="is not valid JSON"):
        read_object(tmp_path / "b.json", "Fix it")
    (tmp_path / "large.json").write_bytes(b" " * 1001)
    with pytest.raises(DamagedError, match="more than any such file"):
        read_object(tmp_path / "large.json", "Fix it", most=1000)
