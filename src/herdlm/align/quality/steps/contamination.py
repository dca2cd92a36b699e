"""Drops examples that have an item of an evaluation, by the word n-grams that they share; short items by equality."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from herdlm.align.quality.example import Example
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.base.recipe import Section
from herdlm.curate.steps.contamination.benchmarks import Benchmark, BenchmarkConfig
from herdlm.curate.steps.contamination.benchmarks import Contamination as Lookup
from herdlm.curate.words import normalize


class ContaminationConfig(Section):
    """Items of evaluations in the data."""

    ngram_words: int = Field(8, ge=2, description="words of an n-gram")
    min_overlap: float = Field(0.5, gt=0, le=1, description="share of an item's words that must be found")
    max_examples_per_ngram: int = Field(10, ge=1, description="n-grams of more items are a template, and do not count")


class Contamination(Step):
    """Examples that share ``min_overlap`` of an item's words, or whose prompt is a short item."""

    name = "contamination"
    config: ContaminationConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        benchmarks: list[Benchmark] = []
        short: dict[str, str] = {}
        for name, texts in sorted(shared.against.items()):
            benchmark = Benchmark(name, texts, BenchmarkConfig(path=name, **self.config.model_dump()))
            short |= {normalize(text): name for text, judged in zip(texts, benchmark.judged, strict=True) if not judged}
            if benchmark.judged.any():
                benchmarks.append(benchmark)
        lookup = Lookup(benchmarks)
        shared.report[self.name] = {"items": {name: len(texts) for name, texts in sorted(shared.against.items())}}
        return [self._judge(example, lookup, short) for example in examples]

    def _judge(self, example: Example, lookup: Lookup, short: dict[str, str]) -> Drop | None:
        if name := short.get(normalize(example.asked)):
            return Drop("an evaluation's item", name)
        overlaps = lookup.overlaps(example.text)
        name = max(overlaps, key=lambda name: overlaps[name], default="")
        if name and overlaps[name] >= self.config.min_overlap:
            return Drop("an evaluation's item", f"{name}, {overlaps[name]:.0%} of its words")
        return None
