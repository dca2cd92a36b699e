"""Memory of a training step on each pipeline rank, by category, at the moment when the rank holds most.

Nothing is allocated. State, gathered weights and sums of gradients are exact; activations are the tensors that layers
save (:mod:`herdlm.plan.activations`) times the micro-batches that the schedule has in flight at each moment
(:mod:`herdlm.plan.in_flight`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes, split_layers
from herdlm.plan.activations import FP32, Device, LayerPass, Widths, tile_pairs
from herdlm.plan.held_weights import Held, Parts, parts_of
from herdlm.plan.in_flight import Moments, moments
from herdlm.plan.job import Job, Layout, Shape
from herdlm.plan.loss_memory import LossPass

BF16 = 2
MOMENTS = 2  # that AdamW keeps of each weight
BATCH_BYTES = 36  # of a place of a row: tokens, targets, documents and positions in 64 bits, weights in 32
CHANNEL = 2 * 4 * 2**20 * 16  # NCCL's buffers of a group: 4 MiB each way on 16 channels
RUNTIME = 1 << 30  # the context of the device and its libraries
FRAGMENTED = 0.03  # of what a step allocates and frees


class TrainingMemory(TypedDict):
    """Bytes of a pipeline rank when it holds most; they add up to ``sum``.

    ``gathered`` are whole weights, ``accumulated`` gradients of whole weights that are not reduced yet, ``reduction``
    the buffer in which they are; ``temporary`` is of the pass that runs, ``messages`` between pipeline stages.
    """

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    accumulated: int
    reduction: int
    activations: int
    logits: int
    temporary: int
    messages: int
    batch: int
    sum: int


CATEGORIES = tuple(name for name in TrainingMemory.__annotations__ if name != "sum")


@dataclass(frozen=True)
class StepMemory:
    """A training step whose memory is asked for.

    Attributes:
        model: its shape.
        rows: of a micro-batch on one data-parallel rank.
        precision: of matrix products, "float32", "bfloat16" or "fp8".
        layers_per_stage: of each pipeline stage; None spreads them as training does.
    """

    model: Shape | ModelConfig
    layout: Layout
    rows: int
    seq_len: int
    micro_batches: int
    precision: str = "bfloat16"
    layers_per_stage: tuple[int, ...] | None = None
    device: Device = "gpu"

    @classmethod
    def of(cls, job: Job) -> StepMemory:
        """The step of a job of the planner."""
        layout = job.layout
        precision = "fp8" if layout.precision == "fp8" else "bfloat16"
        return cls(job.shape, layout, layout.micro_batch, job.seq_len, job.micro_batches, precision)

    @cached_property
    def shape(self) -> Shape:
        """The model's shape as the planner has it."""
        return Shape.of(self.model) if isinstance(self.model, ModelConfig) else self.model

    @cached_property
    def stages(self) -> list[int]:
        """Layers of every pipeline stage."""
        count, given = self.layout.pp * self.layout.vpp, self.layers_per_stage
        return [len(part) for part in split_layers(self.shape.layers, count, given if self.layout.pp > 1 else None)]

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP runs the model, on one shard or more."""
        return self.layout.sharded * self.layout.dp_replicate > 1

    @cached_property
    def widths(self) -> Widths:
        """Bytes of a value in the residual stream and in products."""
        if self.precision == "float32":
            return Widths(FP32, FP32)
        return Widths(BF16 if self.is_sharded else FP32, BF16)

    @cached_property
    def layer(self) -> LayerPass:
        """One micro-batch in one layer."""
        layout = self.layout
        tokens = -(-self.rows * self.seq_len // layout.cp)
        return LayerPass(
            self.shape, layout.tp, layout.cp, tokens, self.seq_len, self.widths, self.is_sharded, self.device
        )

    @cached_property
    def loss(self) -> LossPass:
        """One micro-batch in the last norm, the head and the loss."""
        score = isinstance(self.model, ModelConfig) and self.model.head == "score"
        return LossPass(self.layer, is_score=score)

    @cached_property
    def parts(self) -> Parts:
        """Values of the model's parts on a rank."""
        return parts_of(self.model, self.layout.tp, self.layout.sharded)

    def rank(self, number: int) -> TrainingMemory:
        """The memory of a pipeline rank."""
        layout = self.layout
        found = moments(layout.pp, layout.vpp, self.micro_batches, layout.schedule, number)
        return _Rank(self, number).most(found)

    def ranks(self) -> list[TrainingMemory]:
        """The memory of every pipeline rank."""
        return [self.rank(number) for number in range(self.layout.pp)]

    def most(self) -> TrainingMemory:
        """The memory of the rank that holds most.

        Ranks between the first and the last differ in their layers and in what is in flight, which falls from rank to
        rank: only the first of them with the most layers can hold most.
        """
        last = self.layout.pp - 1
        layers = [sum(self.stages[number :: self.layout.pp]) for number in range(last + 1)]
        fullest = max(range(1, last), key=lambda number: (layers[number], -number), default=0)
        return max((self.rank(n) for n in sorted({0, fullest, last})), key=lambda memory: memory["sum"])

    def least(self) -> int:
        """Bytes that the first rank needs at the least, by a short count: state, and activations in flight."""
        layout, recompute = self.layout, self.layout.recompute
        layers = self.stages[:: layout.pp]
        flying = min(self.micro_batches, layout.pp) * sum(layers)
        if layout.vpp > 1:
            passes = min(layout.vpp * self.micro_batches, (layout.vpp + 1) * layout.pp - 2)
            flying = max(flying, passes * min(layers))
        if layout.offload != "none" or layout.sharding != "fsdp":
            return 0
        held = self.parts.layer.share * sum(layers) + (layout.pp > 1) * self.parts.embedding.share
        return (1 + MOMENTS) * FP32 * held + flying * self.layer.kept(recompute)


@dataclass(frozen=True)
class _Rank:
    """One pipeline rank of a step; arrays have a value for each of its stages."""

    step: StepMemory
    number: int

    @cached_property
    def stages(self) -> list[int]:
        return list(range(self.number, len(self.step.stages), self.step.layout.pp))

    @cached_property
    def held(self) -> list[tuple[Held, Held]]:
        last, tied = len(self.step.stages) - 1, self.step.shape.tied
        return [
            self.step.parts.stage(self.step.stages[stage], first=stage == 0, last=stage == last, tied=tied)
            for stage in self.stages
        ]

    def _array(self, values: list[int]) -> NDArray[np.int64]:
        return np.array(values, dtype=np.int64)

    @cached_property
    def layers(self) -> NDArray[np.int64]:
        return self._array([self.step.stages[stage] for stage in self.stages])

    @cached_property
    def share(self) -> NDArray[np.int64]:
        return self._array([layers.share + ends.share for layers, ends in self.held])

    @cached_property
    def whole(self) -> NDArray[np.int64]:
        return self._array([layers.whole + ends.whole for layers, ends in self.held])

    @property
    def _matrices(self) -> NDArray[np.int64]:
        """Values of matrices that multiply: those of layers and the head."""
        parts = self.step.parts
        return self.layers * parts.layer.whole + self._is_last() * parts.head.whole

    def _is_last(self) -> NDArray[np.int64]:
        return self._array([stage == len(self.step.stages) - 1 for stage in self.stages])

    def most(self, at: Moments) -> TrainingMemory:
        """Bytes at the moment of most."""
        step = self.step
        state = self._state()
        columns = self._passing(at)
        total = sum(columns.values())
        assert isinstance(total, np.ndarray)
        place = int(total.argmax())
        moving = {name: int(values[place]) for name, values in columns.items()}
        batch = BATCH_BYTES * step.layer.tokens
        if step.device == "cpu" and step.layout.cp == 1:  # the masks of attention's tiles
            batch += FP32 * step.rows * tile_pairs(step.seq_len)
        parts = {name: state.get(name, 0) + moving.get(name, 0) for name in CATEGORIES}
        parts["batch"] += step.micro_batches * batch
        return {**parts, "sum": sum(parts.values())}  # type: ignore[typeddict-item]

    def _state(self) -> dict[str, int]:
        step, layout = self.step, self.step.layout
        share, whole = int(self.share.sum()), int(self.whole.sum())
        optimizer = MOMENTS * FP32 * share
        if layout.sharding != "fsdp":  # weights of products on every rank, FP32 copies in the optimizer's share
            pieces = 1 if layout.sharding == "ddp" else layout.dp * layout.cp
            own = -(-whole // pieces)
            return {"weights": step.widths.product * whole, "optimizer": (1 + MOMENTS) * FP32 * own * self._kept_state}
        return {"weights": FP32 * share, "optimizer": optimizer * self._kept_state}

    @property
    def _kept_state(self) -> int:
        return 0 if self.step.layout.offload == "optimizer" else 1

    def _passing(self, at: Moments) -> dict[str, NDArray[Any]]:
        """Bytes at each moment of what comes and goes in a step."""
        step, layout, one = self.step, self.step.layout, self.step.layer
        found: dict[str, NDArray[Any]] = {}
        width = step.widths.product
        largest = max(step.parts.layer.whole, *(ends.whole for _, ends in self.held))
        if layout.sharding != "fsdp":
            found["gradients"] = np.full(len(at.forward), FP32 * int(self.whole.sum()))
        elif step.is_sharded:
            found["gradients"] = at.reduced @ (FP32 * self.share)
            found["gathered"] = width * self._gathered(at)
            found["accumulated"] = at.summed @ (FP32 * self.whole)
            found["reduction"] = np.asarray(at.final.any(1) * FP32 * largest)
        else:
            found["gradients"] = (at.summed | at.reduced) @ (FP32 * self.share)
        found["activations"] = self._activations(at)
        grads = width * step.parts.layer.whole if step.is_sharded and layout.sharding == "fsdp" else 0
        backward = one.backward + one.recomputed(layout.recompute) + grads
        runs = at.backward.any(1)
        # The loss's backward pass ends before that of the layers begins.
        loss = (at.backward @ self._is_last() > 0) & (self.step.loss.backward > backward)
        read = at.forward @ self._is_last() > 0
        found["logits"] = loss * self.step.loss.backward + read * self.step.loss.forward
        found["temporary"] = (runs & ~loss) * backward + (at.forward.any(1) & ~read) * self._forward
        found["messages"] = np.asarray((2 if layout.pp > 1 else 0) * one.input * (at.forward | at.backward).any(1))
        return found

    @property
    def _forward(self) -> int:
        """Bytes that a forward pass needs for a moment: the gathered input of a product and its result."""
        one = self.step.layer
        return one.widths.product * one.tokens * one.shape.hidden * (2 if one.tp > 1 else 1)

    def _gathered(self, at: Moments) -> NDArray[np.int64]:
        """Values of whole weights that are there; with resharding, between two backward passes also all of them."""
        step = self.step
        if not step.layout.reshard_after_forward or step.micro_batches > 1:
            return at.gathered @ self.whole
        few = self._array([ends.whole for _, ends in self.held]) + 2 * step.parts.layer.whole
        return at.gathered @ np.minimum(few, self.whole)

    def _activations(self, at: Moments) -> NDArray[np.int64]:
        step, one = self.step, self.step.layer
        kept = one.kept(step.layout.recompute)
        rotation = one.tokens * step.shape.head_size * FP32
        output = (1 - self._is_last()) * one.input
        each = self.layers * kept + rotation + output + self._is_last() * self.step.loss.kept
        if not step.is_sharded and step.widths.product < FP32:  # autocast copies matrices for every pass
            each = each + step.widths.product * self._matrices
        if step.layout.offload == "activations":
            each = np.minimum(each, 2 * kept)
            found = at.in_flight.clip(max=1) @ each
        else:
            found = at.in_flight @ each + at.deferred @ (self.layers * one.deferred)
        # The layer whose gradients are reduced has freed its own.
        left: NDArray[np.int64] = np.maximum(found - at.final @ np.full(len(self.layers), kept), 0)
        return left


def training_memory(
    model: ModelConfig, parallel: ParallelConfig, sizes: Sizes, *, row_tokens: int, micro_batches: int, precision: str
) -> TrainingMemory:
    """Memory of a recipe's step on the rank that holds most.

    Args:
        row_tokens: tokens of the rows of a micro-batch on one data-parallel rank.
        micro_batches: of a step.
        precision: of matrix products.
    """
    layout = layout_from(parallel, sizes)
    rows, seq_len = max(row_tokens // model.max_seq_len, 1), min(row_tokens, model.max_seq_len)
    step = StepMemory(
        model, layout, rows, seq_len, micro_batches, precision, parallel.layers_per_stage if sizes.pp > 1 else None
    )
    return step.most()


def layout_from(parallel: ParallelConfig, sizes: Sizes, rows: int = 1) -> Layout:
    """The planner's layout of a recipe's."""
    recompute = {"layer": "full"}.get(parallel.activation_checkpointing, parallel.activation_checkpointing)
    return Layout(
        tp=sizes.tp,
        cp=sizes.cp,
        pp=sizes.pp,
        vpp=parallel.stages_per_rank,
        dp_shard=sizes.dp_shard,
        dp_replicate=sizes.dp_replicate,
        micro_batch=rows,
        schedule=parallel.pipeline_schedule,
        recompute=recompute,  # type: ignore[arg-type]
        reshard_after_forward=parallel.reshard_after_forward,
    )


def overhead(memory: TrainingMemory, groups: int) -> dict[str, int]:
    """Bytes of a GPU beside the tensors of a step, which no run on a CPU shows.

    Args:
        groups: of ranks that communicate.
    """
    state = memory["weights"] + memory["optimizer"]
    return {
        "communication": groups * CHANNEL,
        "runtime": RUNTIME,
        "fragmentation": int(FRAGMENTED * (memory["sum"] - state)),
    }


def groups_of(layout: Layout) -> int:
    """Groups of ranks in which a GPU communicates."""
    sizes = (layout.tp, layout.cp, layout.sharded, layout.dp_replicate)
    return sum(size > 1 for size in sizes) + (3 if layout.pp > 1 else 0)


def memory_gib_per_gpu(job: Job) -> dict[str, float]:
    """GiB on the GPU that holds most, by category, for a job of the planner; ``sum`` is what the GPU has to have."""
    found = StepMemory.of(job).most()
    parts: dict[str, int] = {name: found[name] for name in CATEGORIES}  # type: ignore[literal-required]
    parts |= overhead(found, groups_of(job.layout))
    gib = {name: count / 2**30 for name, count in parts.items()}
    return {**gib, "sum": sum(gib.values())}
