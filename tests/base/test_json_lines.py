"""JSON Lines: what is written is read, and a bad line is named."""

import pytest

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_lines import json_lines, read_json_lines, write_json_lines


def test_what_is_written_is_read(tmp_path):
    rows = [{"text": "a line\nand a separator\u2028of lines"}, {"ids": [1, 2], "é": None}]
    write_json_lines(tmp_path / "a.jsonl", rows)
    assert read_json_lines(tmp_path / "a.jsonl") == rows
    assert len((tmp_path / "a.jsonl").read_bytes().split(b"\n")) == 3


def test_blank_lines_are_skipped_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n \n{"a": 2}')
    assert list(json_lines(tmp_path / "a.jsonl")) == [(2, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [(b"{", "is not JSON"), (b'{"a": "\xff"}', "is not JSON: 'utf-8'"), (b"[1]", "is not a JSON object")],
)
def test_a_bad_line_is_named(tmp_path, line, problem):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(DamagedError, match=f"{path}, line 2 {problem}"):
        read_json_lines(path)
    with pytest.raises(InputError, match="missing.jsonl does not exist"):
        read_json_lines(tmp_path / "missing.jsonl")
