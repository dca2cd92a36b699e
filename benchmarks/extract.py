"""Main-content extraction: herdlm's extractor beside trafilatura, resiliparse and readability, in one run.

    python -m benchmarks.extract --data FOLDER [--rounds 3] [--out benchmarks/results]

``FOLDER`` holds ``ground-truth.json`` (page -> ``articleBody``) and ``html/PAGE.html.gz``, the form of the public
article-extraction-benchmark. Its measure: texts become bags of four words in a row (all words, where there are fewer);
each page's true and false positives and false negatives give a precision and a recall; F1 is the harmonic mean of the
two means over pages. Intervals are 1.96 bootstrap standard deviations.

Arms that are not installed are left out and named. All arms get the same decoded strings and take all pages in turn,
round by round, timed in CPU time of this process; the fastest round counts. An arm that raises gives an empty text,
which is counted. ``pip install trafilatura readability-lxml`` for the whole table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.versions import ABSENT, version

_WORD = re.compile(r"\w+")
SHINGLE = 4
Rates = tuple[int, int, int]  # true positives, false positives, false negatives


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """The bag of runs of four words; of all words of a text that has fewer; nothing for a text without words."""
    words = _WORD.findall(text)
    runs = [tuple(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))]
    return Counter(run for run in runs if run)


def rates(true: Counter[tuple[str, ...]], predicted: Counter[tuple[str, ...]]) -> Rates:
    """Counts of shingles in both, in ``predicted`` alone, in ``true`` alone."""
    common = sum((true & predicted).values())
    return common, sum(predicted.values()) - common, sum(true.values()) - common


def score(pages: Sequence[Rates]) -> tuple[float, float, float]:
    """F1, precision and recall over pages. A page without prediction has no precision and recall 0."""
    precision = statistics.fmean(right / (right + wrong) for right, wrong, _ in pages if right + wrong)
    recall = statistics.fmean(right / (right + missed) for right, _, missed in pages if right + missed)
    return 2 * precision * recall / (precision + recall), precision, recall


def interval(pages: Sequence[Rates], draws: int = 500) -> float:
    """1.96 standard deviations of F1 over bootstrap samples of the pages."""
    draw = random.Random(0)
    return 1.96 * statistics.stdev(score(draw.choices(pages, k=len(pages)))[0] for _ in range(draws))


def read_pages(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Page -> address, HTML and true text."""
    truth = json.loads((folder / "ground-truth.json").read_text())
    return {
        page: (
            entry.get("url", page),
            gzip.decompress((folder / "html" / f"{page}.html.gz").read_bytes()).decode("utf-8", "replace"),
            entry["articleBody"],
        )
        for page, entry in sorted(truth.items())
    }


def make_arms() -> tuple[dict[str, Callable[[str], str]], list[str]]:
    """The arms at hand, and those that are not."""
    from herdlm.curate.steps.extract import main_text
    from herdlm.curate.steps.extract.parse import excessive

    arms: dict[str, Callable[[str], str]] = {"herdlm": lambda html: "" if excessive(html) else main_text(html)}
    missing = []
    try:
        import trafilatura

        settings: dict[str, dict[str, bool]] = {
            "default": {},
            "fast": {"fast": True},
            "precision": {"favor_precision": True},
            "fast, no comments": {"fast": True, "include_comments": False},
        }
        for name, options in settings.items():
            arms[f"trafilatura {name}"] = lambda html, options=options: trafilatura.extract(html, **options) or ""
    except ImportError:
        missing.append("trafilatura")
    try:
        from resiliparse.extract.html2text import extract_plain_text

        arms["resiliparse main content"] = lambda html: extract_plain_text(
            html, main_content=True, list_bullets=False, alt_texts=False
        )
    except ImportError:
        missing.append("resiliparse")
    try:
        import readability
        from lxml.html import fromstring

        arms["readability-lxml"] = lambda html: fromstring(readability.Document(html).summary()).text_content()
    except ImportError:
        missing.append("readability-lxml")
    return arms, missing


def measure(pages: dict[str, tuple[str, str, str]], rounds: int) -> tuple[list[dict[str, Any]], list[str]]:
    """A row of figures for each arm, and the arms that are missing."""
    arms, missing = make_arms()
    fastest = dict.fromkeys(arms, float("inf"))
    texts: dict[str, list[str]] = {}
    for _ in range(rounds):
        for arm, extract in arms.items():
            texts[arm] = []
            start = time.process_time()
            for _, html, _ in pages.values():
                try:
                    texts[arm].append(extract(html))
                except Exception:  # an arm that raises on a page has no text for it
                    texts[arm].append("")
            fastest[arm] = min(fastest[arm], time.process_time() - start)
    true = [shingles(body) for _, _, body in pages.values()]
    table = []
    for arm in arms:
        found = [rates(expected, shingles(text)) for expected, text in zip(true, texts[arm], strict=True)]
        f1, precision, recall = score(found)
        poor = sum(2 * right < 0.7 * (2 * right + wrong + missed) for right, wrong, missed in found)
        table.append(
            {
                "arm": arm,
                "f1": f1,
                "interval": interval(found),
                "precision": precision,
                "recall": recall,
                "pages_below_0.7": poor,
                "empty": sum(not text.strip() for text in texts[arm]),
                "pages_per_cpu_second": len(pages) / fastest[arm],
            }
        )
    return table, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pages = read_pages(options.data)
    table, missing = measure(pages, options.rounds)
    print(f"{len(pages)} pages, {sum(len(html) for _, html, _ in pages.values()) / len(pages) / 1e3:.0f} kB each")
    print(f"{'arm':<30} {'F1':>6} {'±':>6} {'P':>6} {'R':>6} {'<0.7':>5} {'empty':>5} {'pages/CPU-s':>12}")
    for row in table:
        print(
            f"{row['arm']:<30} {row['f1']:6.3f} {row['interval']:6.3f} {row['precision']:6.3f} {row['recall']:6.3f} "
            f"{row['pages_below_0.7']:5d} {row['empty']:5d} {row['pages_per_cpu_second']:12.0f}"
        )
    for arm in missing:
        print(f"{arm:<30} {ABSENT}: skipped")
    if options.out:
        names = ("selectolax", "resiliparse", "trafilatura", "readability-lxml", "lxml", "numpy")
        versions = {name: version(name) for name in names}
        record = {
            "benchmark": "extract",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "versions": versions,
            "pages": len(pages),
            "rounds": options.rounds,
            "table": table,
        }
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"extract-cpu-{datetime.now(UTC).date()}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main()
