"""Finds nearly equal texts by MinHash with banding (Broder 1997), and verifies them before they are connected.

The similarity of two texts is the Jaccard similarity s of their sets of word n-grams. A signature of minima is cut into
bands, and texts that agree in a whole band become candidates, with probability ``1 - (1 - s**rows)**bands``. That curve
is flat (14 x 8 takes one pair in five at s = 0.6), and groups chain what it connects, so a candidate only counts if a
longer sketch puts its similarity at ``min_similarity`` or more.

**Hashes.** A word is hashed by BLAKE2b (64 bits, cached per process), an n-gram by the polynomial of its words' hashes
with an odd multiplier modulo 2**64, and minima order n-grams by SplitMix64 of that number.

**Minima** are those of Fast Similarity Sketching (Dahlgaard, Knudsen & Thorup 2017). In round r, every n-gram is hashed
to one of the positions and a value. A position keeps the smallest value of the first round that reached it. The kept
n-gram is uniform over the set, as with one permutation per position, so equal positions estimate s without bias. But
n-grams are distributed over positions almost without replacement, which lowers the variance, and a text of n n-grams
takes O(n + k log k) steps for k positions instead of O(n k).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from herdlm.base.recipe import Section
from herdlm.curate.duplicates.hashing import hash_text, mix

REMEMBERED_WORDS = 1 << 18  # about 50 MB per process
HASHES_PER_POSITION = 8  # hashed at a time, which fills all but one position in 3,000
EMPTY = np.uint64(2**64 - 1)
NGRAM_MULTIPLIER = np.uint64(0xD1342543DE82EF95)
PAIRS_AT_A_TIME = 1 << 15


class _WordHashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) >= REMEMBERED_WORDS:
            self.clear()
        self[word] = value = hash_text(word)
        return value


_word_hashes = _WordHashes()


class NearDuplicatesConfig(Section):
    """MinHash with banding: two texts meet in a band if all rows of the band agree in their signatures.

    Texts whose word n-grams have Jaccard similarity s become candidates with probability
    ``1 - (1 - s**rows)**bands``: with 14 x 8, half of the pairs at s = 0.7 and 94% at 0.85. A candidate is connected to
    the first text it met if a sketch of both puts their similarity at ``min_similarity`` or more.
    """

    ngram_words: int = Field(5, ge=1)
    bands: int = Field(14, ge=1)
    rows: int = Field(8, ge=1)
    min_similarity: float = Field(0.8, ge=0, le=1, description="0: candidates are not verified")
    sketch: int = Field(512, ge=1, description="minima by which texts are compared, a byte each")


def ngram_hashes(words: Sequence[str], n: int) -> NDArray[np.uint64]:
    """Return the hashes of all n-grams of ``words`` in order, (max(len(words) - n, 0) + 1,).

    A text of fewer than n words, or none, is a single n-gram.
    """
    if not words:
        return np.zeros(1, np.uint64)
    hashes = np.fromiter(map(_word_hashes.__getitem__, words), np.uint64, len(words))
    n = min(n, len(words))
    count = len(words) - n + 1
    combined = hashes[:count].copy()
    for at in range(1, n):
        combined *= NGRAM_MULTIPLIER
        combined += hashes[at : at + count]
    return combined


def minima(ngrams: NDArray[np.uint64], positions: int) -> NDArray[np.uint32]:
    """Return the smallest value at each of ``positions``. Two sets agree at a position with probability s.

    ``ngrams`` (N,), N > 0, are hashes; repeated ones count once.
    """
    rounds_at_a_time = max(1, HASHES_PER_POSITION * positions // len(ngrams))
    smallest = np.full(positions, EMPTY)
    begin = 0
    while True:
        rounds = np.arange(begin, begin + rounds_at_a_time, dtype=np.uint64)[:, None]
        hashes = mix(ngrams ^ mix(rounds))
        at = ((hashes >> np.uint64(32)) * np.uint64(positions)) >> np.uint64(32)
        values = (rounds << np.uint64(32)) | (hashes & np.uint64(0xFFFFFFFF))
        np.minimum.at(smallest, at.ravel().view(np.int64), values.ravel())
        if not np.any(smallest == EMPTY):
            return smallest.astype(np.uint32)  # the value without the round
        begin += rounds_at_a_time


def fingerprint(words: Sequence[str], config: NearDuplicatesConfig) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return the signature (bands * rows,) that finds candidates, and the sketch (sketch,) that verifies them.

    ``words`` are those of a normalized text: runs between spaces, and single characters of scripts written without
    spaces. The sketch keeps 8 bits of each minimum (Li & König 2010).
    """
    hashes = config.bands * config.rows
    found = minima(ngram_hashes(words, config.ngram_words), max(hashes, config.sketch))
    return found[:hashes], found[: config.sketch].astype(np.uint8)


def signature(words: Sequence[str], config: NearDuplicatesConfig) -> NDArray[np.uint32]:
    """Return the first result of :func:`fingerprint`."""
    return fingerprint(words, config)[0]


def band_keys(signatures: NDArray[np.uint32], bands: int, languages: Sequence[str] | None = None) -> NDArray[np.uint64]:
    """Return the keys of all bands of all signatures: (N, bands * rows) minima -> (N, bands) keys.

    Keys are equal if all rows of a band are. A key also depends on the band's number and, with ``languages`` (N,), on
    the language, so texts in different languages never meet.
    """
    count = len(signatures)
    values = signatures.reshape(count, bands, -1).astype(np.uint64)
    keys = np.broadcast_to(mix(np.arange(1, bands + 1, dtype=np.uint64)), (count, bands))
    if languages is not None:
        hashed = {language: hash_text(language) for language in set(languages)}
        keys = mix(keys ^ np.fromiter((hashed[name] for name in languages), np.uint64, count)[:, None])
    for row in range(values.shape[2]):
        keys = mix(keys ^ values[:, :, row])
    return keys


def similarity(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the estimated Jaccard similarity of texts by their sketches, (N, sketch) each -> (N,).

    It is unbiased: one position in 256 agrees by chance, which is corrected for. Its standard deviation is at most
    ``sqrt(s * (1 - s) / sketch)``, 0.018 at s = 0.8 with 512.
    """
    return np.asarray((np.mean(left == right, axis=1) - 1 / 256) / (1 - 1 / 256))


def verified(
    pairs: NDArray[np.int64], sketches_of: Callable[[NDArray[np.int64]], NDArray[np.uint8]], min_similarity: float
) -> NDArray[np.int64]:
    """Return those of ``pairs`` (P, 2) whose texts are estimated to be at least that similar.

    ``sketches_of`` returns the sketches (N, sketch) of given rows. It is asked for few at a time, so they can be in a
    memory-mapped file.
    """
    if not min_similarity:
        return pairs
    kept = np.zeros(len(pairs), bool)
    for begin in range(0, len(pairs), PAIRS_AT_A_TIME):
        rows, firsts = pairs[begin : begin + PAIRS_AT_A_TIME].T
        kept[begin : begin + len(rows)] = similarity(sketches_of(rows), sketches_of(firsts)) >= min_similarity
    return pairs[kept]
