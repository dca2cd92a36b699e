"""Shapes of Llama 3.1's proportions for a number of parameters."""

from __future__ import annotations

from herdlm.plan.job import Shape

VOCAB = 128_256
HEAD = 128
GROUPS = 8  # key/value heads
ASPECT = 125  # hidden over layers: 128, 102 and 130 of the three published models
WIDE, WIDER = 3.5, 3.25  # feed-forward over hidden, up to 8,192 and from 16,384


def shape_of_size(params: float) -> Shape:
    """The shape nearest in size, with hidden a multiple of 1,024 (of 128 below 2,048)."""
    best: tuple[float, Shape] | None = None
    for hidden in (*range(256, 2048, 128), *range(2048, 40_960, 1024)):
        heads = hidden // HEAD
        ratio = WIDE if hidden <= 8192 else WIDER
        kv = next(k for k in (GROUPS, 4, 2, 1) if heads % k == 0 and k <= heads)
        for layers in (n for n in range(2, 400) if _divides(n) and 0.75 < n / (hidden / ASPECT) < 1.35):
            shape = Shape(layers, hidden, round(hidden * ratio / 256) * 256, heads, kv, VOCAB)
            off = abs(shape.parameters / params - 1) + 0.02 * abs(layers / (hidden / ASPECT) - 1)
            if best is None or off < best[0]:
                best = (off, shape)
    assert best is not None
    return best[1]


def _divides(layers: int) -> bool:
    """Whether pipelines divide so many layers: by 8, or by 16 with one layer less on both ends, as 126 of 405B."""
    return layers % 2 == 0 if layers < 24 else layers % 8 == 0 or (layers + 2) % 16 == 0
