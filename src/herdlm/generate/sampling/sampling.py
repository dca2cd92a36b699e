"""Draws the next token of many sequences at once.

The random number for token i of sample j of a request with seed s is a hash of (s, j, i). No generator has a state, so
a sequence's draws depend neither on the other sequences in the batch nor on preemption. (The logits themselves may
differ in the last bit between batch sizes, because matrix products are summed in another order.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herdlm.base.seeds import derive_seed


def sample_key(seed: int, index: int) -> int:
    """The key of a request's sample number ``index``, 64 bits."""
    return derive_seed(seed, "sample", index)


def uniforms(keys: NDArray[np.uint64], steps: NDArray[np.int64]) -> NDArray[np.float32]:
    """A number in [0, 1) for each key and step, [M]: SplitMix64 (Steele, Lea and Flood, 2014) as a counter hash."""
    state = keys + (steps.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    numbers: NDArray[np.float32] = (state >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    return numbers


# Bytes of logits to process at once on a CPU, so that all passes over them hit the processor's cache.
CHUNK_BYTES = 2**20


# The number of tokens that top_k, top_p and min_p consider first. If these may not be all that can be drawn, the whole
# vocabulary is sorted, which takes ten times as long.
RANKED = 1024


@dataclass(slots=True, eq=False)
class Draw:
    """The parameters of M draws: see SamplingParams for the first four; ``uniforms`` are in [0, 1)."""

    temperature: NDArray[np.float32]
    top_p: NDArray[np.float32]
    top_k: NDArray[np.int64]
    min_p: NDArray[np.float32]
    uniforms: NDArray[np.float32]

    @property
    def plain(self) -> NDArray[np.bool_]:
        """Rows that draw from the whole vocabulary at their temperature, [M]."""
        return (self.temperature > 0) & (self.top_p >= 1) & (self.top_k <= 0) & (self.min_p <= 0)

    def part(self, rows: slice | NDArray[np.int64]) -> Draw:
        """Some of the rows."""
        return Draw(self.temperature[rows], self.top_p[rows], self.top_k[rows], self.min_p[rows], self.uniforms[rows])


def draw_tokens(logits: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Draw from logits [M, V] float32.

    Returns:
        Token ids [M] and their log-probabilities [M] under the full softmax at temperature 1.
    """
    if logits.device.type != "cpu":
        return _draw(logits, draw)
    size = max(CHUNK_BYTES // (4 * logits.shape[1]), 1)
    chunks = (slice(begin, begin + size) for begin in range(0, len(logits), size))
    tokens, logprobs = zip(*(_draw(logits[rows], draw.part(rows)) for rows in chunks), strict=True)
    return torch.cat(tokens), torch.cat(logprobs)


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities [M] of ``tokens`` [M] under the softmax of logits [M, V]."""
    return torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None]).squeeze(1)


def most_likely(logprobs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` most likely tokens [M, count] of log-probabilities [M, V], and these, in descending order."""
    values, tokens = logprobs.max(-1, keepdim=True) if count == 1 else logprobs.topk(count, dim=-1)
    return tokens, values


def _draw(logits: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    greedy = draw.temperature == 0
    filtered = ~greedy & ((draw.top_p < 1) | (draw.top_k > 0))
    floored = ~greedy & ~filtered & (draw.min_p > 0)
    plain = draw.plain
    if plain.all() and (draw.temperature == 1).all():
        probabilities = torch.softmax(logits, dim=-1)
        tokens = _invert(probabilities, draw)
        return tokens.squeeze(1), probabilities.gather(1, tokens).log().squeeze(1)
    tokens = torch.empty((len(logits), 1), dtype=torch.int64, device=logits.device)
    ways = ((greedy, _draw_greedy), (filtered, _draw_filtered), (floored, _draw_floored), (plain, _draw_plain))
    for chosen, method in ways:
        if chosen.all():
            tokens = method(logits, draw)
        elif chosen.any():
            rows = np.flatnonzero(chosen)
            index = torch.from_numpy(rows).to(logits.device)
            tokens[index] = method(logits[index], draw.part(rows))
    return tokens.squeeze(1), torch.log_softmax(logits, dim=-1).gather(1, tokens).squeeze(1)


def _draw_greedy(logits: Tensor, draw: Draw) -> Tensor:
    return logits.argmax(dim=-1, keepdim=True)


def _draw_plain(logits: Tensor, draw: Draw) -> Tensor:
    return _invert(torch.softmax(_tempered(logits, draw), dim=-1), draw)


def _draw_floored(logits: Tensor, draw: Draw) -> Tensor:
    # As _draw_filtered with min_p only, which needs no sorting.
    probabilities = torch.softmax(_tempered(logits, draw), dim=-1)
    floor = _column(draw.min_p, logits) * probabilities.amax(dim=-1, keepdim=True)
    return _invert(probabilities.masked_fill(probabilities < floor, 0.0), draw)


def _draw_filtered(logits: Tensor, draw: Draw) -> Tensor:
    tempered = _tempered(logits, draw)
    tokens, sure = _draw_ranked(tempered, draw, min(RANKED, tempered.shape[1]))
    if not sure.all():
        rows = np.flatnonzero(~sure.cpu().numpy())
        index = torch.from_numpy(rows).to(logits.device)
        tokens[index] = _draw_ranked(tempered[index], draw.part(rows), tempered.shape[1])[0]
    return tokens


def _draw_ranked(tempered: Tensor, draw: Draw, count: int) -> tuple[Tensor, Tensor]:
    """Draw among the ``count`` most likely tokens [M, 1]; returns also whether they surely include all candidates."""
    vocabulary = tempered.shape[1]
    top_k = np.where(draw.top_k > 0, np.minimum(draw.top_k, vocabulary), vocabulary)
    # Sorted in descending order; equal logits keep the order of their ids, on every device.
    if count < vocabulary:
        ids = tempered.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
        ranked, order = tempered.gather(1, ids).sort(dim=-1, descending=True, stable=True)
        ids = ids.gather(1, order)
    else:
        ranked, ids = tempered.sort(dim=-1, descending=True, stable=True)
    limited = ranked.masked_fill(torch.arange(count, device=tempered.device) >= _column(top_k, tempered), -torch.inf)
    whole = limited.logsumexp(dim=-1, keepdim=True)
    if count < vocabulary:
        everything = _column(top_k == vocabulary, tempered)
        whole = torch.where(everything, tempered.logsumexp(dim=-1, keepdim=True), whole)
    probabilities = (limited - whole).exp()
    before = probabilities.cumsum(dim=-1) - probabilities
    kept = (before < _column(draw.top_p, tempered)) & (limited > -torch.inf)
    kept &= probabilities >= _column(draw.min_p, tempered) * probabilities[:, :1]
    # Rank 0 always stays: the sum before it is 0, top_p is above 0 and min_p at most 1.
    tokens = ids.gather(1, _invert(probabilities.masked_fill(~kept, 0.0), draw))
    if count == vocabulary:
        return tokens, torch.ones(len(tokens), dtype=torch.bool, device=tempered.device)
    # If a token beyond these were a candidate, or tied with one, then so would the last of these.
    last = ranked.gather(1, kept.sum(dim=-1, keepdim=True).clamp(min=1) - 1)  # with NaN logits none are kept
    known = torch.from_numpy((top_k <= count) | (top_k == vocabulary)).to(tempered.device)
    return tokens, (last > ranked[:, -1:]).squeeze(1) & known


def _invert(probabilities: Tensor, draw: Draw) -> Tensor:
    """The indices [M, 1] where the cumulative distribution passes the uniform number; never an entry of 0."""
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    point = torch.minimum(_column(draw.uniforms, probabilities) * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, point, right=True)


def _tempered(logits: Tensor, draw: Draw) -> Tensor:
    return logits if (draw.temperature == 1).all() else logits / _column(draw.temperature, logits)


def _column(values: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, non_blocking=True)[:, None]
