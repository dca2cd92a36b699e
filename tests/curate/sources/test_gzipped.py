"""Gzip members against Python's gzip, whole, damaged, and entered in the middle."""

from __future__ import annotations

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.curate.sources import gzipped
from herdlm.curate.sources.gzipped import CutOffError, DamageError, GzipMembers

MEMBERS = [b"first " * 500, b"second " * 500, b"third " * 500]


def read(data: bytes, begin: int = 0, prefix: bytes = b"") -> tuple[list[tuple[int, bytes]], list[str]]:
    """(offset, plain bytes) of every whole member from ``begin`` on, and the faults met."""
    members = GzipMembers(io.BytesIO(data), begin)
    offset = members.find(prefix) if begin else members.next_offset()
    whole, faults = [], []
    while offset is not None:
        plain = b""
        try:
            while piece := members.read(1000):
                plain += piece
            whole.append((offset, plain))
            offset = members.next_offset()
        except (DamageError, CutOffError) as error:
            faults.append(type(error).__name__)
            offset = members.find(prefix)
    return whole, faults


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 3))
def test_whole_files_read_as_gzip_reads_them(pieces: list[bytes], padding: int) -> None:
    data = b"".join(gzip.compress(piece) for piece in pieces) + bytes(padding)
    found, faults = read(data)
    assert [plain for _, plain in found] == pieces
    assert faults == []
    assert not pieces or b"".join(pieces) == gzip.decompress(data)


def test_a_cut_anywhere_costs_the_last_member_and_is_told() -> None:
    packed = [gzip.compress(member) for member in MEMBERS]
    data = b"".join(packed)
    for cut in range(len(packed[0]) + len(packed[1]) + 1, len(data)):
        found, faults = read(data[:cut], prefix=b"no such thing")
        assert [plain for _, plain in found] == MEMBERS[:2]
        assert faults == ["CutOffError"]


def test_a_damaged_member_is_left_out_and_told() -> None:
    packed = [gzip.compress(member) for member in MEMBERS]
    for at in range(12, len(packed[1])):  # deflated data, checksum and length
        broken = bytearray(packed[1])
        broken[at] ^= 0x55
        found, faults = read(packed[0] + bytes(broken) + packed[2], prefix=b"third")
        assert [plain for _, plain in found] == [MEMBERS[0], MEMBERS[2]]
        assert faults == ["DamageError"]


def test_a_reader_that_starts_anywhere_finds_the_next_member_of_the_right_content() -> None:
    decoy = gzip.compress(b"\x1f\x8b\x08" * 9, compresslevel=0)
    packed = [gzip.compress(b"WARC/1.0 " + bytes([i]) * 50) for i in range(5)]
    data = packed[0] + decoy + b"".join(packed[1:])
    starts = [0, len(packed[0]) + len(decoy)]
    for one in packed[1:-1]:
        starts.append(starts[-1] + len(one))
    for begin in range(1, len(data)):
        found, faults = read(data, begin, b"WARC/")
        assert [offset for offset, _ in found] == [start for start in starts if start >= begin]
        assert faults == []


def test_large_members_are_passed_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "HELD_BYTES", 1000)
    monkeypatch.setattr(gzipped, "READ_BYTES", 64)
    plain = bytes(range(256)) * 64
    for level in (0, 9):
        data = gzip.compress(plain, compresslevel=level)
        end = gzip.compress(b"end")
        assert read(data + end) == ([(0, plain), (len(data), b"end")], [])
        broken = bytearray(data)
        broken[-6] ^= 1
        assert read(bytes(broken) + end, prefix=b"end") == ([(len(data), b"end")], ["DamageError"])
        for cut in range(len(data) - 9, len(data)):
            assert read(data[:cut], prefix=b"end") == ([], ["CutOffError"])


def test_a_few_bytes_that_unpack_to_many_are_never_held_whole() -> None:
    bomb = gzip.compress(bytes(64 << 20), compresslevel=1)
    members = GzipMembers(io.BytesIO(bomb))
    assert members.next_offset() == 0
    total = largest = 0
    while piece := members.read(1 << 16):
        total, largest = total + len(piece), max(largest, len(piece))
    assert total == 64 << 20
    assert largest <= 1 << 16
