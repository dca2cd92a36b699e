"""Near-equal texts by MinHash (Broder 1997) with banding: those that share all rows of a band."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.config import NearDuplicatesConfig

NGRAMS_AT_A_TIME = 4096
NGRAM_MULTIPLIER = np.uint64(0xD1342543DE82EF95)


def signature(words: Sequence[str], config: NearDuplicatesConfig) -> NDArray[np.uint32]:
    """The (bands * rows,) minima over all n-grams of ``words``, each under a permutation of its own."""
    hashed = {word: int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little") for word in words}
    numbers = np.fromiter((hashed[word] for word in words), np.uint64, len(words))
    n = min(config.ngram_words, len(words))
    ngrams = np.zeros(max(len(words) - n + 1, 1), np.uint64)
    for at in range(n):
        ngrams = ngrams * NGRAM_MULTIPLIER + numbers[at : at + len(ngrams)]
    seeds = _mix(np.arange(config.bands * config.rows, dtype=np.uint64))[:, None]
    smallest = np.full(len(seeds), 2**32 - 1, np.uint64)
    for begin in range(0, len(ngrams), NGRAMS_AT_A_TIME):
        hashes = _mix(ngrams[begin : begin + NGRAMS_AT_A_TIME] ^ seeds) >> np.uint64(32)
        smallest = np.minimum(smallest, hashes.min(axis=1))
    return smallest.astype(np.uint32)


def band_keys(signatures: NDArray[np.uint32], bands: int) -> NDArray[np.uint64]:
    """The key of every band of every signature: (N, bands * rows) minima -> (N, bands) keys.

    Keys are equal where all rows of a band are; a key also says which band it is of.
    """
    count = len(signatures)
    values = signatures.reshape(count, bands, -1).astype(np.uint64)
    keys = np.broadcast_to(_mix(np.arange(1, bands + 1, dtype=np.uint64)), (count, bands))
    for row in range(values.shape[2]):
        keys = _mix(keys ^ values[:, :, row])
    return keys


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a permutation of 64-bit numbers in which every bit depends on every bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
