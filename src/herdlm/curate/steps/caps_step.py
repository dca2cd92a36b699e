"""Drops documents of domains that have too large a share of the corpus, by a hash of their ids."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Corpus
from herdlm.curate.steps.domains.shares import check_share


def run(batch: Batch, config: CurateConfig, corpus: Corpus) -> Outcome:
    """Drop by ``domain``."""
    shares = corpus.decisions.keep_shares
    documents = zip(batch["id"], batch["domain"], strict=True)
    return Outcome([check_share(id_, domain, shares, corpus.seed) for id_, domain in documents])
