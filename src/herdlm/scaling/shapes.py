"""Shapes of Llama 3.1's proportions for a number of parameters."""

from __future__ import annotations

from herdlm.plan.job import Shape

VOCAB = 128_256
HEAD = 128
GROUPS = 8  # key/value heads
ASPECT = 125  # hidden over layers: 128, 102 and 130 of the three published models
WIDE, WIDER = 3.5, 3.25  # feed-forward over hidden, up to 8,192 and from 16,384


def shape_of_size(params: float) -> Shape:
    """The shape nearest in size, with hidden a multiple of 1,024 (of 128 below 2,048) and layers by what is left."""
    best: tuple[float, Shape] | None = None
    for hidden in (*range(256, 2048, 128), *range(2048, 40_960, 1024)):
        for layers in {max(round(hidden / ASPECT * stretch), 2) for stretch in (0.8, 0.9, 1.0, 1.1, 1.25)}:
            heads = hidden // HEAD
            ratio = WIDE if hidden <= 8192 else WIDER
            kv = next(k for k in (GROUPS, 4, 2, 1) if heads % k == 0 and k <= heads)
            layers_even = layers + layers % 2
            shape = Shape(layers_even, hidden, round(hidden * ratio / 256) * 256, heads, kv, VOCAB)
            off = abs(shape.parameters / params - 1) + 0.02 * abs(layers / (hidden / ASPECT) - 1)
            if best is None or off < best[0]:
                best = (off, shape)
    assert best is not None
    return best[1]
