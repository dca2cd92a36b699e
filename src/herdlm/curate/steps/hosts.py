"""Hosts that carry much personal data or sexual content: found by counts over all their pages, dropped as a whole.

Counts are of pages that came as far as the rules for single pages; counts of shards add up (Llama 3, arXiv 2407.21783,
section 3.1.1: domains are ranked by their content and the worst are left out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from herdlm.curate.config import HostsConfig


@dataclass(frozen=True, slots=True)
class HostCounts:
    """What a host's pages hold: pages, words, pieces of personal data of any kind, dirty words."""

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
    """The sums of two shards' counts."""
    return {host: one.get(host, HostCounts()) + other.get(host, HostCounts()) for host in sorted({*one, *other})}


def rank_hosts(counts: Mapping[str, HostCounts], config: HostsConfig) -> list[tuple[str, float]]:
    """All hosts with how near they are to being dropped, worst first, equals by name.

    The figure is the larger of the two densities, each over its threshold; above 1 a host of enough pages is dropped.
    """

    def excess(count: HostCounts) -> float:
        return max(
            count.pii_per_1000_words / config.max_pii_per_1000_words,
            count.dirty_words_per_1000_words / config.max_dirty_words_per_1000_words,
        )

    return sorted(((host, excess(count)) for host, count in counts.items()), key=lambda pair: (-pair[1], pair[0]))


def check_host(count: HostCounts, config: HostsConfig) -> str | None:
    """None to keep a host's pages, or why not: host_with_personal_data, host_with_sexual_content."""
    if count.pages < config.min_pages:
        return None
    if count.dirty_words_per_1000_words > config.max_dirty_words_per_1000_words:
        return "host_with_sexual_content"
    return "host_with_personal_data" if count.pii_per_1000_words > config.max_pii_per_1000_words else None
