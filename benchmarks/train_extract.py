"""Trains the models of herdlm's extractor and writes ``src/herdlm/curate/steps/extract/weights.json``.

    pip install lightgbm
    python -m benchmarks.train_extract --reviewed FOLDER --articles FOLDER [--documents FILE.warc.gz ...]
        [--held-out FILE.json] [--folds 4] [--write]

- ``--reviewed``: pages of seven types with reviewed text, in the form ``benchmarks.extract_types`` reads.
- ``--articles``: pages with hand-made article text, in the form ``benchmarks.extract`` reads.
- ``--documents``: crawls of documentation. Of each generator a few pages are drawn, and all text but what its
  navigation's selectors name is content (``benchmarks.documentation``).

A page's kind is learned first, from the page as a whole. Which of its blocks are content is found by search: from
the blocks most of whose runs of four words are in the true text, blocks and containers are switched as long as the
page's F1 of words grows. The second forest is trained on what the first says of pages it has not seen, and both
on what the models of kinds say of pages they have not seen.

``--held-out`` cross-validates: folds leave out whole domains and families of sites, all of the above is repeated
without them, and their texts are extracted by the extractor with the fold's models, and written as page -> text, for
``benchmarks.extract_types --held-out``; the articles' figures are printed. With ``--folds 1`` only the first of the
folds is held out, and with ``--write`` the shipped model is then the one that has not seen it, so that its figures are
held out and the model is trained once. LightGBM is needed here only.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.content_blocks import find_content
from benchmarks.documentation import read_documents
from benchmarks.extract import interval, rates, read_pages, score, shingles
from benchmarks.extract_types import read_reviewed
from herdlm.curate.steps.extract import main_texts
from herdlm.curate.steps.extract.block_statistics import BlockStatistics, Bools, Floats, Ints, block_statistics
from herdlm.curate.steps.extract.context_features import context_features
from herdlm.curate.steps.extract.features import features
from herdlm.curate.steps.extract.model import Forest, Model, softmax
from herdlm.curate.steps.extract.page_features import KINDS, page_features
from herdlm.curate.steps.extract.parse import excessive, parse
from herdlm.curate.steps.extract.reader import read_blocks
from herdlm.curate.steps.extract.rules import apply_rules

WEIGHTS = Path(__file__).parents[1] / "src/herdlm/curate/steps/extract/weights.json"
SETTINGS = dict(
    objective="binary",
    num_leaves=9,
    max_depth=6,
    learning_rate=0.12,
    min_data_in_leaf=30,
    lambda_l2=5,
    max_bin=63,
    min_sum_hessian_in_leaf=0.01,
    feature_fraction=0.3,
    bagging_fraction=0.7,
    bagging_freq=1,
    force_col_wise=True,
    deterministic=True,
    seed=1,
    num_threads=1,
    verbose=-1,
)
KIND_SETTINGS = SETTINGS | dict(objective="multiclass", num_class=len(KINDS), min_data_in_leaf=8, learning_rate=0.1)
ROUNDS = (220, 120)
KIND_ROUNDS = 60
FOLDS, INNER_FOLDS = 4, 2
DOCUMENT_WEIGHT = 0.3
MOST_ROWS = 80  # blocks of a page that are learned from, drawn at random from more
# Sites of one publisher that share a template.
FAMILIES = {
    **dict.fromkeys(("ctpost", "sfgate", "chron", "timesunion", "mysanantonio"), "hearst"),
    **dict.fromkeys(("space", "livescience", "pcgamer", "techradar", "tomshardware"), "future"),
}


@dataclass(slots=True)
class Page:
    """A page to learn from; ``rows`` are the features of the blocks that rules leave, without those of its kind."""

    html: str
    kind: int
    family: str
    counts: float
    stats: BlockStatistics
    left: Ints
    rows: Floats
    page_row: Floats
    content: Bools
    learned: Ints  # of ``left``

    def weights(self) -> np.ndarray:
        """Blocks count by their words and borders relative to the page's content, as they do in the measure."""
        words = self.stats.words.astype(np.float64)
        own = np.minimum((words + 2) / max(float(words[self.content].sum()), 50), 0.15) + 0.003
        drawn = len(self.left) / max(len(self.learned), 1)
        weights: np.ndarray = self.counts * drawn * own[self.left[self.learned]]
        return weights


def make_page(  # noqa: PLR0917 - in the order of what is known
    html: str, true_text: str | None, content_html: str, kind: str, counts: float, family: str
) -> Page | None:
    """Make a page labeled by its true text, or where that is None by the blocks that ``content_html`` still has."""
    if excessive(html):
        return None
    source = parse(html)
    blocks = read_blocks(source.html)
    if not blocks.text:
        return None
    if true_text is not None:
        content = find_content(blocks, true_text)
    else:
        content = in_order(blocks.text, read_blocks(parse(content_html).html).text)
    stats = block_statistics(blocks, [source.title], [source.description])
    left = np.flatnonzero(~apply_rules(blocks, stats))
    if not len(left):
        return None
    none = np.zeros((1, len(KINDS)), np.float32)
    rows = features(blocks, stats, left, none)[:, len(KINDS) :]
    page_row = page_features(blocks, stats, [source.facts])[0]
    draw = np.random.default_rng(len(html))
    learned = np.sort(draw.permutation(len(left))[:MOST_ROWS])
    return Page(html, KINDS.index(kind), family, counts, stats, left, rows, page_row, content, learned)


def in_order(texts: Sequence[str], kept: Sequence[str]) -> Bools:
    """Return which texts are also in ``kept``, taken in order."""
    found, at = np.zeros(len(texts), bool), 0
    for number, text in enumerate(texts):
        if at < len(kept) and text == kept[at]:
            found[number] = True
            at += 1
    return found


def site_family(url: str) -> str:
    """Return the registered name of a page's host, or the family that it belongs to."""
    parts = (urlsplit(url).hostname or url).split(".")
    name = parts[-3] if len(parts) > 2 and parts[-2] in ("com", "co", "org", "ac", "gov") else "".join(parts[-2:-1])
    return FAMILIES.get(name, name or url)


def split(pages: Sequence[Page], folds: int, seed: int) -> list[list[Page]]:
    """Return pages in ``folds`` parts, each family in one."""
    families = sorted({page.family for page in pages})
    random.Random(seed).shuffle(families)
    fold = {family: number % folds for number, family in enumerate(families)}
    return [[page for page in pages if fold[page.family] == number] for number in range(folds)]


def fit(rows: Floats, labels: np.ndarray, weights: np.ndarray, settings: dict[str, Any], rounds: int) -> Any:
    """Train a forest."""
    import lightgbm

    return lightgbm.train(settings, lightgbm.Dataset(rows, labels, weight=weights, free_raw_data=True), rounds)


def fit_kinds(pages: Sequence[Page]) -> tuple[Forest, ...]:
    """Train the forests of kinds; rare kinds count more."""
    often = Counter(page.kind for page in pages)
    weights = np.array([page.counts / often[page.kind] ** 0.5 for page in pages])
    weights *= len(weights) / weights.sum()
    booster = fit(
        np.stack([page.page_row for page in pages]),
        np.array([p.kind for p in pages]),
        weights,
        KIND_SETTINGS,
        KIND_ROUNDS,
    )
    trees = export(booster)
    return tuple(Forest.read({"bias": 0.0, "trees": trees[number :: len(KINDS)]}) for number in range(len(KINDS)))


def kind_chances(forests: Sequence[Forest], pages: Sequence[Page]) -> Floats:
    """Return ``[pages, kinds]``."""
    rows = np.stack([page.page_row for page in pages])
    return softmax(np.stack([forest.margins(rows) for forest in forests], axis=1))


def fit_blocks(pages: Sequence[Page], rows: Sequence[Floats], rounds: int) -> Forest:
    """Train a forest on the blocks drawn from each page; ``rows`` are those of all its blocks."""
    booster = fit(
        np.vstack([own[page.learned] for page, own in zip(pages, rows, strict=True)]),
        np.concatenate([page.content[page.left[page.learned]] for page in pages]).astype(float),
        np.concatenate([page.weights() for page in pages]),
        SETTINGS,
        rounds,
    )
    return Forest.read({"bias": 0.0, "trees": export(booster)})


def with_kind(page: Page, kinds: Floats) -> Floats:
    """Return a page's rows with the chances of its kind before them."""
    return np.hstack([np.broadcast_to(kinds, (len(page.rows), len(kinds))), page.rows])


def train(pages: Sequence[Page]) -> Model:
    """Train the forests of kinds and both forests of blocks."""
    kinds: dict[int, Floats] = {}
    parts = split(pages, INNER_FOLDS, 7)
    for part in parts:
        held = {id(page) for page in part}
        forests = fit_kinds([page for page in pages if id(page) not in held])
        kinds |= {id(page): row for page, row in zip(part, kind_chances(forests, part), strict=True)}
    rows = {id(page): with_kind(page, kinds[id(page)]) for page in pages}
    chance: dict[int, Floats] = {}
    for part in parts:
        held = {id(page) for page in part}
        rest = [page for page in pages if id(page) not in held]
        forest = fit_blocks(rest, [rows[id(page)] for page in rest], ROUNDS[0])
        for page in part:
            chance[id(page)] = np.zeros(page.stats.count, np.float32)
            chance[id(page)][page.left] = forest.predict(rows[id(page)])
    first = fit_blocks(pages, [rows[id(page)] for page in pages], ROUNDS[0])
    contexts = [context_features(page.stats, page.left, rows[id(page)], chance[id(page)]) for page in pages]
    return Model(fit_kinds(pages), first, fit_blocks(pages, contexts, ROUNDS[1]))


def export(booster: Any) -> list[Any]:
    """Return trees as nested lists ``[feature, threshold, low, high]``, leaves as numbers."""

    def node(tree: dict[str, Any]) -> Any:
        if "leaf_value" in tree:
            return float(f"{tree['leaf_value']:.4g}")
        assert tree["decision_type"] == "<="
        threshold = float(np.float32(tree["threshold"]))
        return [tree["split_feature"], float(f"{threshold:.7g}"), node(tree["left_child"]), node(tree["right_child"])]

    return [node(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]


def cross_validate(
    pages: Sequence[Page], others: Sequence[Page], seed: int, folds: int
) -> tuple[dict[int, str], tuple[Model, int]]:
    """Return the texts of held-out pages by id, and the last model with the number of reviewed pages that it saw.

    The texts are extracted by models that saw no page of the page's family.
    """
    texts: dict[int, str] = {}
    hits = 0
    for number, part in enumerate(split(pages, FOLDS, seed)[:folds]):
        held = {id(page) for page in part}
        fitted = train([page for page in pages if id(page) not in held] + list(others))
        guessed = kind_chances(fitted.kinds, part).argmax(axis=1)
        hits += sum(int(guess == page.kind) for guess, page in zip(guessed, part, strict=True))
        texts |= dict(zip(map(id, part), main_texts([page.html for page in part], fitted), strict=True))
        print(f"fold {number + 1} of {FOLDS}: {len(part)} pages held out", flush=True)
    print(f"kinds right, held out: {hits / len(texts):.3f}")
    return texts, (fitted, len(pages) - len(part))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviewed", type=Path, required=True)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--documents", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--folds", type=int, default=FOLDS, choices=range(1, FOLDS + 1))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    pages, names, truths = read_training(options.reviewed, options.articles)
    others = [
        page
        for html, kept, host in read_documents(options.documents)
        if (page := make_page(html, None, kept, "documentation", DOCUMENT_WEIGHT, host))
    ]
    print(
        f"{len(pages)} reviewed pages and articles, {len(others)} others, {pages[0].rows.shape[1]} features", flush=True
    )
    fitted = None
    if options.held_out:
        texts, last = cross_validate(pages, others, options.seed, options.folds)
        named = {name: texts[id(page)] for name, page in zip(names, pages, strict=True) if id(page) in texts}
        fitted = last if options.folds == 1 else None
        options.held_out.write_text(json.dumps(named))
        found = [rates(shingles(true), shingles(named[name])) for name, true in truths.items() if name in named]
        f1, precision, recall = score(found)
        print(f"articles, held out: F1 {f1:.4f} ± {interval(found):.4f}  P {precision:.4f}  R {recall:.4f}")
    if options.write:
        model, seen = fitted or (train([*pages, *others]), len(pages))
        write(model, seen, len(others))


def read_training(reviewed: Path, articles: Path) -> tuple[list[Page], list[str], dict[str, str]]:
    """Return the pages, their names, and the true texts of the articles."""
    pages, names, truths = [], [], {}
    for one in read_reviewed(reviewed):
        if page := make_page(one.html, one.text, "", one.kind, 1.0, site_family(one.url or one.name)):
            pages.append(page)
            names.append(one.name)
    for name, (url, html, body) in read_pages(articles).items():
        if page := make_page(html, body, "", "article", 1.0, site_family(url)):
            pages.append(page)
            names.append(name)
            truths[name] = body
    return pages, names, truths


def write(fitted: Model, pages: int, others: int) -> None:
    """Write the weights."""
    stored = {
        "made": datetime.now(UTC).date().isoformat(),
        "by": "benchmarks/train_extract.py",
        "pages": {"reviewed": pages, "others": others},
        "kinds": [forest.stored() for forest in fitted.kinds],
        "first": fitted.first.stored(),
        "second": fitted.second.stored(),
    }
    WEIGHTS.write_text(json.dumps(stored, separators=(",", ":")) + "\n")
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
