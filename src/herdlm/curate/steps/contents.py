"""The steps of curation in order.

First those that need one page alone, then those that compare pages across the whole corpus, then those that need a page
and what was found about the corpus. A page leaves at the first step that drops it.
"""

from __future__ import annotations

from herdlm.curate.step import CorpusStep, PageStep
from herdlm.curate.steps import extract, heuristics, language, quality, read
from herdlm.curate.steps.exact_duplicates import ExactDuplicates
from herdlm.curate.steps.near_duplicates import NearDuplicates

PAGE_STEPS = (
    PageStep("read", read.run),
    PageStep("extract", extract.run),
    PageStep("language", language.run, prose_only=True),
    PageStep("heuristics", heuristics.run, prose_only=True),
)
CORPUS_STEPS: tuple[CorpusStep, ...] = (
    ExactDuplicates(),
    NearDuplicates(),
)
DOCUMENT_STEPS = (PageStep("quality", quality.run, filters=False),)

# What the funnel tells of, in order: the steps that can drop a page.
FUNNEL_STEPS = (
    *(step.name for step in PAGE_STEPS if step.filters),
    *(step.name for step in CORPUS_STEPS),
    *(step.name for step in DOCUMENT_STEPS if step.filters),
)
