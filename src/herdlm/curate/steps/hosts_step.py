"""Drops the pages of hosts that carry much personal data or sexual content."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Corpus
from herdlm.curate.funnel import host_of


def run(batch: Batch, config: CurateConfig, corpus: Corpus) -> Outcome:
    """Drop by the host of ``url``."""
    hosts = corpus.decisions.hosts
    return Outcome([hosts.get(host_of(url)) if url else None for url in batch["url"]])
