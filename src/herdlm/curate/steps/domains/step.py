"""The step's two halves: each page is labeled on its own, and the corpus is down-sampled to the caps."""

from __future__ import annotations

from functools import lru_cache

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.corpus import Corpus
from herdlm.curate.step import DocumentStep, PageStep
from herdlm.curate.steps.domains.classifier import DomainLabels, DomainRules, DomainsConfig, open_domains
from herdlm.curate.steps.domains.rules import domain_of
from herdlm.curate.steps.domains.shares import check_share


class LabelDomains(PageStep):
    """Sets ``domain``."""

    name, filters = "domains", False
    settings: DomainsConfig

    def check(self) -> None:
        _load(self.settings.model_dump_json())

    def run(self, batch: Batch) -> Outcome:
        labels = _load(self.settings.model_dump_json())
        if isinstance(labels, DomainRules):
            domains = [domain_of(text, words) for text, words in zip(batch["text"], batch["split"], strict=True)]
        else:
            domains = labels.label(batch["text"])
        return Outcome([None] * len(domains), {"domain": domains})


class CapDomains(DocumentStep):
    """Drops documents of domains with too large a share of the corpus, by a hash of their ids."""

    name = "domains"

    def run(self, batch: Batch, corpus: Corpus) -> Outcome:
        shares = corpus.decisions.keep_shares
        documents = zip(batch["id"], batch["domain"], strict=True)
        return Outcome([check_share(id_, domain, shares, corpus.seed) for id_, domain in documents])


@lru_cache(maxsize=1)
def _load(settings: str) -> DomainLabels:
    return open_domains(DomainsConfig.model_validate_json(settings))
