"""Gzip that may be damaged."""

from __future__ import annotations

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.curate import gzipped
from herdlm.curate.gzipped import GzipMembers

MEMBERS = [b"first " * 500, b"second " * 500, b"third " * 500]


def read(data: bytes) -> tuple[bytes, int]:
    members = GzipMembers(io.BytesIO(data), "crawl.gz")
    return io.BufferedReader(members).read(), members.damaged


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 3))
def test_whole_files_read_as_gzip_reads_them(pieces: list[bytes], padding: int) -> None:
    data = b"".join(gzip.compress(piece) for piece in pieces) + bytes(padding)
    assert read(data) == (b"".join(pieces), 0)


def test_a_cut_anywhere_within_a_member_is_an_error() -> None:
    packed = [gzip.compress(member) for member in MEMBERS]
    data = b"".join(packed)
    for cut in range(len(packed[0]) + len(packed[1]) + 1, len(data)):
        with pytest.raises(InputError, match=r"crawl\.gz is cut off"):
            read(data[:cut])


def test_a_damaged_member_is_left_out_and_counted() -> None:
    packed = [gzip.compress(member) for member in MEMBERS]
    for at in range(12, len(packed[1])):  # deflated data, checksum and length
        broken = bytearray(packed[1])
        broken[at] ^= 0x55
        plain, damaged = read(packed[0] + bytes(broken) + packed[2])
        assert (plain, damaged) == (MEMBERS[0] + MEMBERS[2], 1)


def test_large_members_are_passed_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "MEMBER_BYTES", 1000)
    monkeypatch.setattr(gzipped, "READ_BYTES", 64)
    plain = bytes(range(256)) * 64
    data = gzip.compress(plain, compresslevel=0)
    assert read(data + gzip.compress(b"end")) == (plain + b"end", 0)
    broken = bytearray(data)
    broken[-6] ^= 1
    with pytest.raises(InputError, match="damaged within a gzip member"):
        read(bytes(broken))
