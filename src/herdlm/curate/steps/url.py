"""Block lists of domains and words: pages whose address is on one are dropped before they are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from herdlm.base.artefact import require_file
from herdlm.base.errors import InputError
from herdlm.curate.duplicates.url import normalize_host, normalize_url

_DOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_WORD = re.compile(r"[^\W_]+")


class BlockLists:
    """Domains, which cover their subdomains, and words that no address may have between its punctuation."""

    def __init__(self, domains: Iterable[str] = (), words: Iterable[str] = ()) -> None:
        self.domains = frozenset(domains)
        self.words = frozenset(words)

    @classmethod
    def load(cls, domains: Iterable[str | Path] = (), words: Iterable[str | Path] = ()) -> BlockLists:
        """Read files of domains and files of words: one a line, blank lines and lines from ``#`` on passed over.

        Raises:
            InputError: a file is missing, is not UTF-8 or has no entry, or a line is no domain, or no single word.
        """
        return cls(
            [entry for file in domains for entry in _entries(Path(file), "domain", _domain)],
            [entry for file in words for entry in _entries(Path(file), "word", _word)],
        )

    def check(self, url: str) -> str | None:
        """Why a page of this address is dropped, ``blocked_domain`` or ``blocked_word``, or None."""
        url = normalize_url(url)
        if self.domains:
            try:
                labels = (urlsplit(url).hostname or "").split(".")
            except ValueError:
                labels = []
            if any(".".join(labels[at:]) in self.domains for at in range(len(labels))):
                return "blocked_domain"
        if self.words and not self.words.isdisjoint(_WORD.findall(unquote(url).lower())):
            return "blocked_word"
        return None


def _entries(path: Path, what: str, parse: Callable[[str], str | None]) -> list[str]:
    try:
        lines = require_file(path, f"the list of blocked {what}s").read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"the list of blocked {what}s {path} is not UTF-8", "Convert it to UTF-8") from error
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        entry = parse(text)
        if entry is None:
            raise InputError(f"{path}, line {number}: {text!r} is not a {what}", f"Write one {what} a line")
        found.append(entry)
    if not found:
        raise InputError(f"the list of blocked {what}s {path} names none", f"Write one {what} a line, or leave it out")
    return found


def _domain(text: str) -> str | None:
    host = normalize_host(text.removeprefix("*").removeprefix("."))
    return host if _DOMAIN.fullmatch(host) else None


def _word(text: str) -> str | None:
    return text.lower() if _WORD.fullmatch(text.lower()) else None
