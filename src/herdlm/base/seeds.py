"""Named random streams from one seed; herdlm never uses a global generator."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` of ``seed``, independent of call order, platform and process."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the stream ``names`` of ``seed``."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *names)))
