"""Says what a text is about; drops nothing."""

from __future__ import annotations

from functools import lru_cache

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig, DomainsConfig
from herdlm.curate.grade.domains import DomainLabels, open_domains


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``domain``."""
    domains = _domains(config.domains.model_dump_json()).label(batch["text"])
    return Outcome([None] * len(domains), {"domain": domains})


def check(config: CurateConfig) -> None:
    """Open the classifier; InputError where it is missing or caps name no domain of its own."""
    _domains(config.domains.model_dump_json())


@lru_cache(maxsize=1)
def _domains(config: str) -> DomainLabels:
    return open_domains(DomainsConfig.model_validate_json(config))
