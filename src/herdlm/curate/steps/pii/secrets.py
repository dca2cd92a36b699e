"""Finds private keys, API keys and passwords: by vendor formats, or random characters after a telling name."""

from __future__ import annotations

import math
import re
from collections import Counter

from herdlm.curate.steps.pii.spans import CONTEXT_CHARS, replace

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY(?: BLOCK)?)-----[\s\S]{16,20000}?-----END (?P=kind)-----"
)
# Each pattern, after a literal that must be in the text for it to be tried
_KEYS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("PRIVATE KEY", _PRIVATE_KEY),
    *(
        (literal, re.compile(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])"))
        for literal, pattern in (
            ("AKIA", r"AKIA[A-Z2-7]{16}"),
            ("ASIA", r"ASIA[A-Z2-7]{16}"),
            ("ghp_", r"ghp_[A-Za-z0-9]{36}"),
            ("gho_", r"gho_[A-Za-z0-9]{36}"),
            ("ghs_", r"ghs_[A-Za-z0-9]{36}"),
            ("github_pat_", r"github_pat_[A-Za-z0-9_]{60,90}"),
            ("glpat-", r"glpat-[A-Za-z0-9_-]{20,}"),
            ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{20,}"),
            ("AIza", r"AIza[A-Za-z0-9_-]{35}"),
            ("ya29.", r"ya29\.[A-Za-z0-9_-]{30,}"),
            ("_live_", r"[sr]k_live_[A-Za-z0-9]{20,}"),
            ("sk-", r"sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"),
            ("hf_", r"hf_[A-Za-z]{34}"),
            ("SG.", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
            ("npm_", r"npm_[A-Za-z0-9]{36}"),
            ("pypi-", r"pypi-AgE[A-Za-z0-9_-]{50,}"),
            ("eyJ", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"),
            ("AccountKey=", r"AccountKey=[A-Za-z0-9+/]{86}=="),
        )
    ),
)
_VALUE = re.compile(r"[:=](?:>|=)?[ ]{0,2}[\"']?(?P<secret>[A-Za-z0-9+/_.=-]{20,200})")
_SECRET_CONTEXT = re.compile(
    r"(?:secret|token|passw(?:or)?d|api[_-]?key|access[_-]?key|private[_-]?key)\w{0,12}[\"']?\s{0,2}:?$", re.IGNORECASE
)
MIN_KEY_CHARS = 20
_KEY_SHAPE = bytes(ord("k" if re.fullmatch("[A-Za-z0-9+/_.=-]", chr(c)) else " ") for c in range(256))
_KEY_RUN = b"k" * MIN_KEY_CHARS
MIN_SECRET_DIGITS = 3
MIN_SECRET_BITS = 3.5  # Shannon entropy per character; at most 4 for random hexadecimal digits, 6 for random base64


def mask_keys(text: str) -> tuple[str, int]:
    total = 0
    runs = _long_runs(text)
    held = "\n".join(runs)
    for literal, pattern in _KEYS:
        if literal in (text if literal == "PRIVATE KEY" else held):
            text, count = replace(pattern, "key", text, _is_key)
            total += count
    if any(sum(map(str.isdigit, run)) >= MIN_SECRET_DIGITS for run in runs):
        text, count = replace(_VALUE, "key", text, _is_secret, "secret")
        total += count
    return text, total


def _long_runs(text: str) -> list[str]:
    """Return the runs of at least ``MIN_KEY_CHARS`` characters of keys. Every key except a PEM block is in one."""
    raw = text.encode("utf-8", "replace")
    shape = raw.translate(_KEY_SHAPE) + b" "
    runs, end = [], 0
    while (start := shape.find(_KEY_RUN, end)) >= 0:
        end = shape.find(b" ", start)
        runs.append(raw[start:end].decode())
    return runs


def _is_key(match: re.Match[str]) -> bool:
    return "EXAMPLE" not in match[0] and "..." not in match[0]


def _is_secret(match: re.Match[str]) -> bool:
    before = match.string[max(match.start() - CONTEXT_CHARS, 0) : match.start()]
    return bool(_SECRET_CONTEXT.search(before)) and _is_random(match["secret"])


def _is_random(secret: str) -> bool:
    """Return whether a string looks random: letters and digits mixed, high entropy, not an example, path or code."""
    if "EXAMPLE" in secret.upper() or secret.count(".") > 1 or "://" in secret or secret.count("/") > len(secret) // 8:
        return False
    if sum(map(str.isdigit, secret)) < MIN_SECRET_DIGITS or sum(map(str.isalpha, secret)) < 3:
        return False
    return entropy(secret) >= MIN_SECRET_BITS


def entropy(text: str) -> float:
    """Return the Shannon entropy of a text's characters, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
