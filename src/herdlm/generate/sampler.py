"""From logits to a step's tokens and log-probabilities: draws, alternatives to them, and scores of prompts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from herdlm.generate.cpu.compiled import kernels
from herdlm.generate.request import Alternatives
from herdlm.generate.sampling.sampling import Draw, draw_tokens, most_likely, token_logprobs, uniforms
from herdlm.generate.sequences import Batch, Integers, Sequences
from herdlm.generate.shaping import shape_logits
from herdlm.model.transformer import Transformer

SCORED_AT_ONCE = 128  # prompt tokens whose logits [V] are in memory together


def sample_tokens(
    logits: Tensor, sequences: Sequences, drawing: Integers, *, compiled: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw the next tokens of sequences ``drawing`` from logits [M, V] float32; returns tokens and log-probabilities.

    Log-probabilities are of the unchanged logits. Samples that report alternatives record them. ``compiled`` allows
    code compiled for the processor; see :mod:`herdlm.generate.cpu.compiled`.
    """
    if sequences.top_logprobs[drawing].any():
        _record_alternatives(logits, sequences, drawing)
    forced = sequences.forced[drawing]
    if not (forced >= 0).any():
        return _sample(logits, sequences, drawing, compiled)
    sequences.forced[drawing] = -1
    if (forced >= 0).all():
        drawn = torch.from_numpy(forced).to(logits.device)
        return drawn, token_logprobs(logits, drawn)
    drawn, logprobs = _sample(logits, sequences, drawing, compiled)
    index = torch.from_numpy(np.flatnonzero(forced >= 0)).to(logits.device)
    drawn[index] = torch.from_numpy(forced[forced >= 0]).to(logits.device)
    logprobs[index] = token_logprobs(logits[index], drawn[index])
    return drawn, logprobs


def _sample(logits: Tensor, sequences: Sequences, drawing: Integers, compiled: bool) -> tuple[Tensor, Tensor]:
    steps = sequences.length[drawing] - sequences.start[drawing]
    draw = Draw(
        sequences.temperature[drawing],
        sequences.top_p[drawing],
        sequences.top_k[drawing],
        sequences.min_p[drawing],
        uniforms(sequences.key[drawing], steps),
    )
    shaped = sequences.shaped[drawing]
    if not shaped.any():
        if compiled and draw.plain.all():
            return kernels().draw(logits, draw.temperature, draw.uniforms)  # type: ignore[no-any-return]
        return draw_tokens(logits, draw)
    drawn = torch.empty(len(drawing), dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(len(drawing), device=logits.device)
    plain, changed = np.flatnonzero(~shaped), np.flatnonzero(shaped)
    if len(plain):
        index = torch.from_numpy(plain).to(logits.device)
        drawn[index], logprobs[index] = draw_tokens(logits[index], draw.part(plain))
    index = torch.from_numpy(changed).to(logits.device)
    own = logits[index]
    drawn[index], _ = draw_tokens(shape_logits(own.clone(), sequences, drawing[changed]), draw.part(changed))
    logprobs[index] = token_logprobs(own, drawn[index])
    return drawn, logprobs


def score_prompts(model: Transformer, hidden: Tensor, batch: Batch, sequences: Sequences) -> None:
    """Record the log-probabilities of prompt tokens whose predecessors the step computed; hidden states [N, D]."""
    counts, requests = sequences.top_logprobs[batch.scorers], sequences.requests(batch.scorers)
    for begin in range(0, len(requests), SCORED_AT_ONCE):
        part = slice(begin, begin + SCORED_AT_ONCE)
        at = batch.scoring[part]
        positions = batch.positions[at]
        following = sequences.tokens[batch.scorers[part], positions + 1].astype(np.int64)
        logits = model.logits(hidden[torch.from_numpy(at).to(hidden.device)]).float()
        logprobs = token_logprobs(logits, torch.from_numpy(following).to(hidden.device)).tolist()
        for request, position, logprob, top in zip(
            requests[part], positions.tolist(), logprobs, _alternatives(logits, counts[part]), strict=True
        ):
            scores = request.scores
            assert scores is not None
            index = position + 1 - scores.first
            scores.logprobs[index], scores.top[index] = logprob, top


def _record_alternatives(logits: Tensor, sequences: Sequences, drawing: Integers) -> None:
    counts = sequences.top_logprobs[drawing]
    asking = np.flatnonzero(counts)
    index = torch.from_numpy(asking).to(logits.device)
    rows = zip(sequences.samples(drawing[asking]), _alternatives(logits[index], counts[asking]), strict=True)
    for sample, alternatives in rows:
        sample.top.append(alternatives)


def _alternatives(logits: Tensor, counts: Integers) -> list[Alternatives]:
    """The ``counts`` [M] most likely tokens under each row of logits [M, V]."""
    if not counts.any():
        return [[] for _ in counts]
    tokens, logprobs = (part.tolist() for part in most_likely(logits, int(counts.max())))
    return [list(zip(tokens[i], logprobs[i], strict=True))[:count] for i, count in enumerate(counts.tolist())]
