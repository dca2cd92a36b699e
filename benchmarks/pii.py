"""Precision and recall of masking personal data on the labeled set of ``pii_set.py``, beside presidio.

    python benchmarks/pii.py --seed 2 [--out benchmarks/results]

A span counts as found if it is masked with its kind, and nothing outside of it is (but for white space). presidio has
its recognizers by pattern (no model of names, which herdlm does not mask either), at its default threshold.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pii_set import make
from versions import ABSENT, version

from herdlm.curate.steps.pii.spans import PLACEHOLDERS
from herdlm.curate.steps.pii.step import PiiConfig, mask_pii

KINDS = tuple(PLACEHOLDERS)
PRESIDIO = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "IP_ADDRESS": "ip", "CREDIT_CARD": "card", "IBAN_CODE": "iban",
}  # fmt: skip
Find = Callable[[str], list[tuple[str, str]]]  # text -> (kind, what was masked)
_PLACEHOLDER = re.compile("|".join(re.escape(each) for each in PLACEHOLDERS.values()))


def herdlm(text: str) -> list[tuple[str, str]]:
    """What herdlm masks: the pieces between what it left, in order."""
    masked, _, _ = mask_pii(text, PiiConfig())
    left = map(re.escape, _PLACEHOLDER.split(masked))
    match = re.fullmatch("(.+?)".join(left), text)
    assert match is not None, masked
    kinds = [placeholder.strip("[]").lower() for placeholder in _PLACEHOLDER.findall(masked)]
    return list(zip(kinds, match.groups(), strict=True))


def presidio() -> Find | None:
    """presidio's recognizers by pattern, or None if it is not installed."""
    if version("presidio-analyzer") == ABSENT:
        return None
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
    )

    recognizers = [
        EmailRecognizer(), CreditCardRecognizer(), IbanRecognizer(), IpRecognizer(), PhoneRecognizer(),
    ]  # fmt: skip

    def find(text: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        results = [result for each in recognizers for result in each.analyze(text, list(PRESIDIO), None) or ()]
        taken: list[tuple[int, int]] = []
        for result in sorted(results, key=lambda result: (-result.score, result.start)):
            if all(result.end <= start or result.start >= end for start, end in taken):
                taken.append((result.start, result.end))
                found.append((PRESIDIO[result.entity_type], text[result.start : result.end]))
        return found

    return find


def measure(rows: list[dict[str, Any]], find: Find) -> dict[str, Any]:
    """Precision and recall by kind, and the lookalikes that were masked."""
    wanted, given, right = Counter[str](), Counter[str](), Counter[str]()
    wrong: list[str] = []
    languages = {row["language"]: Counter[str]() for row in rows}
    for row in rows:
        expected = [(kind, row["text"][start:end]) for start, end, kind in row["spans"]]
        found = [(kind, piece.strip()) for kind, piece in find(row["text"])]
        wanted.update(kind for kind, _ in expected)
        given.update(kind for kind, _ in found)
        hits = [each for each in expected if each in found]
        right.update(kind for kind, _ in hits)
        languages[row["language"]].update(wanted=len(expected), right=len(hits))
        wrong += [f"{kind}: {piece}" for kind, piece in found if (kind, piece) not in expected]
    return {
        "precision": {kind: round(right[kind] / given[kind], 4) if given[kind] else None for kind in KINDS},
        "recall": {kind: round(right[kind] / wanted[kind], 4) for kind in KINDS if wanted[kind]},
        "all": {
            "precision": round(right.total() / max(given.total(), 1), 4),
            "recall": round(right.total() / wanted.total(), 4),
        },
        "recall by language": {name: round(of["right"] / of["wanted"], 4) for name, of in sorted(languages.items())},
        "wrong, the first": wrong[:20],
    }


def main() -> None:
    """Measure and print one JSON report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = make(options.seed)
    other = presidio()
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "seed": options.seed,
        "texts": len(rows),
        "spans": sum(len(row["spans"]) for row in rows),
        "languages": len({row["language"] for row in rows}),
        "herdlm": measure(rows, herdlm),
        "presidio": measure(rows, other) if other else f"{ABSENT}: skipped",
        "presidio version": version("presidio-analyzer"),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    print(text)
    if options.out:
        (options.out / f"pii-{report['date']}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
