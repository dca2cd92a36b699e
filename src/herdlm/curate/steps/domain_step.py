"""Says what a text is about; drops nothing."""

from __future__ import annotations

from functools import lru_cache

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig, DomainsConfig
from herdlm.curate.steps.domains.classifier import DomainLabels, DomainRules, open_domains
from herdlm.curate.steps.domains.rules import domain_of


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``domain``."""
    labels = _domains(config.domains.model_dump_json())
    if isinstance(labels, DomainRules):
        domains = [domain_of(text, words) for text, words in zip(batch["text"], batch["split"], strict=True)]
    else:
        domains = labels.label(batch["text"])
    return Outcome([None] * len(domains), {"domain": domains})


def check(config: CurateConfig) -> None:
    """Open the classifier; InputError where it is missing or caps name no domain of its own."""
    _domains(config.domains.model_dump_json())


@lru_cache(maxsize=1)
def _domains(config: str) -> DomainLabels:
    return open_domains(DomainsConfig.model_validate_json(config))
