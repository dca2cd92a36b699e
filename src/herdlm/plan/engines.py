"""The engine that draws a model's answers on a node: how many GPUs share it, and how many sequences it decodes at once.

An engine does not span nodes. Tensor parallelism takes as many GPUs as divide the heads, pipeline stages the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import split_layers
from herdlm.parallel.sharding import indivisible
from herdlm.plan.cost import stage_parameters
from herdlm.plan.memory import BF16, KEYS_AND_VALUES, PAGE, Node, bytes_of

ENOUGH = 32  # sequences at once, from which more GPUs per engine are not worth their exchange


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """An engine. Sizes are in bytes, of the GPU that holds most.

    Attributes:
        weights: of the model's part.
        cache: of a sequence of ``context`` tokens.
        sequences: decoded at once; 0 if not one fits.
    """

    tensor_parallel: int
    pipeline_parallel: int
    weights: int
    cache: int
    context: int
    sequences: int

    @property
    def gpus(self) -> int:
        """GPUs of one engine."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def memory(self) -> int:
        """Weights, and the cache of all sequences."""
        return self.weights + self.sequences * self.cache


def smallest_engine(model: ModelConfig, node: Node, context: int, *, most: int = 256, width: int = BF16) -> EnginePlan:
    """The engine on the fewest GPUs that decodes enough sequences at once, else the one that decodes most.

    One with 0 sequences means that not even a whole node holds the model with a sequence.
    """
    plans = []
    for gpus in (1 << power for power in range(node.gpus.bit_length())):
        tp = math.gcd(model.heads, gpus)
        if not indivisible(model, tp) and gpus // tp <= model.layers:
            plans.append(engine(model, node, context, tp, gpus // tp, most=most, width=width))
    best = max(plans, key=lambda plan: (plan.sequences, plan.gpus))
    return next((plan for plan in plans if plan.sequences >= min(ENOUGH, most)), best)


def engine(
    model: ModelConfig, node: Node, context: int, tp: int, pp: int, *, most: int = 256, width: int = BF16
) -> EnginePlan:
    """An engine over ``tp`` x ``pp`` GPUs, for at most ``most`` sequences of ``context`` tokens.

    Args:
        width: bytes of a value.

    Raises:
        InputError: the model cannot be divided so.
    """
    for name, size in indivisible(model, tp).items():
        raise InputError(f"model.{name} {size} is not a multiple of align.tensor_parallel {tp}", "Set it to a divisor")
    if pp > model.layers:
        raise InputError(f"align.pipeline_parallel {pp} exceeds the {model.layers} layers", "Lower it")
    stages = split_layers(model.layers, pp)
    held = max(sum(bytes_of(part, model, (), tp) for part in stage_parameters(model, layers)) for layers in stages)
    weights = held // BF16 * width
    heads = -(-model.kv_heads // tp)
    token = max(map(len, stages)) * KEYS_AND_VALUES * heads * model.head_size * width
    cache = -(-context // PAGE) * PAGE * token
    return EnginePlan(tp, pp, weights, cache, context, min(max(node.usable - weights, 0) // cache, most))
