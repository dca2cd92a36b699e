"""Shares of a run's data mixes under caps on how often each source is read.

A run reads several mixes in sequence: main part, phases, anneal. If a source would be read too often, the run uses the
nearest shares that the caps allow, measured by relative entropy weighted by tokens:

    minimize  sum_m T_m sum_s x_ms ln(x_ms / w_ms)   over  sum_s x_ms = 1  and  sum_m T_m x_ms <= C_s

where T_m are the tokens of mix m, w the configured shares and C_s the tokens that the cap allows of source s. The
solution is x_ms = r_m g_s w_ms, with g_s = 1 for every source below its cap: a source at its cap loses the same
fraction of its share in every mix, and the mix's other sources gain it in proportion to their shares. For one mix,
this is water-filling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SLACK = 1e-9  # of the tokens of a run, for rounding
SWEEPS = 200_000


def capped_shares(
    tokens: NDArray[np.float64], wanted: NDArray[np.float64], supply: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The shares nearest to ``wanted`` that every source's supply allows. They exist if :func:`scarce` returns None.

    Args:
        tokens: read under each mix, [mixes].
        wanted: shares, [mixes, sources]; a mix's add up to 1.
        supply: tokens that may be read of each source, infinite without a limit, [sources].

    Returns:
        shares, [mixes, sources]; ``wanted`` itself if every supply suffices.
    """
    amounts = tokens[:, None] * wanted
    kept = np.ones(len(supply))
    for _ in range(SWEEPS):
        raised = 1 / (wanted @ kept)
        asked = raised @ amounts
        before, kept = kept, np.divide(supply, asked, out=np.ones_like(asked), where=asked > supply)
        if np.abs(kept - before).max() <= 1e-15:
            break
    if (kept == 1.0).all():
        return wanted
    shares: NDArray[np.float64] = wanted * kept
    shares /= shares.sum(1, keepdims=True)
    return shares


def scarce(
    tokens: NDArray[np.float64], wanted: NDArray[np.float64], supply: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Mixes that need more tokens than their sources may supply, and those sources; None if there are none.

    Computed by a maximum flow of tokens from sources to mixes; if it falls short, the minimum cut gives the result.
    Arguments are those of :func:`capped_shares`.
    """
    mixes, sources = wanted.shape
    total = float(tokens.sum())
    ends = mixes + sources + 2
    begin, end = ends - 2, ends - 1
    room = np.zeros((ends, ends))
    room[begin, :mixes] = tokens
    room[:mixes, mixes:begin] = np.where(wanted > 0, total, 0.0)
    room[mixes:begin, end] = np.minimum(supply, total)
    short = total
    while True:
        came_from = _search(room, begin, SLACK * total / ends)
        if came_from[end] < 0:
            break
        path = [end]
        while path[-1] != begin:
            path.append(int(came_from[path[-1]]))
        steps = list(zip(path[1:], path[:-1], strict=True))
        push = min(room[a, b] for a, b in steps)
        for a, b in steps:
            room[a, b] -= push
            room[b, a] += push
        short -= push
    if short <= SLACK * total:
        return None
    reached = came_from >= 0
    return reached[:mixes], reached[mixes:begin]


def _search(room: NDArray[np.float64], begin: int, least: float) -> NDArray[np.int64]:
    """Breadth-first search over edges with room: the predecessor of each node, -1 if it is not reached."""
    came_from = np.full(len(room), -1, np.int64)
    came_from[begin] = begin
    queue = [begin]
    for node in queue:
        for other in np.flatnonzero((room[node] > least) & (came_from < 0)):
            came_from[other] = node
            queue.append(int(other))
    return came_from
