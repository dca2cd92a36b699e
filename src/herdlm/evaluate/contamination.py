"""How much of a score comes from items that stand in the training data (Llama 3 report, section 5.1.4).

An item's share is that of its words in a word 8-gram that occurs anywhere in the training data, by the same look-up as
``herdlm contamination``. Items with at least a threshold's share are contaminated ("dirty"), the others clean. The
estimated gain is the score on all items less the score on the clean ones. As in the report, each task has its own
threshold: the one with the largest gain that is significant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.artifact import hash_json, write_text_durably
from herdlm.base.progress import Progress
from herdlm.curate.classify.word_hashes import WordHashes
from herdlm.curate.steps.contamination.benchmarks import Benchmark, BenchmarkConfig, ngram_hashes
from herdlm.curate.words import normalize
from herdlm.evaluate.asking import Asking
from herdlm.evaluate.corpora import Corpus
from herdlm.evaluate.figures import FEW, RESAMPLES, clusters_of, figure, is_rate, lower_is_better, metric_names
from herdlm.evaluate.intervals import Z95, Estimate, finite
from herdlm.evaluate.task import Task
from herdlm.evaluate.templates import Expression

NGRAM = 8  # words
BATCH = 1 << 18  # n-grams
THRESHOLDS = tuple(step / 20 for step in range(1, 21))
USUAL = 0.5  # the threshold where none shows a gain
SHUFFLES = 1000
SHARE = "contaminated"  # the key of a record

Record = Mapping[str, Any]
Shares = list[float | None]  # by item; None for an item without an 8-gram that counts


@dataclass(frozen=True, slots=True)
class Gain:
    """What contamination does to a metric.

    Attributes:
        gain: all - clean, with its 95% interval given the threshold; None if no item is clean.
        chance: how often shuffled shares show as strong an advantage of dirty items at whichever threshold shows it
            best, so that it holds although the threshold was chosen; None if no threshold can be tried.
    """

    all: Estimate
    clean: Estimate | None
    dirty: Estimate | None
    gain: Estimate | None
    chance: float | None

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        parts = {"all": self.all, "clean": self.clean, "dirty": self.dirty, "gain": self.gain}
        found: dict[str, Any] = {name: part.to_json() if part else None for name, part in parts.items()}
        return found | {"chance": None if self.chance is None else finite(self.chance)}


@dataclass(frozen=True, slots=True)
class Contaminated:
    """A model's figures on the clean and the dirty items of a task.

    Attributes:
        threshold: the lowest share of a dirty item.
        unjudged: items that are too short, which count as neither.
    """

    threshold: float
    dirty: int
    clean: int
    unjudged: int
    metrics: dict[str, Gain]

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        counts = {"dirty": self.dirty, "clean": self.clean, "unjudged": self.unjudged}
        metrics = {name: found.to_json() for name, found in self.metrics.items()}
        return {"threshold": self.threshold, "ngram_words": NGRAM, **counts, "metrics": metrics}


def item_texts(task: Task, asking: Asking) -> list[str]:
    """The text of each item that is sought: what the task says, or its question with the right answer."""
    if text := task.config.contaminated:
        expression = Expression(text, f"task {task.name}, contaminated")
        return [str(expression(row)) for row in asking.rows]
    return [asking.whole(row) for row in asking.rows]


def shares_in(texts: Mapping[str, Sequence[str]], corpora: Sequence[Corpus], out: Path, *, quiet: bool) -> list[Shares]:
    """The share of each item of each task, by one pass over the training data.

    Only the items' own n-grams are held, so a corpus may have any size. What ``out`` has of equal items and data is not
    computed again.

    Args:
        texts: the items' texts by the task's name.

    Raises:
        InputError, DamagedError: the training data cannot be read.
    """
    data = [corpus.content() for corpus in corpora]
    config = BenchmarkConfig(path="items", ngram_words=NGRAM)
    keys = {name: hash_json([texts[name], data, config.model_dump()])[:12] for name in texts}
    files = {name: out / "contamination" / f"{name}.{key}.json" for name, key in keys.items()}
    left = [Benchmark(name, texts[name], config) for name, file in files.items() if not file.is_file()]
    if left:
        found = _scan(left, corpora, quiet=quiet)
        for benchmark, shares in zip(left, found, strict=True):
            head = {"corpora": {str(c.path): content for c, content in zip(corpora, data, strict=True)}}
            files[benchmark.name].parent.mkdir(parents=True, exist_ok=True)
            write_text_durably(files[benchmark.name], json.dumps({**head, "ngram_words": NGRAM, "shares": shares}))
    return [json.loads(files[name].read_text(encoding="utf-8"))["shares"] for name in texts]


def _scan(benchmarks: Sequence[Benchmark], corpora: Sequence[Corpus], *, quiet: bool) -> list[Shares]:
    seen = [np.zeros(len(benchmark.keys), bool) for benchmark in benchmarks]
    for ngrams in _ngrams(corpora, quiet=quiet):
        for benchmark, marks in zip(benchmarks, seen, strict=True):
            marks[benchmark.find(ngrams)] = True
    found: list[Shares] = []
    for benchmark, marks in zip(benchmarks, seen, strict=True):
        shares: Shares = [0.0 if judged else None for judged in benchmark.judged.tolist()]
        examples, overlaps = benchmark.overlap(np.flatnonzero(marks))
        for example, overlap in zip(examples.tolist(), overlaps.tolist(), strict=True):
            shares[example] = overlap
        found.append(shares)
    return found


def _ngrams(corpora: Sequence[Corpus], *, quiet: bool) -> Iterator[NDArray[np.uint64]]:
    """The hashes of all n-grams of the training data, of about ``BATCH`` at a time; none goes over a text's end."""
    hashes, batch, count = WordHashes(), list[NDArray[np.uint64]](), 0
    with Progress("contamination", None, "texts", quiet=quiet) as progress:
        for corpus in corpora:
            for text in corpus.texts():
                batch.append(ngram_hashes(hashes.of(normalize(text).split()), NGRAM))
                count += len(batch[-1])
                if count >= BATCH:
                    yield np.concatenate(batch)
                    batch, count = [], 0
                progress.advance()
        if batch:
            yield np.concatenate(batch)


def contaminated(models: Sequence[Sequence[Record]], *, seed: int = 0) -> list[Contaminated]:
    """What contamination does to each model's figures of one task, by a threshold that all share.

    Args:
        models: each model's records of the same items, with their shares under ``SHARE``.
    """
    judged = [[record for record in records if record.get(SHARE) is not None] for records in models]
    threshold = _threshold(judged)
    found = []
    for records, rows in zip(models, judged, strict=True):
        dirty = [row for row in rows if row[SHARE] >= threshold]
        clean = [row for row in rows if row[SHARE] < threshold]
        metrics = {}
        for metric in metric_names(rows):
            whole = figure(rows, metric, seed=seed)
            assert whole is not None
            on_clean, on_dirty = figure(clean, metric, seed=seed), figure(dirty, metric, seed=seed)
            gain = _gain(rows, metric, threshold, on_clean, on_dirty, seed=seed) if on_clean else None
            metrics[metric] = Gain(whole, on_clean, on_dirty, gain, _chance(rows, metric, seed))
        found.append(Contaminated(threshold, len(dirty), len(clean), len(records) - len(rows), metrics))
    return found


def _threshold(models: Sequence[Sequence[Record]]) -> float:
    """The threshold at which some model has the largest gain whose normal 95% interval is above 0, or ``USUAL``."""
    best = (0.0, USUAL)
    for rows in models:
        metric = next(iter(metric_names(rows)), "")
        scores, shares = _scores(rows, metric)
        for threshold in THRESHOLDS:
            dirty = shares >= threshold
            if not _enough(dirty):
                continue
            parts = scores[dirty], scores[~dirty]
            weight = len(parts[0]) / len(scores)
            gain = weight * float(parts[0].mean() - parts[1].mean())
            error = weight * math.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
            if gain > Z95 * error:
                best = max(best, (round(gain, 9), threshold))  # of equal gains the highest threshold
    return best[1]


def _chance(rows: Sequence[Record], metric: str, seed: int) -> float | None:
    """The p-value of the largest advantage over all thresholds, by permutations of the shares."""
    scores, shares = _scores(rows, metric)
    counts = sorted({int(dirty.sum()) for threshold in THRESHOLDS if _enough(dirty := shares >= threshold)})
    if not counts:
        return None
    n, k = len(scores), np.array(counts)
    scores = scores - scores.mean()
    scale = np.sqrt(1 / k + 1 / (n - k))

    def largest(order: NDArray[np.int64]) -> float:
        sums = np.cumsum(scores[order])[k - 1]  # of the dirty items; the clean ones' is its negative
        return float(((sums / k + sums / (n - k)) / scale).max())

    own, rng = largest(np.argsort(-shares, kind="stable")), np.random.default_rng(seed)
    as_large = sum(largest(rng.permutation(n)) >= own - 1e-12 for _ in range(SHUFFLES))
    return (1 + as_large) / (1 + SHUFFLES)


def _enough(dirty: NDArray[np.bool_]) -> bool:
    """Whether both kinds have enough items for their difference to mean something."""
    return FEW <= int(dirty.sum()) <= len(dirty) - FEW


def _scores(rows: Sequence[Record], metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each item's score, higher being better, and its share."""
    sign = -1.0 if lower_is_better(metric) else 1.0
    sums = _sums(rows, metric)
    kept = sums[:, 1] > 0
    shares = np.array([row[SHARE] for row in rows], dtype=np.float64)
    return sign * sums[kept, 0] / sums[kept, 1], shares[kept]


def _sums(rows: Sequence[Record], metric: str) -> NDArray[np.float64]:
    """Numerator and denominator of each item's score, [N, 2]; zeros where an item has none."""
    sums = []
    for row in rows:
        if metric in row.get("ratios", ()):
            sums.append(row["ratios"][metric])
        else:
            value = row.get("values", {}).get(metric, [])
            values = value if isinstance(value, list) else [value]
            sums.append([sum(values), len(values)])
    return np.array(sums, dtype=np.float64).reshape(-1, 2)


def _gain(
    rows: Sequence[Record], metric: str, threshold: float, clean: Estimate, dirty: Estimate | None, *, seed: int
) -> Estimate:
    """all - clean. Of independent items it is the dirty items' weight times the difference of dirty and clean, whose
    interval follows from those of both (Newcombe 1998, method 10); else clusters are resampled.
    """
    if dirty is None:
        return Estimate(0.0, 0.0, 0.0)
    sums = _sums(rows, metric)
    is_dirty = np.array([row[SHARE] >= threshold for row in rows])
    clustered = any(row.get("cluster") is not None for row in rows)
    if not clustered and not any(metric in row.get("ratios", ()) for row in rows) and sums[:, 1].max() <= 1:
        weight = float(sums[is_dirty, 1].sum() / sums[:, 1].sum())
        value = dirty.value - clean.value
        low = value - math.hypot(dirty.value - dirty.low, clean.high - clean.value)
        high = value + math.hypot(dirty.high - dirty.value, clean.value - clean.low)
        return Estimate(weight * value, weight * low, weight * high)
    four = np.concatenate([sums, np.where(is_dirty[:, None], 0.0, sums)], axis=1)
    grouped = np.array([four[cluster].sum(0) for cluster in clusters_of(rows)])
    rng = np.random.default_rng(seed)
    drawn = grouped[rng.integers(0, len(grouped), (RESAMPLES, len(grouped)))].sum(1)
    drawn = drawn[drawn[:, 3] > 0]  # draws without clean items say nothing

    def change(part: NDArray[np.float64]) -> NDArray[np.float64]:
        whole, rest = part[..., 0] / part[..., 1], part[..., 2] / part[..., 3]
        found: NDArray[np.float64] = np.exp(whole) - np.exp(rest) if metric.endswith("perplexity") else whole - rest
        return found

    value, (low, high) = float(change(grouped.sum(0))), np.quantile(change(drawn), (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value))


def contamination_row(found: Contaminated) -> tuple[str, ...]:
    """A row of a table, of the first metric: metric, threshold, dirty items, all, clean, dirty, gain, chance."""
    metric, gain = next(iter(found.metrics.items()))
    scale = 100.0 if is_rate(metric) else 1.0
    shown = [
        f"{each.value * scale:.2f} [{each.low * scale:.2f}, {each.high * scale:.2f}]" if each else ""
        for each in (gain.all, gain.clean, gain.dirty, gain.gain)
    ]
    dirty = f"{found.dirty:,} of {found.dirty + found.clean:,}"
    return metric, f"{found.threshold:g}", dirty, *shown, "" if gain.chance is None else f"{gain.chance:.3f}"
