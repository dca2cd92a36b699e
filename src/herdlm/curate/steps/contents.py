"""The steps of curation in order.

First those that need one page alone, then those that compare pages across the whole corpus, then those that need a page
and what was found about the corpus. A page leaves at the first step that drops it.
"""

from __future__ import annotations

from herdlm.curate.step import CorpusStep, DocumentStep, PageStep
from herdlm.curate.steps import (
    caps_step,
    contamination_step,
    cut_step,
    domain_step,
    extract_step,
    heuristics_step,
    hosts_step,
    language_step,
    outliers_step,
    personal_data_step,
    quality_step,
    read,
    repair_step,
    repeated_lines_step,
    repetitive_lines_step,
    url_step,
    vocabulary_step,
)
from herdlm.curate.steps.exact_duplicates_step import ExactDuplicates
from herdlm.curate.steps.near_duplicates_step import NearDuplicates
from herdlm.curate.steps.older_versions_step import OlderVersions

PAGE_STEPS = (
    PageStep("read", read.run),
    PageStep("url", url_step.run, check=url_step.check),
    PageStep("extract", extract_step.run),
    PageStep("repair", repair_step.run),
    PageStep("language", language_step.run, prose_only=True),
    PageStep("domain", domain_step.run, filters=False, check=domain_step.check),
    PageStep("heuristics", heuristics_step.run, prose_only=True),
    PageStep("repetitive_lines", repetitive_lines_step.run, prose_only=True),
    PageStep("personal_data", personal_data_step.run, prose_only=True),
    PageStep("vocabulary", vocabulary_step.run, filters=False),
    PageStep("score", quality_step.run, filters=False, check=quality_step.check),
)
CORPUS_STEPS: tuple[CorpusStep, ...] = (OlderVersions(), ExactDuplicates(), NearDuplicates())
DOCUMENT_STEPS = (
    DocumentStep("hosts", hosts_step.run),
    DocumentStep("outliers", outliers_step.run, prose_only=True),
    DocumentStep("repeated_lines", repeated_lines_step.run, prose_only=True),
    DocumentStep("quality", cut_step.run),
    DocumentStep("domains", caps_step.run),
    DocumentStep("contamination", contamination_step.run, check=contamination_step.check),
)

# What the funnel tells of, in order: the steps that can drop a page.
FUNNEL_STEPS = (
    *(step.name for step in PAGE_STEPS if step.filters),
    *(step.name for step in CORPUS_STEPS),
    *(step.name for step in DOCUMENT_STEPS),
)
