"""Takes lines out that too many documents have (menus, notices), and drops documents that were mostly such lines."""

from __future__ import annotations

import numpy as np

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Corpus
from herdlm.curate.steps.repeated_lines import check_remainder, remove_lines


def run(batch: Batch, config: CurateConfig, corpus: Corpus) -> Outcome:
    """Set ``text``."""
    reasons, texts = [], []
    for row, before, keys in zip(batch["row"], batch["text"], batch["lines"], strict=True):
        frequent = corpus.repeated_lines(row)
        has_any = bool(np.isin(np.array(keys, np.uint64), frequent).any())
        after = remove_lines(before, frequent) if has_any else before
        reason = check_remainder(before, after, config.repeated_lines.max_removed)
        reasons.append(reason)
        texts.append(before if reason else after)
    return Outcome(reasons, {"text": texts})
