"""The steps of curation in order.

First those that need one page alone, then those that compare pages across the whole corpus, then those that need a page
and what was found about the corpus. A page leaves at the first step that drops it.
"""

from __future__ import annotations

from herdlm.curate.step import CorpusStep, DocumentStep, PageStep
from herdlm.curate.steps import (
    caps,
    contamination,
    cut,
    domain,
    extract,
    heuristics,
    hosts,
    language,
    outliers,
    personal_data,
    quality,
    read,
    repair,
    repeated_lines,
    repetitive_lines,
    url,
    vocabulary,
)
from herdlm.curate.steps.exact_duplicates import ExactDuplicates
from herdlm.curate.steps.near_duplicates import NearDuplicates
from herdlm.curate.steps.older_versions import OlderVersions

PAGE_STEPS = (
    PageStep("read", read.run),
    PageStep("url", url.run, check=url.check),
    PageStep("extract", extract.run),
    PageStep("repair", repair.run),
    PageStep("language", language.run, prose_only=True),
    PageStep("domain", domain.run, filters=False, check=domain.check),
    PageStep("heuristics", heuristics.run, prose_only=True),
    PageStep("repetitive_lines", repetitive_lines.run, prose_only=True),
    PageStep("personal_data", personal_data.run, prose_only=True),
    PageStep("vocabulary", vocabulary.run, filters=False),
    PageStep("score", quality.run, filters=False, check=quality.check),
)
CORPUS_STEPS: tuple[CorpusStep, ...] = (OlderVersions(), ExactDuplicates(), NearDuplicates())
DOCUMENT_STEPS = (
    DocumentStep("hosts", hosts.run),
    DocumentStep("outliers", outliers.run, prose_only=True),
    DocumentStep("repeated_lines", repeated_lines.run, prose_only=True),
    DocumentStep("quality", cut.run),
    DocumentStep("domains", caps.run),
    DocumentStep("contamination", contamination.run, check=contamination.check),
)

# What the funnel tells of, in order: the steps that can drop a page.
FUNNEL_STEPS = (
    *(step.name for step in PAGE_STEPS if step.filters),
    *(step.name for step in CORPUS_STEPS),
    *(step.name for step in DOCUMENT_STEPS),
)
