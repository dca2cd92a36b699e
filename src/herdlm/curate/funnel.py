"""The funnel: documents, bytes and words that each step took in, kept and dropped, by reason, language and web domain.

Each shard is counted on its own, and the counts are added up. They are exact for steps, reasons and languages. There
are far more web domains, so only the ``SHARD_DOMAINS`` of a shard and the ``ALL_DOMAINS`` of the crawl with most
documents are counted by name, and the rest as ``OTHERS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from herdlm.curate.batch import Batch

SHARD_DOMAINS = 2_000
ALL_DOMAINS = 20_000
OTHERS = "(others)"
UNKNOWN = "unknown"  # the language of pages dropped before it was identified
FIELDS = ("documents", "bytes_in", "bytes_out", "words_in", "words_out")

Key = tuple[str, str, str]  # step; reason, or "" for pages kept; language or web domain


class Funnel:
    """Counts of pages as they go through steps."""

    def __init__(self) -> None:
        self.languages: dict[Key, list[int]] = {}  # each FIELDS
        self.domains: dict[Key, list[int]] = {}  # reason "dropped" for all reasons; each documents, bytes_in

    def count(self, step: str, batch: Batch, at: Sequence[int], reasons: Sequence[str | None], before: Batch) -> None:
        """Count the pages ``at`` after a step judged them. ``before`` holds their earlier bytes and words."""
        for i, reason, bytes_in, words_in in zip(at, reasons, before["bytes"], before["words"], strict=True):
            passed = reason is None
            bytes_out, words_out = (batch["bytes"][i], batch["words"][i]) if passed else (0, 0)
            language = batch["language"][i] or UNKNOWN
            _add(self.languages, (step, reason or "", language), (1, bytes_in, bytes_out, words_in, words_out))
            _add(self.domains, (step, "" if passed else "dropped", host_of(batch["url"][i])), (1, bytes_in))

    def add(self, counts: dict[str, Any]) -> None:
        """Add what :meth:`as_json` of another funnel returned."""
        for name in ("languages", "domains"):
            mine = getattr(self, name)
            for *key, values in counts[name]:
                _add(mine, tuple(key), values)
        self.domains = _largest(self.domains, ALL_DOMAINS)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON-serializable values, in an order that depends on them alone."""
        domains = _largest(self.domains, SHARD_DOMAINS)
        return {
            "languages": [[*key, values] for key, values in sorted(self.languages.items())],
            "domains": [[*key, values] for key, values in sorted(domains.items())],
        }


def host_of(url: str) -> str:
    """Return the host of an address in lower case without ``www.``, or "" if it has none."""
    _, scheme, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2].partition(":")[0].lower() if scheme else ""
    return host.removeprefix("www.")


def _add(counts: dict[Key, list[int]], key: Any, values: Sequence[int]) -> None:
    if (held := counts.get(key)) is None:
        counts[key] = list(values)
    else:
        add_values(held, values)


def add_values(held: list[int], values: Sequence[int]) -> None:
    """Add ``values`` to ``held``, place by place."""
    for i, value in enumerate(values):
        held[i] += value


def _largest(domains: dict[Key, list[int]], count: int) -> dict[Key, list[int]]:
    """Return the counts with all but the ``count`` web domains with most documents merged."""
    sizes: dict[str, int] = {}
    for (_, _, name), values in domains.items():
        sizes[name] = max(sizes.get(name, 0), values[0])
    if len(sizes) <= count:
        return domains
    sizes.pop(OTHERS, None)
    named = set(sorted(sizes, key=lambda name: (-sizes[name], name))[: count - 1])
    merged: dict[Key, list[int]] = {}
    for (step, reason, name), values in domains.items():
        _add(merged, (step, reason, name if name in named else OTHERS), values)
    return merged
