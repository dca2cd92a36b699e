"""Files: compressed or not, whole or cut short, with the errors of their lines."""

import gzip
import json

import pytest

from herdlm.base.errors import DamagedError, InputError
from herdlm.data import files
from herdlm.data.files import read_rows
from herdlm.data.formats.detect import form_of
from herdlm.data.row import RowError

ROWS = [{"prompt": "Wie geht's?", "completion": "Gut 👍"}, {"prompt": "Und dir?", "completion": "Auch."}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def rows_of(path):
    return list(read_rows(path, is_row=lambda row: form_of(row) is not None))


def values(path):
    return [row.value for row in rows_of(path)]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", LINES.removesuffix(b"\n")),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl", LINES.replace(b"\n", b"\n\n  \n")),
        ("a.json", LINES),
        ("a.json", json.dumps(ROWS, indent=2).encode()),
        ("a.jsonl", json.dumps(ROWS).encode()),
        ("a.json", b"\xef\xbb\xbf" + json.dumps({"version": "1", "data": ROWS}).encode()),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("no-suffix-of-gzip", gzip.compress(LINES, mtime=0)),
        ("a.csv", "prompt,completion\nWie geht's?,Gut 👍\n\nUnd dir?,Auch.\n".encode()),
        ("a.csv", "\ufeffprompt;completion\r\nWie geht's?;Gut 👍\r\nUnd dir?;Auch.".encode()),
        ("a.tsv.gz", gzip.compress("prompt\tcompletion\nWie geht's?\tGut 👍\nUnd dir?\tAuch.\n".encode(), mtime=0)),
    ],
)
def test_the_same_rows_in_every_kind_of_file(tmp_path, name, content):
    assert values(written(tmp_path, name, content)) == ROWS


def test_parquet_rows_lose_the_nulls_that_stand_for_missing_keys(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [
        {"messages": [{"role": "user", "content": "a", "weight": None}], "id": None},
        {"messages": [{"role": "assistant", "content": "b", "weight": 0.5}], "id": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = rows_of(tmp_path / "a.parquet")
    assert first.value == {"messages": [{"role": "user", "content": "a"}]}
    assert second.value == rows[1]
    assert second.place == "row 2"
    whole = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(DamagedError, match=r"a\.parquet is not a whole Parquet file"):
        rows_of(written(tmp_path, "a.parquet", whole[:-20]))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "caf\xe9"}', "line 2: byte 14 is not UTF-8"),
        (b'{"text": "a\0b"}', "line 2: it holds a NUL byte"),
        (b'{"text": NaN}', "line 2: it is not JSON: NaN"),
        (b'{"text": 1e999}', "line 2: it is not JSON: the number 1e999"),
        (b'{"text": "a", "text": "b"}', "line 2: it is not JSON: key 'text' stands twice"),
        (b'{"text": "a"', "line 2: it is not JSON"),
        (b'["a"]', "line 2: a list, not an object"),
        (b"[" * 100_000, "line 2: it is not JSON: it is nested too deeply"),
        (b'{"a": [{"b": "ok \\ud83d"}]}', r"line 2, key a\[0\]\.b: the text holds half of a surrogate pair"),
        (b'{"a": "x\\u0000y"}', "line 2, key a: the text holds a NUL character"),
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_read(tmp_path, line, words):
    path = written(tmp_path, "a.jsonl", b'{"text": "a"}\n' + line + b'\n{"text": "c"}\n')
    first, bad, last = rows_of(path)
    assert (first.value, last.value) == ({"text": "a"}, {"text": "c"})
    assert isinstance(bad, RowError)
    with pytest.raises(InputError, match=words):
        raise bad


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    assert values(written(tmp_path, "a.jsonl", b'{"text": "\\ud83d\\ude00"}\n')) == [{"text": "😀"}]


def test_a_line_that_is_too_long_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE", 50)
    path = written(tmp_path, "a.jsonl", b'{"text": "a"}\n{"text": "' + b"x" * 120 + b'"}\n{"text": "c"}\n')
    first, bad, last = rows_of(path)
    assert (first.value["text"], last.value["text"], last.place) == ("a", "c", "line 3")
    assert "line 2: it has more than 50 bytes" in str(bad)


def test_a_gzip_file_cut_short_is_damaged(tmp_path):
    packed = gzip.compress(b"".join(b'{"text": "%d"}\n' % n for n in range(5000)))
    with pytest.raises(DamagedError, match=r"a\.jsonl\.gz is not whole"):
        rows_of(written(tmp_path, "a.jsonl.gz", packed[: len(packed) // 2]))
    flipped = packed[:200] + bytes([packed[200] ^ 255]) + packed[201:]
    with pytest.raises(InputError):
        rows_of(written(tmp_path, "a.jsonl.gz", flipped))


@pytest.mark.parametrize("content", [b"\n" * (2 << 20), b'{"text": "a"}\n' * (1 << 17)])
def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(files, "BOMB_BYTES", 1 << 20)
    with pytest.raises(InputError, match="unpacks to more than 400 times its size"):
        for row in read_rows(written(tmp_path, "a.jsonl.gz", gzip.compress(content)), is_row=lambda row: True):
            assert row.value == {"text": "a"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.csv", b"\n", "is empty"),
        ("a.txt", b"Some prose.", "not JSON, JSON Lines, CSV or Parquet"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "UTF-16, not UTF-8"),
        ("a.csv", b"a,b,a\n1,2,3\n", "line 1: the column 'a' stands twice"),
        ("a.csv", b'a,b\n1,"2"x\n', "line 2: it is not CSV"),
        ("a.csv", b"a,b\n1,\xff\n", "line 2: byte 3 is not UTF-8"),
    ],
)
def test_files_that_cannot_be_read_at_all(tmp_path, name, content, words):
    with pytest.raises(InputError, match=words):
        rows_of(written(tmp_path, name, content))


def test_a_json_file_names_the_line_of_its_error(tmp_path):
    (error,) = rows_of(written(tmp_path, "a.json", b'[\n{"text": "a"},\n{"text": }\n]'))
    assert "line 3: the file is not JSON" in str(error)


def test_csv_rows_know_the_line_on_which_they_begin(tmp_path):
    path = written(tmp_path, "a.csv", b'prompt,completion\n"two\nlines",b\nc,d\ne\n')
    first, second, bad = rows_of(path)
    assert (first.place, first.value["prompt"], second.place) == ("line 2", "two\nlines", "line 4")
    assert "line 5: it has 1 cells where line 1 names 2 columns" in str(bad)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        rows_of(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        rows_of(tmp_path)
