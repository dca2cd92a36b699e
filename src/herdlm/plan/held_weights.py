"""Values that a rank holds of each pipeline stage: its share between steps, and whole while it computes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from herdlm.model.config import ModelConfig
from herdlm.plan.cost import Parameter, layer_parameters
from herdlm.plan.job import Shape


@dataclass(frozen=True, slots=True)
class Held:
    """Numbers of values: ``share`` that a rank keeps, ``whole`` that FSDP gathers, after tensor parallelism."""

    share: int
    whole: int

    def __add__(self, other: Held) -> Held:
        return Held(self.share + other.share, self.whole + other.whole)

    def times(self, factor: int) -> Held:
        """Of ``factor`` modules like this."""
        return Held(self.share * factor, self.whole * factor)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a model, from which every stage is put together."""

    layer: Held
    embedding: Held
    norm: Held
    head: Held

    def stage(self, layers: int, *, first: bool, last: bool, tied: bool) -> tuple[Held, Held]:
        """A stage's layers, and what is gathered together beside them: embedding, last norm and head."""
        ends = Held(0, 0)
        if first:
            ends += self.embedding
        if last:
            ends += self.norm
            if not (tied and first):
                ends += self.head
        return self.layer.times(layers), ends


@cache
def parts_of(model: Shape | ModelConfig, tp: int, sharded: int) -> Parts:
    """The parts of a model after tensor parallelism, and their shares among ``sharded`` ranks; both round up."""
    shape = Shape.of(model) if isinstance(model, ModelConfig) else model
    layer = list(layer_parameters(model) if isinstance(model, ModelConfig) else _layer(model))
    table = Parameter("table", (shape.vocab, shape.hidden), 0)
    score = isinstance(model, ModelConfig) and model.head == "score"
    head = Parameter("score", (1, shape.hidden), None) if score else table
    norm = Parameter("norm", (shape.hidden,), None)
    return Parts(*(_held(parts, tp, sharded) for parts in (layer, [table], [norm], [head])))


def _held(parameters: Iterable[Parameter], tp: int, sharded: int) -> Held:
    share = whole = 0
    for part in parameters:
        shape = [-(-n // tp) if place == part.cut else n for place, n in enumerate(part.shape)]
        whole += math.prod(shape)
        share += -(-shape[0] // sharded) * math.prod(shape[1:])
    return Held(share, whole)


def _layer(shape: Shape) -> Iterator[Parameter]:
    """The weights of a layer without biases; a plain feed-forward has no gate."""
    config = ModelConfig(
        vocab_size=shape.vocab,
        dim=shape.hidden,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        ffn_dim=shape.ffn,
        head_dim=shape.head_size,
    )
    return (part for part in layer_parameters(config) if shape.mlp == "gated" or "gate_proj" not in part.name)
