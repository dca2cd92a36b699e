"""The funnel: what each step took in, let through and dropped, in documents, bytes and words; why, and of what.

Counts are made per shard and added up, so they are exact for steps, reasons and languages however large the crawl is.
Domains are far more; of a shard only the ``SHARD_DOMAINS`` with most documents are told apart, of the whole
``ALL_DOMAINS``, and the rest is counted together as ``OTHERS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from herdlm.curate.batch import Batch

SHARD_DOMAINS = 2_000
ALL_DOMAINS = 20_000
TOLD_DOMAINS = 50  # in funnel.json, per step and in all
OTHERS = "(others)"
UNKNOWN = "unknown"  # the language of pages dropped before it was found out
# A rule of thumb for English under a vocabulary of 128 thousand; the true count is known once a tokenizer is trained.
TOKENS_PER_WORD = 1.3
FIELDS = ("documents", "bytes_in", "bytes_out", "words_in", "words_out")

Key = tuple[str, str, str]  # step; reason, or "" for those let through; language or domain


class Funnel:
    """Counts of pages as they go through steps."""

    def __init__(self) -> None:
        self.languages: dict[Key, list[int]] = {}  # each FIELDS
        self.domains: dict[Key, list[int]] = {}  # reason "dropped" for all reasons; each documents, bytes_in

    def count(self, step: str, batch: Batch, at: Sequence[int], reasons: Sequence[str | None], before: Batch) -> None:
        """Count the pages ``at`` after a step judged them; ``before`` has their bytes and words from before."""
        for i, reason, bytes_in, words_in in zip(at, reasons, before["bytes"], before["words"], strict=True):
            passed = reason is None
            bytes_out, words_out = (batch["bytes"][i], batch["words"][i]) if passed else (0, 0)
            language = batch["language"][i] or UNKNOWN
            _add(self.languages, (step, reason or "", language), (1, bytes_in, bytes_out, words_in, words_out))
            _add(self.domains, (step, "" if passed else "dropped", host_of(batch["url"][i])), (1, bytes_in))

    def add(self, counts: dict[str, Any]) -> None:
        """Add what :meth:`as_json` of another funnel gave."""
        for name in ("languages", "domains"):
            mine = getattr(self, name)
            for *key, values in counts[name]:
                _add(mine, tuple(key), values)
        self.domains = _largest(self.domains, ALL_DOMAINS)

    def as_json(self) -> dict[str, Any]:
        """The counts as JSON can carry them, in an order that depends on them alone."""
        domains = _largest(self.domains, SHARD_DOMAINS)
        return {
            "languages": [[*key, values] for key, values in sorted(self.languages.items())],
            "domains": [[*key, values] for key, values in sorted(domains.items())],
        }

    def as_dict(self, steps: Sequence[str], *, files: int, file_bytes: int) -> dict[str, Any]:
        """The funnel for ``funnel.json``.

        For every step ``documents_in = documents_out + documents_dropped`` and
        ``bytes_in = bytes_out + bytes_dropped + bytes_removed``, where bytes removed are markup, boilerplate and masked
        or repeated parts of pages it let through. Up to extraction bytes are those read, from there on of text; tokens
        are estimated from words, so there are none before extraction.
        """
        told = [self._step(step) for step in steps]
        last = {
            language: values
            for (step, reason, language), values in self.languages.items()
            if step == steps[-1] and not reason
        }
        languages = {
            language: {"documents": of[0], "bytes": of[2], "words": of[4], "tokens_estimated": _tokens(of[4])}
            for language, of in sorted(last.items())
        }
        output = {
            name: sum(of[name] for of in languages.values())
            for name in ("documents", "bytes", "words", "tokens_estimated")
        }
        read = {"files": files, "file_bytes": file_bytes}
        read |= {"documents": told[0]["documents_in"], "bytes": told[0]["bytes_in"]}
        domains = self._domains(steps[0], steps[-1])
        return {"input": read, "steps": told, "output": output, "languages": languages, "domains": domains}

    def _step(self, step: str) -> dict[str, Any]:
        total, passed = [0] * len(FIELDS), [0] * len(FIELDS)
        dropped: dict[str, list[int]] = {}
        languages: dict[str, dict[str, int]] = {}
        for (of, reason, language), values in self.languages.items():
            if of != step:
                continue
            _sum(total, values)
            _sum(dropped.setdefault(reason, [0] * len(FIELDS)) if reason else passed, values)
            told = languages.setdefault(language, dict.fromkeys(("documents_in", "documents_out", "bytes_out"), 0))
            told["documents_in"] += values[0]
            told["documents_out"] += 0 if reason else values[0]
            told["bytes_out"] += values[2]
        bytes_dropped = sum(of[1] for of in dropped.values())
        return {
            "step": step,
            "documents_in": total[0],
            "documents_out": passed[0],
            "documents_dropped": total[0] - passed[0],
            "bytes_in": total[1],
            "bytes_out": passed[2],
            "bytes_dropped": bytes_dropped,
            "bytes_removed": total[1] - passed[2] - bytes_dropped,
            "tokens_estimated_in": _tokens(total[3]) if total[3] else None,
            "tokens_estimated_out": _tokens(passed[4]) if passed[4] else None,
            "dropped": {
                reason: {"documents": of[0], "bytes": of[1], "tokens_estimated": _tokens(of[3]) if of[3] else None}
                for reason, of in sorted(dropped.items(), key=lambda item: (-item[1][0], item[0]))
            },
            "languages": dict(sorted(languages.items(), key=lambda item: (-item[1]["documents_in"], item[0]))),
            "domains": self._domains(step, step),
        }

    def _domains(self, first: str, last: str) -> dict[str, dict[str, int]]:
        """The domains with most documents before step ``first``, and what of them is left after step ``last``."""
        told: dict[str, dict[str, int]] = {}
        for (step, reason, name), (documents, _) in self.domains.items():
            if step == first:
                told.setdefault(name, {"documents_in": 0, "documents_out": 0})["documents_in"] += documents
            if step == last and not reason:
                told.setdefault(name, {"documents_in": 0, "documents_out": 0})["documents_out"] += documents
        largest = sorted(told.items(), key=lambda item: (-item[1]["documents_in"], item[0]))
        return dict(largest[:TOLD_DOMAINS])


def host_of(url: str) -> str:
    """The host of an address in lower case, without ``www.``; "" where there is none."""
    _, scheme, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2].partition(":")[0].lower() if scheme else ""
    return host.removeprefix("www.")


def _add(counts: dict[Key, list[int]], key: Any, values: Sequence[int]) -> None:
    if (held := counts.get(key)) is None:
        counts[key] = list(values)
    else:
        _sum(held, values)


def _sum(held: list[int], values: Sequence[int]) -> None:
    for i, value in enumerate(values):
        held[i] += value


def _largest(domains: dict[Key, list[int]], count: int) -> dict[Key, list[int]]:
    """The counts with all but the ``count`` domains of most documents taken together."""
    sizes: dict[str, int] = {}
    for (_, _, name), values in domains.items():
        sizes[name] = max(sizes.get(name, 0), values[0])
    if len(sizes) <= count:
        return domains
    sizes.pop(OTHERS, None)
    told = set(sorted(sizes, key=lambda name: (-sizes[name], name))[: count - 1])
    taken: dict[Key, list[int]] = {}
    for (step, reason, name), values in domains.items():
        _add(taken, (step, reason, name if name in told else OTHERS), values)
    return taken


def _tokens(words: int) -> int:
    return round(words * TOKENS_PER_WORD)
