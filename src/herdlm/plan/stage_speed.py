"""Seconds of post-training, by the planner's models of a training step and of an engine (docs/planner.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import cast

from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes
from herdlm.plan.constants import Constants, read_constants
from herdlm.plan.hardware import Machine, read_hardware
from herdlm.plan.job import Job, Layout, Recompute, Schedule, Shape
from herdlm.plan.serving.speed import BF16, Engine, serving_constants
from herdlm.plan.step_time import step_time

RECOMPUTE: dict[str, Recompute] = {"none": "none", "selective": "selective", "layer": "full"}


@dataclass(frozen=True)
class StageSpeed:
    """Speeds of one model on a machine.

    Values of 4 bytes take twice as long as BF16: tensor cores run TF32 at half of its rate, and the constants of
    engines have none of FP32.
    """

    model: ModelConfig
    machine: Machine

    @cached_property
    def training(self) -> Constants:
        """Constants of the time model."""
        return read_constants()

    def step(
        self,
        parallel: ParallelConfig,
        sizes: Sizes,
        *,
        seq_len: int,
        document: int,
        at_once: int,
        micro_batches: int,
        precision: str,
    ) -> float:
        """Seconds of an optimizer step.

        Args:
            document: tokens that attend to each other. A row of ``seq_len`` packs several, so it costs what its halves
                do, as long as they hold a document.
            at_once: rows of a micro-batch on a data-parallel rank.
        """
        row = seq_len
        while row % 2 == 0 and row // 2 >= document:
            row //= 2
        vpp = parallel.stages_per_rank if sizes.pp > 1 else 1
        schedule = parallel.pipeline_schedule if sizes.pp > 1 else "1f1b"
        layout = Layout(
            tp=sizes.tp,
            cp=sizes.cp,
            pp=sizes.pp,
            vpp=vpp,
            dp_shard=sizes.dp_shard,
            dp_replicate=sizes.dp_replicate,
            micro_batch=at_once * (seq_len // row),
            schedule=cast(Schedule, schedule),
            recompute=RECOMPUTE[parallel.activation_checkpointing],
            precision="fp8" if precision == "fp8" else "bf16",
            reshard_after_forward=parallel.reshard_after_forward,
        )
        tokens = micro_batches * at_once * sizes.dp * seq_len
        job = Job(Shape.of(self.model), layout, layout.gpus, self.machine.gpu.name, row, tokens)
        return step_time(job, self.machine, self.training).seconds * (2 if precision == "float32" else 1)

    def engine(self, tp: int, pp: int) -> Engine:
        """An engine in BF16."""
        machine = self.machine
        if tp > machine.gpus_per_node:  # the caller names it as a problem; a time is wanted all the same
            machine = replace(machine, gpus_per_node=tp)
        return Engine(Shape.of(self.model), machine, serving_constants(), self.training, tp, pp)

    def drawing(
        self, engine: Engine, engines: int, asked: tuple[int, int], lengths: tuple[int, int], most: int, *, width: int
    ) -> tuple[float, float]:
        """Seconds of reading prompts and of writing answers.

        Args:
            asked: prompts, and answers to all of them together; those to a prompt share what was read.
            lengths: tokens of a prompt and of an answer.
            most: sequences that an engine decodes at a time.
        """
        (prompts, answers), (prompt, answer) = asked, lengths
        slower = width / BF16
        sequences = min(most, ceil(answers / engines))
        waves = answers / (engines * sequences)
        read = engine.prefill_busy(prompt) * prompts / engines
        return read * slower, waves * answer * engine.decode(sequences, prompt + answer / 2) * slower

    def reading(self, engine: Engine, engines: int, texts: float, tokens: float, width: int) -> float:
        """Seconds of reading ``texts`` of ``tokens`` each."""
        return engine.prefill_busy(tokens) * texts / engines * width / BF16


def machine_of(kind: str, gpus_per_node: int) -> Machine:
    """The machine of a kind of GPU, in nodes of this many.

    Raises:
        InputError: the kind is not known.
    """
    return replace(read_hardware().machine(kind), gpus_per_node=gpus_per_node)
