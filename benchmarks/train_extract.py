"""Trains the block model of herdlm's extractor and writes ``src/herdlm/curate/steps/extract/weights.json``.

    pip install lightgbm
    python -m benchmarks.train_extract --articles FOLDER [--documents FILE.warc.gz ...] [--write]

- ``--articles``: pages with hand-made article text, in the form ``benchmarks.extract`` reads. Figures are on these.
- ``--documents``: crawls of documentation. Of each generator below a few pages are drawn, and all text but what its
  navigation's selectors name is content: no one has to label a manual page by hand, and the model learns that headings,
  code and tables of definitions are content too.

Which blocks of an article are content is found by search: from the blocks most of whose shingles are in the true text,
blocks and containers are switched on and off as long as the page's F1 grows.

The second forest is trained on what the first says of pages that it has not seen. The cross-validation leaves out whole
families of sites (one publisher's sites use one template) and repeats everything else; its figures are printed for each
threshold. Without ``--write`` nothing is written. LightGBM is needed here only; the extractor reads the trees itself.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.extract import interval, rates, read_pages, score, shingles
from herdlm.curate.steps.extract.block_statistics import BlockStatistics, Bools, Floats, Ints, block_statistics
from herdlm.curate.steps.extract.blocks import Blocks, read_blocks
from herdlm.curate.steps.extract.features import context_features, features
from herdlm.curate.steps.extract.parse import parse
from herdlm.curate.steps.extract.rules import apply_rules
from herdlm.curate.steps.extract.select import choose

WEIGHTS = Path(__file__).parents[1] / "src/herdlm/curate/steps/extract/weights.json"
SETTINGS = dict(
    objective="binary",
    num_leaves=8,
    max_depth=5,
    learning_rate=0.06,
    min_data_in_leaf=20,
    lambda_l2=5,
    max_bin=63,
    min_sum_hessian_in_leaf=0.01,
    feature_fraction=0.15,
    bagging_fraction=0.7,
    bagging_freq=1,
    extra_trees=True,
    force_col_wise=True,
    deterministic=True,
    seed=1,
    num_threads=1,
    verbose=-1,
)
ROUNDS = (200, 100)
FOLDS, INNER_FOLDS = 5, 3
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
DOCUMENT_WEIGHT = 0.5
MAX_BLOCKS = 1500
PAGES_PER_GENERATOR = 7
# Sites of one publisher that share a template.
FAMILIES = {
    "ctpost": "hearst",
    "sfgate": "hearst",
    "chron": "hearst",
    "timesunion": "hearst",
    "mysanantonio": "hearst",
    "space": "future",
    "livescience": "future",
}
# What is not content, by the first part of a documentation page's host name.
NAVIGATION = {
    "apache2": "#page-header, #path, .toplang, .bottomlang, #quickview, .top, #footer, .up",
    "sqlite3": ".nosearch, .menu, .searchmenu, #menu_mobile, .rightsidebar, #searchmenu, .fancy_toc, .toct, .hlist",
    "python-django": "#hd, .nav, #sidebar, #ft, .contents.topic, #docs-nav",
    "python3": ".related, .sphinxsidebar, .footer, .mobile-nav, #searchbox, .menu-wrapper, .topnav",
    "nodejs": "#column2, #toc, .toc, header, .picker-header, #gtoc",
    "debian-policy": ".related, .sphinxsidebar, .footer, .rst-footer-buttons, footer, .navheader, .navfooter, "
    ".toc, .navigation",
    "debian-faq": ".navheader, .navfooter, .toc",
    "bash": ".header, .nav-panel, .contents, .Contents_element, .mini-toc",
    "debian-handbook": ".docnav, #title, .toc, #navigation, nav",
    "installation": ".navheader, .navfooter, .toc",
}


@dataclass(slots=True)
class Page:
    """A page to learn from: its blocks, those that rules leave and their rows, which are content, what it counts."""

    blocks: Blocks
    stats: BlockStatistics
    left: Ints
    rows: Floats
    content: Bools
    counts: float
    family: str

    def weights(self) -> np.ndarray:
        """Blocks count by their words and borders relative to the page's content, as they do in the measure."""
        words = np.array(self.blocks.words, np.float64)
        return self.counts * (np.minimum((words + 4) / max(float(words[self.content].sum()), 30), 0.15) + 0.01)


def make_page(html: str, true_text: str | None, kept_html: str, counts: float, family: str) -> Page | None:
    """A page labeled by its true text, or where that is None by the blocks that ``kept_html`` still has."""
    source = parse(html)
    blocks = read_blocks(source.html)
    if not blocks.text or len(blocks.text) > MAX_BLOCKS:
        return None
    content = (
        find_content(blocks, true_text)
        if true_text is not None
        else in_order(blocks, read_blocks(parse(kept_html).html))
    )
    stats = block_statistics(blocks, [source.title], [source.description])
    left = np.flatnonzero(~apply_rules(blocks, stats))
    return Page(blocks, stats, left, features(blocks, stats, left), content, counts, family)


def in_order(blocks: Blocks, kept: Blocks) -> Bools:
    """Which blocks are also in ``kept``, taken in order."""
    found, at = np.zeros(len(blocks.text), bool), 0
    for number, text in enumerate(blocks.text):
        if at < len(kept.text) and text == kept.text[at]:
            found[number] = True
            at += 1
    return found


def find_content(page: Blocks, true_text: str, rounds: int = 3) -> Bools:
    """The blocks whose text together comes closest to ``true_text`` by F1 of shingles, found by switching."""
    true = shingles(true_text)
    true_words = {word for shingle in true for word in shingle}
    own = [shingles(text) for text in page.text]
    picked = np.array([bool(bag) and sum(key in true for key in bag) > 0.5 * len(bag) for bag in own])

    def f1() -> float:
        right, wrong, missed = rates(true, shingles("\n".join(t for t, p in zip(page.text, picked, strict=True) if p)))
        return 2 * right / max(2 * right + wrong + missed, 1)

    def plausible(bags: Iterable[Any]) -> bool:
        words = [word for bag in bags for key in bag for word in key]
        return bool(words) and sum(word in true_words for word in words) >= 0.7 * len(words)

    best = f1()
    spans = sorted({(a, b) for a, b in zip(page.first, page.last, strict=True) if 2 <= b - a <= 400})
    for _ in range(rounds):
        before = best
        for low, high in [*((at, at + 1) for at in range(len(own))), *spans]:
            if picked[low:high].all() if high - low > 1 else (picked[low] and page.words[low] > 60):
                continue
            if not picked[low:high].all() and not plausible(own[low:high]):
                continue
            old = picked[low:high].copy()
            picked[low:high] = ~old if high - low == 1 else True
            new = f1()
            if new > best + 1e-9:
                best = new
            else:
                picked[low:high] = old
        if best == before:
            break
    return picked


def read_documents(files: Sequence[Path]) -> list[Page]:
    """A few pages of each documentation generator."""
    from fastwarc.warc import ArchiveIterator
    from selectolax.lexbor import LexborHTMLParser

    found: dict[str, list[tuple[str, bytes]]] = {generator: [] for generator in NAVIGATION}
    for file in files:
        with file.open("rb") as stream:
            for record in ArchiveIterator(stream, parse_http=True):
                host = urlsplit(record.headers.get("WARC-Target-URI") or "").hostname or ""
                for generator in NAVIGATION:
                    if host.startswith(generator):
                        found[generator].append((host, record.reader.read()))
    pages = []
    draw = random.Random(3)
    for generator, records in sorted(found.items()):
        for host, payload in draw.sample(records, min(len(records), PAGES_PER_GENERATOR)):
            html = payload.decode("utf-8", "replace")
            tree = LexborHTMLParser(html)
            for node in tree.css(NAVIGATION[generator]):
                node.decompose()
            if page := make_page(html, None, tree.html or "", DOCUMENT_WEIGHT, host):
                pages.append(page)
    return pages


def site_family(url: str) -> str:
    parts = (urlsplit(url).hostname or url).split(".")
    name = parts[-3] if len(parts) > 2 and parts[-2] in ("com", "co") else parts[-2] if len(parts) > 1 else parts[0]
    return FAMILIES.get(name, name)


def split(pages: Sequence[Page], folds: int, seed: int) -> list[list[Page]]:
    """Pages in ``folds`` parts, each family in one."""
    families = sorted({page.family for page in pages})
    random.Random(seed).shuffle(families)
    fold = {family: number % folds for number, family in enumerate(families)}
    return [[page for page in pages if fold[page.family] == number] for number in range(folds)]


def fit(pages: Sequence[Page], rows: Sequence[Floats], rounds: int) -> Any:
    """A forest; blocks that rules exclude are not learned from."""
    import lightgbm

    data = lightgbm.Dataset(
        np.vstack(rows),
        np.concatenate([page.content[page.left] for page in pages]).astype(float),
        weight=np.concatenate([page.weights()[page.left] for page in pages]),
    )
    return lightgbm.train(SETTINGS, data, rounds)


def chance_by(forest: Any, page: Page, rows: Floats) -> Floats:
    """A forest's chance of each block, 0 for those that rules exclude."""
    chance = np.zeros(len(page.blocks.text), np.float32)
    chance[page.left] = forest.predict(rows)
    return chance


def train(pages: Sequence[Page]) -> tuple[Any, Any]:
    """Both forests."""
    seen_by_none: dict[int, Floats] = {}
    for part in split(pages, INNER_FOLDS, 7):
        held = {id(page) for page in part}
        rest = [page for page in pages if id(page) not in held]
        forest = fit(rest, [page.rows for page in rest], ROUNDS[0])
        seen_by_none |= {id(page): chance_by(forest, page, page.rows) for page in part}
    first = fit(pages, [page.rows for page in pages], ROUNDS[0])
    contexts = [context_features(page.stats, page.left, page.rows, seen_by_none[id(page)]) for page in pages]
    return first, fit(pages, contexts, ROUNDS[1])


def chances(forests: tuple[Any, Any], page: Page) -> Floats:
    first = chance_by(forests[0], page, page.rows)
    return chance_by(forests[1], page, context_features(page.stats, page.left, page.rows, first))


def predicted_text(page: Page, chance: Floats, threshold: float) -> str:
    (kept,) = choose(page.blocks, page.stats, page.left, chance, threshold)
    return "\n".join(page.blocks.text[block] for block in kept)


def export(forest: Any) -> dict[str, Any]:
    """Trees as nested lists ``[feature, threshold, low, high]``, leaves as numbers."""

    def node(tree: dict[str, Any]) -> Any:
        if "leaf_value" in tree:
            return float(f"{tree['leaf_value']:.4g}")
        assert tree["decision_type"] == "<="
        threshold = float(np.float32(tree["threshold"]))
        return [tree["split_feature"], float(f"{threshold:.7g}"), node(tree["left_child"]), node(tree["right_child"])]

    return {"bias": 0.0, "trees": [node(tree["tree_structure"]) for tree in forest.dump_model()["tree_info"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--documents", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--threshold", type=float, default=0.45)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    articles, true = [], []
    for url, html, body in read_pages(options.articles).values():
        if page := make_page(html, body, "", 1.0, site_family(url)):
            articles.append(page)
            true.append(shingles(body))
    others = read_documents(options.documents)
    print(f"{len(articles)} articles, {len(others)} other pages, {articles[0].rows.shape[1]} features")
    validated = {}
    for seed in options.seeds:
        held: dict[int, Floats] = {}
        for part in split(articles, FOLDS, seed):
            numbers = {id(page) for page in part}
            forests = train([page for page in articles if id(page) not in numbers] + others)
            held |= {id(page): chances(forests, page) for page in part}
        for threshold in THRESHOLDS:
            found = [
                rates(t, shingles(predicted_text(page, held[id(page)], threshold)))
                for t, page in zip(true, articles, strict=True)
            ]
            f1, precision, recall = score(found)
            validated[f"seed {seed}, threshold {threshold}"] = round(f1, 4)
            print(
                f"seed {seed} threshold {threshold:.2f}: F1 {f1:.4f} ± {interval(found):.4f}  P {precision:.4f}  "
                f"R {recall:.4f}",
                flush=True,
            )
    if options.write:
        first, second = train(articles + others)
        stored = {
            "made": datetime.now(UTC).date().isoformat(),
            "by": "benchmarks/train_extract.py",
            "pages": {"articles": len(articles), "others": len(others)},
            "cross_validated_f1": validated,
            "threshold": options.threshold,
            "first": export(first),
            "second": export(second),
        }
        WEIGHTS.write_text(json.dumps(stored, separators=(",", ":")) + "\n")
        print(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
