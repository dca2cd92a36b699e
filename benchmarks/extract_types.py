"""Main-content extraction by type of page: herdlm's extractor beside trafilatura and resiliparse.

    python -m benchmarks.extract_types --data FOLDER [--cache FOLDER] [--held-out FILE.json] [--out benchmarks/results]

``FOLDER`` holds ``ground-truth/PAGE.json`` and ``html/PAGE.html``, the form of the Web Content eXtraction Benchmark.
Its measure: texts become bags of lower-case words (``\\w+``), and F1 is the mean over pages of each page's F1. A page
whose true text is empty counts 1 if nothing is extracted, else 0. Intervals are 1.96 bootstrap standard deviations.

herdlm's model is trained on these pages, so its texts must be held out: ``--held-out`` names the file that
``benchmarks.train_extract --held-out`` writes (page -> text extracted by a model that saw no page of its domain).
Without it the shipped model is measured, and the row is named as not held out. Pages that the file lacks are left out.
``--cache`` keeps the other extractors' texts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.versions import ABSENT, version

_WORD = re.compile(r"\w+")
KINDS = ("article", "documentation", "service", "forum", "collection", "listing", "product")
WORST = 0.3


@dataclass(frozen=True, slots=True)
class ReviewedPage:
    """A page, its true text, the snippets that must and must not appear in it, and its type."""

    name: str
    url: str
    html: str
    text: str
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Found:
    """A page's precision, recall, F1, and the shares of wanted and unwanted snippets in the extracted text."""

    kind: str
    precision: float
    recall: float
    f1: float
    wanted: float
    unwanted: float
    empty: bool


def read_reviewed(folder: Path) -> list[ReviewedPage]:
    """Read all pages of a folder, in order of their names."""
    pages = []
    for file in sorted((folder / "ground-truth").glob("*.json")):
        stored = json.loads(file.read_text())
        truth = stored["ground_truth"]
        html = (folder / "html" / f"{file.stem}.html").read_bytes().decode("utf-8", "replace")
        pages.append(
            ReviewedPage(
                file.stem,
                stored.get("url") or "",
                html,
                truth.get("main_content") or "",
                tuple(truth.get("with") or ()),
                tuple(truth.get("without") or ()),
                stored["_internal"]["page_type"]["primary"],
            )
        )
    return pages


def bag(text: str) -> Counter[str]:
    """Return the bag of lower-case words."""
    return Counter(_WORD.findall(text.lower()))


def word_f1(true: Counter[str], predicted: Counter[str]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of two bags of words."""
    all_true, all_predicted = true.total(), predicted.total()
    if not all_true or not all_predicted:
        same = float(all_true == all_predicted)
        return same, same, same
    common = (true & predicted).total()
    precision, recall = common / all_predicted, common / all_true
    return precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0


def judge(page: ReviewedPage, text: str) -> Found:
    """Compare an extracted text with a page's truth."""
    lower = text.lower()

    def share(snippets: Sequence[str]) -> float:
        return statistics.fmean(snippet.lower() in lower for snippet in snippets) if snippets else float("nan")

    precision, recall, f1 = word_f1(bag(page.text), bag(text))
    return Found(page.kind, precision, recall, f1, share(page.wanted), share(page.unwanted), not text.strip())


def figures(found: Sequence[Found], draws: int = 500) -> dict[str, Any]:
    """Return the means over pages, the interval of F1, and the share of worst cases (empty, or F1 below 0.3)."""
    draw = random.Random(0)
    values = [page.f1 for page in found]
    means = [statistics.fmean(draw.choices(values, k=len(values))) for _ in range(draws)]

    def mean(values: Iterable[float]) -> float:
        known = [value for value in values if not math.isnan(value)]
        return statistics.fmean(known) if known else float("nan")

    return {
        "pages": len(found),
        "f1": statistics.fmean(values),
        "interval": 1.96 * statistics.stdev(means),
        "precision": mean(page.precision for page in found),
        "recall": mean(page.recall for page in found),
        "wanted": mean(page.wanted for page in found),
        "unwanted": mean(page.unwanted for page in found),
        "worst": mean(float(page.empty or page.f1 < WORST) for page in found),
        "empty": sum(page.empty for page in found),
    }


def by_kind(pages: Sequence[ReviewedPage], texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the figures of all pages and of each type."""
    found = [judge(page, texts.get(page.name, "")) for page in pages]
    kinds = [kind for kind in KINDS if any(page.kind == kind for page in found)]
    table = {"all": figures(found)}
    return table | {kind: figures([page for page in found if page.kind == kind]) for kind in kinds}


def peers() -> tuple[dict[str, Callable[[str], str]], list[str]]:
    """Return the other extractors at hand, and the names of those that are not."""
    arms: dict[str, Callable[[str], str]] = {}
    missing = []
    try:
        import trafilatura

        arms["trafilatura"] = lambda html: trafilatura.extract(html) or ""
        arms["trafilatura_fast"] = lambda html: trafilatura.extract(html, fast=True, include_comments=False) or ""
    except ImportError:
        missing.append("trafilatura")
    try:
        from resiliparse.extract.html2text import extract_plain_text

        arms["resiliparse"] = lambda html: extract_plain_text(
            html, main_content=True, list_bullets=False, alt_texts=False
        )
    except ImportError:
        missing.append("resiliparse")
    return arms, missing


def texts_of(name: str, extract: Callable[[str], str], pages: Sequence[ReviewedPage], cache: Path | None) -> Any:
    """Return page -> text of an extractor, from the cache if it has them all."""
    file = cache / f"{name}-{version(name.split('_', maxsplit=1)[0])}.json" if cache else None
    if file and file.exists():
        texts = json.loads(file.read_text())
        if all(page.name in texts for page in pages):
            return texts
    texts = {}
    for page in pages:
        try:
            texts[page.name] = extract(page.html)
        except Exception:  # an extractor that raises on a page has no text for it
            texts[page.name] = ""
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(texts))
    return texts


def print_table(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Print F1 by type for each extractor, then the other figures."""
    kinds = list(next(iter(tables.values())))
    print(f"{'F1':<26}" + "".join(f"{kind[:13]:>14}" for kind in kinds))
    for name, table in tables.items():
        cells = [f"{table[kind]['f1']:.3f} ±{table[kind]['interval']:.3f}" for kind in kinds]
        print(f"{name:<26}" + "".join(f"{cell:>14}" for cell in cells))
    for key in ("precision", "recall", "wanted", "unwanted", "worst"):
        print(key)
        for name, table in tables.items():
            print(f"{name:<26}" + "".join(f"{table[kind][key]:>14.3f}" for kind in kinds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from herdlm.curate.steps.extract import main_text
    from herdlm.curate.steps.extract.parse import excessive

    pages = read_reviewed(options.data)
    arms, missing = peers()
    tables = {}
    if options.held_out:
        held = json.loads(options.held_out.read_text())
        pages = [page for page in pages if page.name in held]
        tables["herdlm, held out"] = by_kind(pages, held)
    else:
        texts = {page.name: "" if excessive(page.html) else main_text(page.html) for page in pages}
        tables["herdlm, not held out"] = by_kind(pages, texts)
    for name, extract in arms.items():
        tables[name] = by_kind(pages, texts_of(name, extract, pages, options.cache))
    print_table(tables)
    for name in missing:
        print(f"{name:<26} {ABSENT}: skipped")
    if options.out:
        names = ("selectolax", "resiliparse", "trafilatura", "lightgbm", "numpy")
        record = {
            "benchmark": "extract_types",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {name: version(name) for name in names},
            "tables": tables,
        }
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"extract-types-{datetime.now(UTC).date()}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main()
