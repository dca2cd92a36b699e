"""The steps of curation in order. A page leaves at the first step that drops it."""

from __future__ import annotations

from herdlm.curate.config import CurateConfig
from herdlm.curate.step import CorpusStep, DocumentStep, PageStep
from herdlm.curate.steps.contamination.step import DropContaminated
from herdlm.curate.steps.dirty_words import DirtyWords
from herdlm.curate.steps.domains.step import CapDomains, LabelDomains
from herdlm.curate.steps.exact_duplicates import ExactDuplicates
from herdlm.curate.steps.extract import Extract
from herdlm.curate.steps.heuristics import Heuristics
from herdlm.curate.steps.hosts import Hosts
from herdlm.curate.steps.language import Language
from herdlm.curate.steps.near_duplicates.step import NearDuplicates
from herdlm.curate.steps.older_versions import OlderVersions
from herdlm.curate.steps.outliers import Outliers
from herdlm.curate.steps.own import OwnStep
from herdlm.curate.steps.pii.step import Pii
from herdlm.curate.steps.quality.step import DropLowQuality, ScoreQuality
from herdlm.curate.steps.read import Read
from herdlm.curate.steps.repair import Repair
from herdlm.curate.steps.repeated_lines import RepeatedLines
from herdlm.curate.steps.repetitive_lines import RepetitiveLines
from herdlm.curate.steps.robots import Robots
from herdlm.curate.steps.url import Url


def page_steps(config: CurateConfig) -> list[PageStep]:
    """Return the steps that judge each page on its own, the user's own steps among them.

    Raises:
        InputError: A step of the user's cannot be loaded.
    """
    steps: list[PageStep] = [
        Read(),
        Robots(config.robots),
        Url(config.url),
        Extract(config.extract),
        Repair(),
        Language(config.language),
        LabelDomains(config.domains),
        Heuristics(config.heuristics),
        RepetitiveLines(config.repetitive_lines),
        Pii(config.pii),
        DirtyWords(),
        ScoreQuality(config.quality),
    ]
    own = [(own.after, OwnStep(name, own)) for name, own in config.steps.items()]
    return [each for step in steps for each in (step, *(mine for after, mine in own if after == step.name))]


def corpus_steps(config: CurateConfig) -> list[CorpusStep]:
    """Return the steps that compare pages across the corpus."""
    return [
        OlderVersions(),
        ExactDuplicates(config.index, config.near_duplicates),
        NearDuplicates(config.near_duplicates, config.index),
    ]


def document_steps(config: CurateConfig) -> list[DocumentStep]:
    """Return the steps that judge each page by what was found about the corpus."""
    return [
        Hosts(config.hosts),
        Outliers(config.outliers),
        RepeatedLines(config.repeated_lines),
        DropLowQuality(config.quality),
        CapDomains(config.domains),
        DropContaminated(config.contamination),
    ]


def funnel_steps(config: CurateConfig) -> list[str]:
    """Return the names of the steps that can drop pages: the rows of the funnel."""
    return [
        *(step.name for step in page_steps(config) if step.filters),
        *(step.name for step in corpus_steps(config)),
        *(step.name for step in document_steps(config)),
    ]
