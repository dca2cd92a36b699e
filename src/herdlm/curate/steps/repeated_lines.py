"""Takes lines out that too many documents have (menus, notices), and drops documents that were mostly such lines."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Corpus
from herdlm.curate.duplicates.lines import check_remainder, remove_lines


def run(batch: Batch, config: CurateConfig, corpus: Corpus) -> Outcome:
    """Set ``text``."""
    reasons, texts = [], []
    for row, before in zip(batch["row"], batch["text"], strict=True):
        after = remove_lines(before, corpus.repeated_lines(row))
        reason = check_remainder(before, after, config.repeated_lines.max_removed)
        reasons.append(reason)
        texts.append(before if reason else after)
    return Outcome(reasons, {"text": texts})
