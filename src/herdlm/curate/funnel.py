"""The funnel: how many documents and bytes each step took in, let through and dropped, and for which reasons."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

READ, EXTRACT, LANGUAGE = "read", "extract", "language"
HEURISTICS, EXACT, NEAR = "heuristics", "exact_duplicates", "near_duplicates"
STEPS = (READ, EXTRACT, LANGUAGE, HEURISTICS, EXACT, NEAR)


class Funnel:
    """Counts documents as they end: kept, or dropped by one step for one reason.

    A document has ``raw`` bytes (as read) up to extraction and ``text`` bytes (UTF-8) from there on.
    """

    def __init__(self) -> None:
        self.dropped: dict[str, Counter[str]] = {step: Counter() for step in STEPS}
        self.raw: dict[str, Counter[str]] = {step: Counter() for step in STEPS}
        self.text: dict[str, Counter[str]] = {step: Counter() for step in STEPS}
        self.kept = Counter(documents=0, raw=0, text=0, words=0)
        self.languages: dict[str, Counter[str]] = defaultdict(Counter)

    def drop(self, step: str, reason: str, raw: int, text: int) -> None:
        """Count a document that ``step`` dropped."""
        self.dropped[step][reason] += 1
        self.raw[step][reason] += raw
        self.text[step][reason] += text

    def keep(self, language: str, raw: int, text: int, words: int) -> None:
        """Count a document that all steps let through."""
        self.kept.update(documents=1, raw=raw, text=text, words=words)
        self.languages[language].update(documents=1, bytes=text, words=words)

    def as_dict(self, *, files: int, file_bytes: int) -> dict[str, Any]:
        """The funnel for ``funnel.json``.

        For every step ``documents_in = documents_out + documents_dropped`` and
        ``bytes_in = bytes_out + bytes_dropped``; extraction also has ``bytes_removed``, the markup and boilerplate of
        the pages it let through.
        """
        steps = [self._step(number, step) for number, step in enumerate(STEPS)]
        kept = {"documents": self.kept["documents"], "bytes": self.kept["text"], "words": self.kept["words"]}
        read = {"files": files, "file_bytes": file_bytes}
        read |= {"documents": steps[0]["documents_in"], "bytes": steps[0]["bytes_in"]}
        languages = {language: dict(self.languages[language]) for language in sorted(self.languages)}
        return {"input": read, "steps": steps, "output": kept, "languages": languages}

    def _step(self, number: int, step: str) -> dict[str, Any]:
        later = STEPS[number + 1 :]
        documents_out = self.kept["documents"] + sum(self.dropped[s].total() for s in later)
        raw_out = self.kept["raw"] + sum(self.raw[s].total() for s in later)
        text_out = self.kept["text"] + sum(self.text[s].total() for s in later)
        unit = self.raw if step in (READ, EXTRACT) else self.text
        dropped = {
            reason: {"documents": count, "bytes": unit[step][reason]}
            for reason, count in sorted(self.dropped[step].items(), key=lambda item: (-item[1], item[0]))
        }
        documents_dropped, bytes_dropped = self.dropped[step].total(), unit[step].total()
        bytes_out = raw_out if step == READ else text_out
        removed = {"bytes_removed": raw_out - text_out} if step == EXTRACT else {}
        return {
            "step": step,
            "documents_in": documents_out + documents_dropped,
            "documents_out": documents_out,
            "documents_dropped": documents_dropped,
            "bytes_in": bytes_out + bytes_dropped + removed.get("bytes_removed", 0),
            "bytes_out": bytes_out,
            "bytes_dropped": bytes_dropped,
            **removed,
            "dropped": dropped,
        }
