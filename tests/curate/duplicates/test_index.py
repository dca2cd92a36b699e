"""A crawl against an index of earlier ones drops what one run over all would drop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from herdlm.base.errors import DamagedError, InputError
from herdlm.curate.duplicates.groups import edges, repeats
from herdlm.curate.duplicates.index import Index
from herdlm.curate.steps.exact_duplicates import digest
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig, band_keys, fingerprint, verified
from herdlm.curate.words import normalize
from tests.curate.crawls import article

CONFIG = NearDuplicatesConfig(sketch=64, min_similarity=0.7)


@dataclass
class Crawl:
    """Documents as their keys, in order."""

    ids: list[str]
    digests: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    sketches: NDArray[np.uint8]

    def take(
        self, rows: NDArray[np.int64]
    ) -> tuple[list[str], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint8]]:
        return [self.ids[row] for row in rows], self.digests[rows], self.keys[rows], self.sketches[rows]


def crawl_of(texts: list[str], config: NearDuplicatesConfig = CONFIG, name: str = "") -> Crawl:
    normal = [normalize(text) for text in texts]
    prints = [fingerprint(text.split(), config) for text in normal]
    keys = band_keys(np.stack([found for found, _ in prints]), config.bands)
    sketches = np.stack([sketch for _, sketch in prints])
    return Crawl(
        [f"{name}{row}" for row in range(len(texts))], np.array(list(map(digest, normal)), np.uint64), keys, sketches
    )


def drop(
    crawl: Crawl, config: NearDuplicatesConfig, index: Index | None = None
) -> tuple[dict[int, int], NDArray[np.int64]]:
    """Rows dropped, each with what it repeats, and the rows that came to the step of near duplicates."""

    def join(table: str, keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return index.edges(table, keys, rows) if index else edges(keys, rows)  # type: ignore[arg-type]

    def sketches(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        found = crawl.sketches[np.maximum(rows, 0)]
        if index and np.any(rows < 0):
            found[rows < 0] = index.sketches(rows[rows < 0])
        return found

    rows = np.arange(len(crawl.ids))
    dropped = dict(np.stack(repeats(join("digests", crawl.digests, rows)), axis=1).tolist())
    dropped = {row: first for row, first in dropped.items() if row >= 0}
    left = np.setdiff1d(rows, list(dropped))
    pairs = join("bands", crawl.keys[left].ravel(), np.repeat(left, config.bands))
    near, firsts = repeats(verified(pairs, sketches, config.min_similarity))
    dropped |= {row: first for row, first in zip(near.tolist(), firsts.tolist(), strict=True) if row >= 0}
    return dropped, left


def variants(seed: int, families: int = 12) -> list[str]:
    """Texts that repeat each other exactly, nearly, and less nearly, in no order."""
    rng = Random(seed)
    texts = []
    for family in range(families):
        words = article("en", f"index {family}").split()
        for _ in range(8):
            texts.append(" ".join(words))
            for at in rng.sample(range(len(words)), rng.choice([0, 0, 1, 2])):
                words[at] = f"w{rng.randrange(10**6)}"  # each like the one before, the last unlike the first
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("min_similarity", [0.0, 0.7, 0.95])
def test_a_crawl_loses_against_the_index_what_one_run_over_both_drops(tmp_path: Path, min_similarity: float) -> None:
    for seed in range(4):
        config = CONFIG.model_copy(update={"min_similarity": min_similarity})
        texts = variants(seed)
        cuts = [0, 25, 26, 60, len(texts)]
        index = Index.create(tmp_path / f"index {seed}", config)
        for begin, end in zip(cuts, cuts[1:], strict=False):
            part = crawl_of(texts[begin:end], config, f"part {begin} document ")
            dropped, came = drop(part, config, index)
            together, _ = drop(crawl_of(texts[:end], config), config)  # what comes later cannot be known yet
            assert sorted(row + begin for row in dropped) == sorted(row for row in together if row >= begin)
            index.add(f"part {begin}", *part.take(came))
            index = Index.open(tmp_path / f"index {seed}", config)
        assert len(index.segments) == 4


def test_only_where_the_new_crawl_connects_old_groups_do_old_documents_differ(tmp_path: Path) -> None:
    """One run would drop the second of two old documents that a new one connects; the index cannot, and says so."""
    keys = np.array([[1, 2], [3, 4], [1, 4]], np.uint64)
    config = NearDuplicatesConfig(bands=2, rows=1, sketch=1, min_similarity=0)
    crawl = Crawl(["a", "b", "c"], np.arange(3, dtype=np.uint64), keys, np.zeros((3, 1), np.uint8))
    assert drop(crawl, config)[0] == {1: 0, 2: 0}
    index = Index.create(tmp_path / "index", config).add("old", *crawl.take(np.array([0, 1])))
    new = Crawl(*crawl.take(np.array([2])))
    assert drop(new, config, index)[0] == {0: -2}
    assert index.ids(np.array([-2, -1])) == ["a", "b"]


KEYS = st.lists(st.integers(0, 9), max_size=12)


@given(st.lists(KEYS, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_edges_against_the_index_are_those_of_one_run(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]]
) -> None:
    config = NearDuplicatesConfig(bands=1, rows=1, sketch=2)
    index = Index.create(tmp_path_factory.mktemp("index") / "index", config)
    for number, part in enumerate(parts[:-1]):
        keys = np.array(part, np.uint64) * np.uint64(2**60)
        names = [f"é{number} {row}" for row in range(len(part))]
        index = index.add(str(number), names, keys, keys[:, None], np.full((len(part), 2), number, np.uint8))
    before = [key for part in parts[:-1] for key in part]
    everything = np.array(before + parts[-1], np.uint64) * np.uint64(2**60)
    rows = np.arange(len(everything)) - len(before)
    expected = [pair for pair in edges(everything, rows).tolist() if pair[0] >= 0]
    for table in ("digests", "bands"):
        assert index.edges(table, everything[len(before) :], rows[len(before) :]).tolist() == expected
    old = rows[: len(before)][::-1]
    names = [f"é{number} {row}" for number, part in enumerate(parts[:-1]) for row in range(len(part))]
    assert index.ids(old) == names[::-1]
    owners = [number for number, part in enumerate(parts[:-1]) for _ in part]
    assert index.sketches(old).tolist() == [[number, number] for number in owners[::-1]]


def small(tmp_path: Path) -> Index:
    part = crawl_of(variants(9, families=1))
    return Index.create(tmp_path / "index", CONFIG).add("first", *part.take(np.arange(len(part.ids))))


@pytest.mark.parametrize(("name", "value"), [("ngram_words", 4), ("bands", 7), ("rows", 9), ("sketch", 65)])
def test_other_parameters_are_refused_by_name(tmp_path: Path, name: str, value: int) -> None:
    small(tmp_path)
    with pytest.raises(InputError, match=rf"made with {name} = \d+, this run has {value}.*near_duplicates\.{name}"):
        Index.open(tmp_path / "index", CONFIG.model_copy(update={name: value}))
    Index.open(tmp_path / "index", CONFIG.model_copy(update={"min_similarity": 0.1}))


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no index at"):
        Index.open(tmp_path / "index", CONFIG)
    small(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        Index.create(tmp_path / "index", CONFIG)


def test_damage_is_found(tmp_path: Path) -> None:
    small(tmp_path)
    segment = tmp_path / "index" / "segment-00000"
    for path in sorted(segment.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(DamagedError, match=path.name):
            Index.open(tmp_path / "index", CONFIG)
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DamagedError, match=path.name):
            Index.open(tmp_path / "index", CONFIG, hashes=False)
        path.write_bytes(content)
    Index.open(tmp_path / "index", CONFIG)
    segment.rename(segment.with_name("segment-00001"))
    with pytest.raises(DamagedError, match="lacks a segment"):
        Index.open(tmp_path / "index", CONFIG)


def test_an_addition_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = small(tmp_path)
    part = crawl_of(variants(10, families=1))
    files = sorted(path.name for path in index.folder.iterdir())

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", stop)
        index.add("second", *part.take(np.arange(3)))
    assert sorted(path.name for path in index.folder.iterdir()) == files
    assert Index.open(index.folder, CONFIG).documents == index.documents

    with pytest.raises(InputError, match="already has the crawl 'first'"):
        index.add("first", *part.take(np.arange(3)))
    index.add("second", *part.take(np.arange(3)))
    assert index.documents + 3 == Index.open(index.folder, CONFIG).documents
    with pytest.raises(InputError, match="was added to in the meantime"):  # by one who had not seen the second
        index.add("third", *part.take(np.arange(3)))
    assert len(Index.open(index.folder, CONFIG).segments) == 2
