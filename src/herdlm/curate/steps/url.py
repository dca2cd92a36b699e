"""Drops pages whose address is on a block list of domains or words, before their content is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field

from herdlm.base.artifact import require_file
from herdlm.base.errors import InputError
from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.duplicates.url import normalize_host, normalize_url
from herdlm.curate.step import PageStep

_DOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_WORD = re.compile(r"[^\W_]+")


class UrlConfig(Section):
    """Block lists: files with one entry a line."""

    blocked_domains: tuple[str, ...] = Field((), description="files; a domain covers its subdomains")
    blocked_words: tuple[str, ...] = Field((), description="files; words between the punctuation of an address")


class Url(PageStep):
    """Drops pages of blocked domains, and pages with a blocked word in their address."""

    name = "url"
    settings: UrlConfig

    def check(self) -> None:
        _load(self.settings)

    def run(self, batch: Batch) -> Outcome:
        lists = _load(self.settings)
        return Outcome([lists.check(url) if url else None for url in batch["url"]])


@lru_cache(maxsize=1)
def _load(config: UrlConfig) -> BlockLists:
    return BlockLists.load(config.blocked_domains, config.blocked_words)


class BlockLists:
    """Blocked domains, which cover their subdomains, and blocked words between the punctuation of an address."""

    def __init__(self, domains: Iterable[str] = (), words: Iterable[str] = ()) -> None:
        self.domains = frozenset(domains)
        self.words = frozenset(words)

    @classmethod
    def load(cls, domains: Iterable[str | Path] = (), words: Iterable[str | Path] = ()) -> BlockLists:
        """Read files of domains and files of words: one entry a line, with ``#`` comments.

        Raises:
            InputError: A file is missing, is not UTF-8 or has no entry, or a line is not a domain or a single word.
        """
        return cls(
            [entry for file in domains for entry in _entries(Path(file), "domain", _domain)],
            [entry for file in words for entry in _entries(Path(file), "word", _word)],
        )

    def check(self, url: str) -> str | None:
        """Return the reason to drop a page at this address, ``blocked_domain`` or ``blocked_word``, or None."""
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
        raise InputError(f"the list of blocked {what}s {path} is empty", f"Write one {what} a line, or drop the list")
    return found


def _domain(text: str) -> str | None:
    host = normalize_host(text.removeprefix("*").removeprefix("."))
    return host if _DOMAIN.fullmatch(host) else None


def _word(text: str) -> str | None:
    return text.lower() if _WORD.fullmatch(text.lower()) else None
