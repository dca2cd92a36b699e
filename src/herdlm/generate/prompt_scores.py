"""Log-probabilities of tokens that stand in prompts, of the likeliest tokens there, and of tokens to compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from herdlm.generate.request import Alternatives
from herdlm.generate.sampling.sampling import most_likely
from herdlm.generate.sequences import Batch, Integers, Request, Sequences
from herdlm.model.transformer import Transformer

SCORED_AT_ONCE = 256  # prompt tokens whose logits [V] are in memory together


def score_prompts(model: Transformer, hidden: Tensor, batch: Batch, sequences: Sequences) -> None:
    """Record the log-probabilities of prompt tokens whose predecessors the step computed; hidden states [N, D]."""
    counts, requests = sequences.top_logprobs[batch.scorers], sequences.requests(batch.scorers)
    for begin in range(0, len(requests), SCORED_AT_ONCE):
        part = slice(begin, begin + SCORED_AT_ONCE)
        at = batch.scoring[part]
        positions = batch.positions[at]
        following = sequences.tokens[batch.scorers[part], positions + 1].astype(np.int64)
        logits = model.logits(hidden[torch.from_numpy(at).to(hidden.device)]).float()
        compare(logits, requests[part])
        everything = torch.log_softmax(logits, dim=-1)
        logprobs = everything.gather(1, torch.from_numpy(following).to(hidden.device)[:, None]).squeeze(1).tolist()
        for request, position, logprob, top in zip(
            requests[part], positions.tolist(), logprobs, alternatives(everything, counts[part]), strict=True
        ):
            scores = request.scores
            assert scores is not None
            index = position + 1 - scores.first
            scores.logprobs[index], scores.top[index] = logprob, top


def compare(logits: Tensor, requests: Sequence[Request]) -> None:
    """Record the log-probabilities of the tokens that requests compare, where their first scored token stands.

    Args:
        logits: [M, V], a row for each request, which may repeat; the first one counts.
    """
    for row, request in enumerate(requests):
        if request.params.compared and not request.compared:
            tokens = torch.tensor(request.params.compared, device=logits.device)
            request.compared = (logits[row, tokens] - logits[row].logsumexp(-1)).tolist()


def alternatives(logprobs: Tensor, counts: Integers) -> list[Alternatives]:
    """The ``counts`` [M] most likely tokens under each row of log-probabilities [M, V]."""
    if not counts.any():
        return [[] for _ in counts]
    tokens, values = (part.tolist() for part in most_likely(logprobs, int(counts.max())))
    return [list(zip(tokens[i], values[i], strict=True))[:count] for i, count in enumerate(counts.tolist())]
