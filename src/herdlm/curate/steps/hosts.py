"""Drops all pages of hosts with much personal data or sexual content (Llama 3, arXiv 2407.21783, section 3.1.1).

Hosts are counted over the pages that no earlier step dropped. Counts of shards add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.corpus import Corpus
from herdlm.curate.funnel import host_of
from herdlm.curate.step import DocumentStep


class HostsConfig(Section):
    """When to drop all pages of a host."""

    min_pages: int = Field(3, ge=1, description="hosts with fewer are kept")
    max_pii_per_1000_words: float = Field(20.0, gt=0)
    max_dirty_words_per_1000_words: float = Field(5.0, gt=0)


class Hosts(DocumentStep):
    """Drops pages by the host of their ``url``."""

    name = "hosts"
    settings: HostsConfig

    def run(self, batch: Batch, corpus: Corpus) -> Outcome:
        hosts = corpus.decisions.hosts
        return Outcome([hosts.get(host_of(url)) if url else None for url in batch["url"]])


@dataclass(frozen=True, slots=True)
class HostCounts:
    """Counts over the pages of a host: pages, words, pieces of personal data of any kind, dirty words."""

    pages: int = 0
    words: int = 0
    pii: int = 0
    dirty_words: int = 0

    def __add__(self, other: HostCounts) -> HostCounts:
        return HostCounts(
            self.pages + other.pages,
            self.words + other.words,
            self.pii + other.pii,
            self.dirty_words + other.dirty_words,
        )

    @property
    def pii_per_1000_words(self) -> float:
        return 1000 * self.pii / max(self.words, 1)

    @property
    def dirty_words_per_1000_words(self) -> float:
        return 1000 * self.dirty_words / max(self.words, 1)


def add_hosts(one: Mapping[str, HostCounts], other: Mapping[str, HostCounts]) -> dict[str, HostCounts]:
    """Return the sums of two shards' counts."""
    return {host: one.get(host, HostCounts()) + other.get(host, HostCounts()) for host in sorted({*one, *other})}


def rank_hosts(counts: Mapping[str, HostCounts], config: HostsConfig) -> list[tuple[str, float]]:
    """Return all hosts and how close they are to being dropped, worst first, ties by name.

    The figure is the larger of the two densities divided by its threshold. Above 1, a host of enough pages is dropped.
    """

    def excess(count: HostCounts) -> float:
        return max(
            count.pii_per_1000_words / config.max_pii_per_1000_words,
            count.dirty_words_per_1000_words / config.max_dirty_words_per_1000_words,
        )

    return sorted(((host, excess(count)) for host, count in counts.items()), key=lambda pair: (-pair[1], pair[0]))


def check_host(count: HostCounts, config: HostsConfig) -> str | None:
    """Return the reason to drop a host, ``host_with_personal_data`` or ``host_with_sexual_content``, or None."""
    if count.pages < config.min_pages:
        return None
    if count.dirty_words_per_1000_words > config.max_dirty_words_per_1000_words:
        return "host_with_sexual_content"
    return "host_with_personal_data" if count.pii_per_1000_words > config.max_pii_per_1000_words else None
