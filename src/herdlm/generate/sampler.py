"""From logits to a step's tokens and log-probabilities, and to the alternatives to them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from herdlm.generate.cpu.compiled import kernels
from herdlm.generate.prompt_scores import alternatives, compare
from herdlm.generate.sampling.sampling import Draw, draw_tokens, token_logprobs, uniforms
from herdlm.generate.sequences import Integers, Sequences
from herdlm.generate.shaping import shape_logits


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
    compare(logits, sequences.requests(drawing))
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


def _record_alternatives(logits: Tensor, sequences: Sequences, drawing: Integers) -> None:
    counts = sequences.top_logprobs[drawing]
    asking = np.flatnonzero(counts)
    index = torch.from_numpy(asking).to(logits.device)
    found = alternatives(torch.log_softmax(logits[index], dim=-1), counts[asking])
    for sample, tokens in zip(sequences.samples(drawing[asking]), found, strict=True):
        sample.top.append(tokens)
