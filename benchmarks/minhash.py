"""Near duplicates by MinHash: what is found and what is joined wrongly, against exact Jaccard similarity, and how fast.

    HERDLM_DATA=... python benchmarks/minhash.py [--pages 2000] [--out benchmarks/results]

Pages of the web archives are sampled with their natural near-duplicates: a page drawn at random brings along all pages
that share half of its or their word 5-grams, until there are enough. All pairs of the sample are compared exactly (sets
of 5-grams of normalized words; texts that are equal once normalized are taken once, being the exact step's business).

Recall is the share of pairs with Jaccard >= 0.8 that end in one group. Precision is the share of pairs in one group
with Jaccard >= a bound, stated for several: a group is closed transitively, so all of its pairs count, not only those
that were compared. The referee is datatrove's MinHash with equal parameters (5-grams, 14 x 8, 64-bit hashes) on the
same words, if it is installed; it joins candidates unchecked, as ``min_similarity = 0`` does here. It hashes by SHA-1,
for xxhash 4 refuses the strings that datatrove 0.10.1 gives it.

Speed is CPU time per 1,000-word text, the arms in turn; estimates are compared on sets of known similarity with one
permutation per position and with one-permutation hashing and optimal densification (Shrivastava 2017).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from versions import ABSENT, version

from herdlm.curate.duplicates.groups import connect, edges
from herdlm.curate.duplicates.hashing import mix
from herdlm.curate.steps.extract import extract
from herdlm.curate.steps.language import identify
from herdlm.curate.steps.near_duplicates.minhash import (
    NearDuplicatesConfig,
    band_keys,
    fingerprint,
    minima,
    ngram_hashes,
    verified,
)
from herdlm.curate.words import normalize

ARCHIVES = ("web/docs.warc.gz", "web/handbooks.warc.gz")
N = 5
SIMILAR = 0.8
BOUNDS = (0.8, 0.75, 0.7, 0.6, 0.5)
POSITIONS = 112
Ids = NDArray[np.int64]


def read_pages(data: Path) -> tuple[list[list[str]], list[str]]:
    """The words of every page with text, texts that are equal once normalized once, and the pages' languages."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    found: dict[str, str] = {}
    for archive in ARCHIVES:
        with (data / archive).open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True):
                text, reason = extract(record.reader.read(), record.http_charset or "", True)
                if reason is None and (normal := normalize(text)):
                    found.setdefault(normal, identify(text)[0])
    return [text.split() for text in found], list(found.values())


def shingle_ids(pages: list[list[str]]) -> tuple[Ids, Ids]:
    """The different 5-grams of every page as numbers, page after page, and where each page's end: no hashes."""
    numbers: dict[str, int] = {}
    begins, following = [], []
    for page in pages:
        words = np.array([numbers.setdefault(word, len(numbers)) for word in page])
        n = min(N, len(words))
        count = len(words) - n + 1
        begins.append(count)
        padded = np.concatenate([words, np.full(N - n, -1)])
        following.append(np.lib.stride_tricks.sliding_window_view(padded, N)[:count])
    grams = np.concatenate(following) + 1
    codes = grams[:, 0]
    for at in range(1, N):
        codes = np.unique(codes * (len(numbers) + 1) + grams[:, at], return_inverse=True)[1]
    parts = [np.unique(part) for part in np.split(codes, np.cumsum(begins)[:-1])]
    return np.concatenate(parts), np.cumsum([len(part) for part in parts])


class Shared:
    """How many 5-grams any page shares with every other, from lists of the pages that have each 5-gram."""

    def __init__(self, codes: Ids, ends: Ids) -> None:
        self.codes, self.starts = codes, np.concatenate([[0], ends])
        self.sizes = np.diff(self.starts)
        order = np.argsort(codes, kind="stable")
        self.pages = np.repeat(np.arange(len(ends)), self.sizes)[order]
        self.begins = np.searchsorted(codes[order], np.arange(codes.max() + 2))

    def with_all(self, page: int) -> Ids:
        codes = self.codes[self.starts[page] : self.starts[page + 1]]
        begins, lengths = self.begins[codes], self.begins[codes + 1] - self.begins[codes]
        skipped = np.repeat(begins - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        return np.bincount(self.pages[skipped + np.arange(lengths.sum())], minlength=len(self.sizes))

    def sample(self, count: int, seed: int) -> Ids:
        """``count`` pages drawn with the pages that share half of their 5-grams, in the pages' order."""
        taken: dict[int, None] = {}
        for page in np.random.default_rng(seed).permutation(len(self.sizes)):
            shared = self.with_all(int(page))
            near = np.flatnonzero(2 * shared >= np.minimum(self.sizes, self.sizes[page]))
            taken |= dict.fromkeys([int(page), *near.tolist()])
            if len(taken) >= count:
                break
        return np.sort(np.array(list(taken)[:count]))

    def jaccard(self, pages: Ids) -> NDArray[np.float64]:
        """The similarity of all pairs of ``pages``, (P, P)."""
        found = np.empty((len(pages), len(pages)))
        for row, page in enumerate(pages):
            shared = self.with_all(int(page))[pages]
            found[row] = shared / (self.sizes[page] + self.sizes[pages] - shared)
        return found


def herdlm_groups(pages: list[list[str]], config: NearDuplicatesConfig, languages: list[str] | None = None) -> Ids:
    """The first page of every page's group."""
    prints = [fingerprint(words, config) for words in pages]
    sketches = np.stack([sketch for _, sketch in prints])
    keys = band_keys(np.stack([found for found, _ in prints]), config.bands, languages)
    pairs = edges(keys.ravel(), np.repeat(np.arange(len(pages)), config.bands))
    return groups(verified(pairs, lambda rows: sketches[rows], config.min_similarity), len(pages))


def groups(pairs: Ids, count: int) -> Ids:
    found = np.arange(count)
    rows, firsts = connect(pairs)
    found[rows] = firsts
    return found


def datatrove_groups(pages: list[list[str]]) -> tuple[Ids, float]:
    """The same by datatrove's own steps, and the CPU seconds of its signatures."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.text import TextNormConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Spaces(WordTokenizer):
        """The words as they were given, so that both sides compare the same 5-grams."""

        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    as_given = TextNormConfig(
        lowercase=False,
        norm_whitespace=False,
        remove_punctuation=False,
        norm_unicode_diacritics=False,
        norm_numbers=False,
    )
    config = MinhashConfig(
        n_grams=N,
        num_buckets=14,
        hashes_per_bucket=8,
        norm_config=as_given,
        hash_config=HashConfig(precision=64, hash_fc="sha1"),
    )
    with tempfile.TemporaryDirectory() as folder:
        documents = [Document(text=" ".join(words), id=str(row)) for row, words in enumerate(pages)]
        begin = time.process_time()
        MinhashDedupSignature(f"{folder}/signatures", config, language=Spaces()).run(iter(documents), 0, 1)
        seconds = time.process_time() - begin
        for rank in range(14):
            MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/pairs", config=config).run(None, rank, 14)
        found = [
            struct.unpack("<4I", record)
            for file in sorted(Path(folder, "pairs").glob("*.dups"))
            for record in _records(file.read_bytes(), 16)
        ]
    pairs = np.array([(two, one) for _, one, _, two in found], np.int64).reshape(-1, 2)
    return groups(pairs, len(pages)), seconds


def _records(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


def judge(firsts: Ids, jaccard: NDArray[np.float64], among: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """Recall and precision over all pairs; ``among`` (P, P) limits the pairs that should be found."""
    upper = np.triu(np.ones(jaccard.shape, bool), 1)
    joined = upper & (firsts[:, None] == firsts[None])
    similar = upper & (jaccard >= SIMILAR)
    if among is not None:
        similar &= among
    dropped = np.flatnonzero(firsts != np.arange(len(firsts)))
    return {
        f"recall at {SIMILAR}": float((joined & similar).sum() / similar.sum()),
        "precision by bound": {
            str(bound): float((joined & (jaccard >= bound)).sum() / joined.sum()) for bound in BOUNDS
        },
        "dropped whose first is that similar": {
            str(bound): float(np.mean(jaccard[dropped, firsts[dropped]] >= bound)) for bound in BOUNDS
        },
        "pairs to find": int(similar.sum()),
        "pairs joined": int(joined.sum()),
        "dropped": len(dropped),
    }


def permuted(ngrams: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """One order of all n-grams per position, as multiply-add of 64-bit hashes of which the upper half counts."""
    factors = mix(np.arange(POSITIONS, dtype=np.uint64))[:, None] | np.uint64(1)
    addends = mix(np.arange(1000, 1000 + POSITIONS, dtype=np.uint64))[:, None]
    return np.min((mix(ngrams) * factors + addends) >> np.uint64(32), axis=1).astype(np.uint32)


def one_permutation(ngrams: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """One order for all positions; an empty one takes over another's by a hash of its number (Shrivastava 2017)."""
    hashes = mix(ngrams)
    at = ((hashes >> np.uint64(32)) * np.uint64(POSITIONS)) >> np.uint64(32)
    smallest = np.full(POSITIONS, 2**64 - 1, np.uint64)
    np.minimum.at(smallest, at.view(np.int64), hashes & np.uint64(0xFFFFFFFF))
    full = smallest != 2**64 - 1
    empty, attempt = np.flatnonzero(~full), 0
    while len(empty):
        other = mix(empty.astype(np.uint64) * np.uint64(65537) + np.uint64(attempt)) % np.uint64(POSITIONS)
        taken = full[other.view(np.int64)]
        smallest[empty[taken]] = smallest[other.view(np.int64)[taken]]
        empty, attempt = empty[~taken], attempt + 1
    return smallest.astype(np.uint32)


ESTIMATORS: dict[str, Callable[[NDArray[np.uint64]], NDArray[np.uint32]]] = {
    "fast similarity sketching (herdlm)": lambda ngrams: minima(ngrams, POSITIONS),
    "a permutation per position": permuted,
    "one permutation, optimal densification": one_permutation,
}


def estimation(trials: int) -> list[dict[str, Any]]:
    """Bias and root mean square error of each estimator for sets of known similarity, and what binomial draws have."""
    rng = np.random.default_rng(0)
    rows = []
    for size in (10, 100, 1000):
        shared_count = round(size * 2 * SIMILAR / (1 + SIMILAR))
        true = shared_count / (2 * size - shared_count)
        errors: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
        for _ in range(trials):
            shared = rng.integers(0, 2**64, shared_count, dtype=np.uint64)
            one, other = (
                np.concatenate([shared, rng.integers(0, 2**64, size - shared_count, dtype=np.uint64)]) for _ in range(2)
            )
            for name, estimate in ESTIMATORS.items():
                errors[name].append(float(np.mean(estimate(one) == estimate(other))) - true)
        rows.append(
            {
                "n-grams": size,
                "jaccard": true,
                "binomial deviation": (true * (1 - true) / POSITIONS) ** 0.5,
                "bias, error": {
                    name: [statistics.fmean(e), statistics.fmean(x * x for x in e) ** 0.5] for name, e in errors.items()
                },
            }
        )
    return rows


def speed(pages: list[list[str]], rounds: int) -> dict[str, float]:
    """CPU milliseconds per 1,000-word text: medians over rounds in which every arm takes its turn."""
    words = [word for page in pages for word in page]
    texts = [words[at : at + 1000] for at in range(0, min(len(words) - 1000, 200_000), 1000)]
    grams = [ngram_hashes(text, N) for text in texts]
    config = NearDuplicatesConfig()
    arms: dict[str, Callable[[], Any]] = {
        "fingerprint: words to signature and sketch": lambda: [fingerprint(text, config) for text in texts],
        "n-gram hashes alone": lambda: [ngram_hashes(text, N) for text in texts],
    } | {name: lambda function=function: [function(each) for each in grams] for name, function in ESTIMATORS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            begin = time.process_time()
            arm()
            seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(each) / len(texts) * 1000 for name, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if "HERDLM_DATA" not in os.environ:
        sys.exit("HERDLM_DATA is not set: name the folder that holds web/docs.warc.gz and web/handbooks.warc.gz")
    pages, languages = read_pages(Path(os.environ["HERDLM_DATA"]))
    shared = Shared(*shingle_ids(pages))
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "different pages": len(pages),
        "samples": [],
    }
    report["versions"]["datatrove"] = version("datatrove")
    default = NearDuplicatesConfig()
    for seed in options.seeds:
        rows = shared.sample(options.pages, seed)
        chosen, spoken = [pages[row] for row in rows], [languages[row] for row in rows]
        jaccard = shared.jaccard(rows)
        same = np.array(spoken)[:, None] == np.array(spoken)[None]
        arms = {
            "default": judge(herdlm_groups(chosen, default), jaccard),
            "default, inside each language": judge(herdlm_groups(chosen, default, spoken), jaccard, same),
        }
        for bound in (0.0, 0.7, 0.75):
            config = default.model_copy(update={"min_similarity": bound})
            arms[f"min_similarity = {bound}"] = judge(herdlm_groups(chosen, config), jaccard)
        if report["versions"]["datatrove"] == ABSENT:
            arms["datatrove"] = {"skipped": ABSENT}
        else:
            firsts, seconds = datatrove_groups(chosen)
            arms["datatrove"] = judge(firsts, jaccard) | {"signatures, CPU ms a page": 1000 * seconds / len(chosen)}
            begin = time.process_time()
            for words in chosen:
                fingerprint(words, default)
            arms["default"]["signatures, CPU ms a page"] = 1000 * (time.process_time() - begin) / len(chosen)
        report["samples"].append({"seed": seed, "pages": len(chosen), "arms": arms})
    report["CPU ms per 1,000-word text"] = speed(pages, options.rounds)
    report["estimation"] = estimation(300)
    print(json.dumps(report, indent=2))
    if options.out:
        path = options.out / f"minhash-cpu-{report['date']}.json"
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
