"""Changes to logits before a token is drawn: penalties, biases, and tokens that are ruled out.

No state is kept between steps. Counts come from a sequence's tokens when they are needed, so a preempted sequence has
nothing to restore, and sequences without penalties cost nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herdlm.generate.sequences import Integers, Sequences


def shape_logits(logits: Tensor, sequences: Sequences, which: Integers) -> Tensor:
    """Change the logits [R, V] of sequences ``which`` [R] by their SamplingParams, in place."""
    penalized = np.flatnonzero(sequences.penalized[which])
    if len(penalized):
        index = torch.from_numpy(penalized).to(logits.device)
        logits[index] = _penalized(logits[index], sequences, which[penalized])
    _add_biases(logits, sequences, which)
    _rule_out_stops(logits, sequences, which)
    _keep_to_grammars(logits, sequences, which)
    return logits


def _penalized(logits: Tensor, sequences: Sequences, which: Integers) -> Tensor:
    ends = sequences.length[which][:, None]
    known = sequences.tokens[which, : ends.max()].astype(np.int64)
    at = np.arange(known.shape[1])
    # Padding repeats the sequence's first token. A repeated token gets the same value again.
    ids = _on(np.where(at < ends, known, known[:, :1]), logits)
    generated = _on(((at >= sequences.start[which][:, None]) & (at < ends)).astype(np.float32), logits)
    counts = torch.zeros_like(logits).scatter_add_(1, ids, generated).gather(1, ids)
    repetition, presence, frequency = (
        _on(penalty[which], logits)[:, None]
        for penalty in (sequences.repetition, sequences.presence, sequences.frequency)
    )
    values = logits.gather(1, ids)
    values = torch.where(values > 0, values / repetition, values * repetition)
    values = values - frequency * counts - presence * (counts > 0)
    return logits.scatter(1, ids, values)


def _add_biases(logits: Tensor, sequences: Sequences, which: Integers) -> None:
    biases = [(r, request.bias) for r, request in enumerate(sequences.requests(which)) if request.bias is not None]
    if biases:
        owners = np.repeat([r for r, _ in biases], [len(bias[0]) for _, bias in biases])
        tokens, values = (np.concatenate([bias[part] for _, bias in biases]) for part in (0, 1))
        logits[_on(owners, logits), _on(tokens, logits)] += _on(values, logits)


def _rule_out_stops(logits: Tensor, sequences: Sequences, which: Integers) -> None:
    early = (sequences.length - sequences.start < sequences.min_tokens)[which]
    stops = sequences.stop_tokens[which]
    owners, columns = np.nonzero(early[:, None] & (stops >= 0) & (stops < logits.shape[1]))
    if len(owners):
        logits[_on(owners, logits), _on(stops[owners, columns].astype(np.int64), logits)] = -torch.inf


def _keep_to_grammars(logits: Tensor, sequences: Sequences, which: Integers) -> None:
    matchers = [(r, sample.matcher) for r, sample in enumerate(sequences.samples(which)) if sample.matcher]
    if matchers:
        index = _on(np.array([r for r, _ in matchers]), logits)
        forbidden = _on(~np.stack([matcher.allowed for _, matcher in matchers]), logits)
        logits[index] = logits[index].masked_fill(forbidden, -torch.inf)


def _on(values: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, non_blocking=True)
