"""Policy gradient on a cluster: the seconds of a batch of samples, of taking the new weights, and of training on it.

All GPUs draw, then all train, as ``herdlm grpo`` does: samples come from the weights that are trained next.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp
from typing import Any

from herdlm.base.errors import InputError
from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.memory import GIGABYTE
from herdlm.plan.predict import fastest
from herdlm.plan.request import Request
from herdlm.plan.serving.load import MOST_SEQUENCES
from herdlm.plan.serving.plan import width_of
from herdlm.plan.serving.speed import BF16, Engine, ServingConstants
from herdlm.plan.stacks import stack_named
from herdlm.plan.traffic import Traffic

ENGINE_SHARE = 0.3  # of a GPU's memory, for the cache beside what training keeps (``engine_share`` of herdlm grpo)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of samples: prompts, answers to each, and mean tokens of a prompt and an answer."""

    prompts: int
    samples: int
    prompt: int
    answer: int

    @property
    def tokens(self) -> int:
        """Tokens to train on."""
        return self.prompts * self.samples * (self.prompt + self.answer)


def plan_grpo(
    request: Request, batch: Batch, machine: Machine, training: Constants, serving: ServingConstants
) -> dict[str, Any]:
    """Seconds of a round and the shares of sampling and training, as JSON. Rewards of programs are not counted.

    Args:
        request: the layout that trains; its tokens of a step are replaced by the batch's, in full rows.

    Raises:
        InputError: a sequence does not fit an engine, or a row.
    """
    if batch.prompt + batch.answer > request.seq_len:
        raise InputError(f"{batch.prompt + batch.answer} tokens exceed rows of {request.seq_len}", "Raise --seq-len")
    ranks = request.gpus // (request.tp * request.cp * request.pp)
    rows = ceil(batch.tokens / request.seq_len / max(ranks, 1)) * max(ranks, 1)
    trains = request.changed({"tokens_per_step": rows * request.seq_len})
    step = fastest(trains.jobs(), machine, training, stack_named(request.software))
    engine = _engine(request, batch, machine, training, serving)
    engines = request.gpus // engine.gpus
    answers = ceil(batch.prompts * batch.samples / engines)
    at_once = min(answers, engine.most_sequences(batch.prompt + batch.answer), MOST_SEQUENCES)
    reading = engine.prefill_busy(batch.prompt) * ceil(batch.prompts / engines)
    writing = answers / at_once * batch.answer * engine.decode(at_once, batch.prompt + batch.answer / 2)
    gathered = BF16 * request.shape.parameters / engine.gpus
    weights = Traffic(machine, training).gather(gathered, max(request.gpus // engine.gpus, 1), engine.gpus)
    parts = {"reading": reading, "sampling": writing, "weights": weights, "training": step.step.seconds}
    whole = sum(parts.values())
    width = max(width_of(engine), step.width)
    return {
        "seconds": {"value": whole, "low": whole * exp(-width), "high": whole * exp(width)},
        "parts": parts,
        "sampling_share": (reading + writing) / whole,
        "training_share": step.step.seconds / whole,
        "tokens_trained": batch.tokens,
        "rows": rows,
        "gpu_hours": whole * request.gpus / 3600,
        "engines": engines,
        "engine": {"tp": engine.tp, "pp": engine.pp, "sequences": at_once},
    }


def _engine(request: Request, batch: Batch, machine: Machine, training: Constants, serving: ServingConstants) -> Engine:
    """The smallest engine inside a node that holds a sequence beside its weights in its share of the memory."""
    tp = 1
    while tp <= min(machine.gpus_per_node, request.gpus):
        if request.shape.heads % tp == 0 and request.gpus % tp == 0:
            engine = Engine(request.shape, machine, serving, training, tp)
            beside = engine.weight_bytes / (machine.gpu.memory_gib * 2**30)
            engine = Engine(request.shape, machine, serving, training, tp, share=min(beside + ENGINE_SHARE, 0.9))
            if engine.most_sequences(batch.prompt + batch.answer) >= 1:
                return engine
        tp *= 2
    raise InputError(
        f"no engine in a node of {machine.gpus_per_node} GPUs holds the model's "
        f"{BF16 * request.shape.parameters / GIGABYTE:,.0f} GB with a sequence",
        "Give GPUs with more memory",
    )
