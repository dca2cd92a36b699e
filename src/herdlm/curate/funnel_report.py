"""Turns the counts of a funnel into ``funnel.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from herdlm.curate.funnel import FIELDS, Funnel, add_values

REPORTED_DOMAINS = 50  # per step and in all
# A rule of thumb for English under a vocabulary of 128 thousand. The true count is known once a tokenizer is trained.
TOKENS_PER_WORD = 1.3


def funnel_report(funnel: Funnel, steps: Sequence[str], *, files: int, file_bytes: int) -> dict[str, Any]:
    """Return the content of ``funnel.json``.

    For each step, ``documents_in = documents_out + documents_dropped`` and
    ``bytes_in = bytes_out + bytes_dropped + bytes_removed``, where the bytes removed are markup, boilerplate, and
    masked or repeated parts of pages that the step kept. Up to extraction, bytes are those read; from there on, those
    of the text. Tokens are estimated from words, so there are none before extraction.
    """
    rows = [_step(funnel, step) for step in steps]
    last = {
        language: values
        for (step, reason, language), values in funnel.languages.items()
        if step == steps[-1] and not reason
    }
    languages = {
        language: {"documents": of[0], "bytes": of[2], "words": of[4], "tokens_estimated": _tokens(of[4])}
        for language, of in sorted(last.items())
    }
    output = {
        name: sum(of[name] for of in languages.values()) for name in ("documents", "bytes", "words", "tokens_estimated")
    }
    read = {"files": files, "file_bytes": file_bytes}
    read |= {"documents": rows[0]["documents_in"], "bytes": rows[0]["bytes_in"]}
    domains = _domains(funnel, steps[0], steps[-1])
    return {"input": read, "steps": rows, "output": output, "languages": languages, "domains": domains}


def _step(funnel: Funnel, step: str) -> dict[str, Any]:
    """Return the row of a step."""
    total, passed = [0] * len(FIELDS), [0] * len(FIELDS)
    dropped: dict[str, list[int]] = {}
    languages: dict[str, dict[str, int]] = {}
    for (of, reason, language), values in funnel.languages.items():
        if of != step:
            continue
        add_values(total, values)
        add_values(dropped.setdefault(reason, [0] * len(FIELDS)) if reason else passed, values)
        counts = languages.setdefault(language, dict.fromkeys(("documents_in", "documents_out", "bytes_out"), 0))
        counts["documents_in"] += values[0]
        counts["documents_out"] += 0 if reason else values[0]
        counts["bytes_out"] += values[2]
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
        "domains": _domains(funnel, step, step),
    }


def _domains(funnel: Funnel, first: str, last: str) -> dict[str, dict[str, int]]:
    """Return the web domains with most documents before step ``first``, and their documents after step ``last``."""
    counts: dict[str, dict[str, int]] = {}
    for (step, reason, name), (documents, _) in funnel.domains.items():
        if step == first:
            counts.setdefault(name, {"documents_in": 0, "documents_out": 0})["documents_in"] += documents
        if step == last and not reason:
            counts.setdefault(name, {"documents_in": 0, "documents_out": 0})["documents_out"] += documents
    largest = sorted(counts.items(), key=lambda item: (-item[1]["documents_in"], item[0]))
    return dict(largest[:REPORTED_DOMAINS])


def _tokens(words: int) -> int:
    return round(words * TOKENS_PER_WORD)
