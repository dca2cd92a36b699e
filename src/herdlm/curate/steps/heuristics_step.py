"""Drops texts that are no running text by rules of thumb."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.heuristics import check_text
from herdlm.curate.steps.heuristics_by_domain import heuristics_for


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Drop texts by the first rule they break; rules made for prose are relaxed for code and mathematics."""
    rules = {domain: heuristics_for(domain, config.heuristics) for domain in set(batch["domain"])}
    texts = zip(batch["text"], batch["language"], batch["domain"], batch["split"], strict=True)
    return Outcome([check_text(text, language, rules[domain], words) for text, language, domain, words in texts])
