"""A step in any layout, to train or to measure: passes of this process's stages over its shards of the batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from herdlm.model.attention import Attend
from herdlm.model.config import RopeScaling
from herdlm.parallel.batches import BatchShard, shard_batch, shard_batches, split_rows
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.linear import DeferredGradients
from herdlm.parallel.mesh import Direction, Mesh
from herdlm.parallel.output_head import ShardedOutputHead
from herdlm.parallel.schedule import Action, forward_order, make_schedule
from herdlm.parallel.shards import before_backward, clip_gradients, free_gathered, reduce_deferred
from herdlm.parallel.stage import Stage
from herdlm.tokens.batch import Batch

TOLD_BYTES = 4096


class Objective(Protocol):
    """What is needed of ``train.objectives.Objective``."""

    def normalizer(self, batch: Batch) -> float: ...

    def read(
        self, output_head: ShardedOutputHead, hidden: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


Read = Callable[[ShardedOutputHead, Tensor, Tensor], Tensor]
"""From output head, hidden states [N, D] and targets [N] of the places that have a target to a value for each, [N]."""


@dataclass(slots=True, kw_only=True)
class _Passes:
    """Micro-batches on their way through the pipeline."""

    shards: list[BatchShard]
    attends: list[Attend]
    sending: list[tuple[Any, Tensor]] = field(default_factory=list)
    receiving: dict[tuple[str, int, int], tuple[Any, Tensor]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Step(_Passes):
    """What one training step holds while it runs, by stage and micro-batch."""

    objective: Objective
    divisor: float
    autocast: AbstractContextManager[Any]
    inputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    outputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    loss: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


class ParallelModel:
    """This process's stages of a model, and how they step together with those of all others."""

    def __init__(
        self,
        stages: Sequence[Stage],
        mesh: Mesh,
        config: ParallelConfig,
        *,
        layers: list[range],
        stream: torch.dtype,
        deferred: dict[int, DeferredGradients],
    ) -> None:
        self.mesh, self.config, self.stream, self.deferred = mesh, config, stream, deferred
        self.stages = {stage.number: stage for stage in stages}
        self.last = mesh.sizes.pp * config.stages_per_rank - 1
        self.kept = next(self.parameters()).dtype
        self.shape = stages[0].config
        self.layers = layers

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This process's parameters, sharded, under their names in the whole model."""
        for stage in self.stages.values():
            yield from stage.named_parameters()

    def parameters(self) -> Iterator[nn.Parameter]:
        """As :meth:`named_parameters`, without names."""
        return (parameter for _, parameter in self.named_parameters())

    def pipeline_rank_of(self, name: str) -> int:
        """The place in the pipeline of the weight ``name`` of the whole model."""
        if name.startswith("model.layers."):
            layer = int(name.split(".")[2])
            stage = next(number for number, layers in enumerate(self.layers) if layer in layers)
        else:
            stage = 0 if name.startswith("model.embed_tokens.") else self.last
        return stage % self.mesh.sizes.pp

    def train(self, mode: bool = True) -> None:
        """Put every stage into training mode, or out of it."""
        for stage in self.stages.values():
            stage.train(mode)

    def gradients(
        self, objective: Objective, batches: Sequence[Batch], autocast: AbstractContextManager[Any]
    ) -> tuple[float, float, dict[str, float]]:
        """Add the gradients of a step to the parameters.

        Args:
            batches: the step's whole micro-batches, the same on every process.

        Returns:
            On every process the loss of the whole step, what it was divided by, and sums of what else is logged.
        """
        shards = self.shards(batches)
        share = torch.tensor(sum(objective.normalizer(shard.batch) for shard in shards), dtype=torch.float64)
        share = share.to(self.mesh.device)
        dist.all_reduce(share, group=self.mesh.batch)
        step = _Step(
            shards=shards, attends=self._attends(shards), objective=objective, divisor=float(share), autocast=autocast
        )
        split = self.config.pipeline_schedule == "zero-bubble" and self.mesh.sizes.pp > 1
        order = make_schedule(self.mesh.sizes.pp, self.config.stages_per_rank, len(shards), split)[self.mesh.pp_rank]
        final = {action.stage: place for place, action in enumerate(order) if action.kind == "backward"}
        for place, action in enumerate(order):
            for due in order[place : place + 2]:  # the next one's input travels while this one runs
                self._post_receive(step, due)
            if action.kind == "forward":
                self._forward(step, action)
            elif action.kind == "backward":
                before_backward(self.stages[action.stage], is_last=final[action.stage] == place and not split)
                self._backward(step, action, split)
            else:
                self.deferred[action.stage].compute()
            step.sending = [pair for pair in step.sending if not pair[0].is_completed()]
        for work, _ in step.sending:
            work.wait()
        if split:
            for number, stage in self.stages.items():
                reduce_deferred(stage, self.deferred[number].sums)
        return self._tell(step)

    @torch.no_grad()
    def values(self, batches: Sequence[Batch], read: Read) -> list[Tensor]:
        """Forward passes alone: what ``read`` gives at every place whose weight is above zero.

        Weights are used as they are, in the type FSDP gathers them in; no autocast.

        Args:
            batches: whole, the same on every process.

        Returns:
            On every process for each batch [B, T] float64 on the CPU, 0 where there is no target.
        """
        sizes = self.mesh.sizes
        micros = [
            micro for batch in batches for micro in split_rows(batch, self.mesh, self.config.rows_per_micro_batch)
        ]
        shards = [shard_batch(micro, self.mesh) for micro in micros]
        passes = _Passes(shards=shards, attends=self._attends(shards))
        order = forward_order(sizes.pp, self.config.stages_per_rank, len(shards))[self.mesh.pp_rank]
        seen = [torch.zeros(micro.tokens.shape, dtype=torch.float64, device=self.mesh.device) for micro in micros]
        for place, action in enumerate(order):
            for due in order[place : place + 2]:
                self._post_receive(passes, due)
            stage, shard = self.stages[action.stage], shards[action.micro]
            x = shard.batch.tokens if stage.is_first else self._received(passes, "forward", action)
            out = stage(x, shard.batch.positions, passes.attends[action.micro])
            if stage.is_last:
                here = shard.batch.weights > 0
                found = torch.zeros(here.shape, dtype=torch.float64, device=here.device)
                output_head = ShardedOutputHead(stage, shard, self.mesh)
                found[here] = read(output_head, out[here], shard.batch.targets[here]).double()
                seen[action.micro][shard.rows[:, None], shard.places] = found
            else:
                self._send(passes, "forward", action.stage + 1, action.micro, out)
            # A stage that runs ahead waits: what is under way stays bounded, and enough for a round of the pipeline.
            for work, _ in passes.sending[: -2 * sizes.pp]:
                work.wait()
            passes.sending = [pair for pair in passes.sending if not pair[0].is_completed()]
        for work, _ in passes.sending:
            work.wait()
        for stage in self.stages.values():
            free_gathered(stage)
        every = torch.cat([whole.flatten() for whole in seen])
        if self.last in self.stages:
            dist.all_reduce(every, group=self.mesh.batch)
        if sizes.pp > 1:
            dist.broadcast(every, group=self.mesh.pp.get_group(), group_src=self.last % sizes.pp)
        runs = torch.split(every.cpu(), [batch.token_count for batch in batches])
        return [run.view(batch.tokens.shape) for run, batch in zip(runs, batches, strict=True)]

    def set_rope_scaling(self, scaling: RopeScaling) -> None:
        """Give every stage a RoPE scaling; weights stay as they are."""
        for stage in self.stages.values():
            stage.set_rope_scaling(scaling)
        self.shape = self.shape.model_copy(update={"rope_scaling": scaling})

    def _attends(self, shards: Sequence[BatchShard]) -> list[Attend]:
        return [shard.attend(self.mesh) for shard in shards]

    def shards(self, batches: Sequence[Batch]) -> list[BatchShard]:
        """This process's shards of a step's whole micro-batches."""
        return shard_batches(batches, self.mesh, self.config.rows_per_micro_batch)

    def clip(self, max_norm: float) -> float:
        """Scale gradients to a norm of at most ``max_norm``; returns what it was, over all processes."""
        return clip_gradients(self.parameters(), self.mesh, max_norm)

    def _forward(self, step: _Step, action: Action) -> None:
        at, stage, shard = (action.stage, action.micro), self.stages[action.stage], step.shards[action.micro]
        x = shard.batch.tokens if stage.is_first else self._received(step, "forward", action).requires_grad_()
        with step.autocast:
            out = stage(x, shard.batch.positions, step.attends[action.micro])
            if stage.is_last:
                output_head = ShardedOutputHead(stage, shard, self.mesh)
                loss, sums = step.objective.read(output_head, out.flatten(0, 1), shard.batch)
                out = loss / step.divisor
                step.loss += float(out.detach())
                for name, value in sums.items():
                    step.sums[name] = step.sums.get(name, 0.0) + float(value)
        step.inputs[at], step.outputs[at] = x, out
        if not stage.is_last:
            self._send(step, "forward", action.stage + 1, action.micro, out.detach())

    def _backward(self, step: _Step, action: Action, split: bool) -> None:
        at, stage = (action.stage, action.micro), self.stages[action.stage]
        x, out = step.inputs.pop(at), step.outputs.pop(at)
        grad = None if stage.is_last else self._received(step, "backward", action)
        if split:
            deferred = self.deferred[action.stage]
            deferred.waiting.append([])
            deferred.on = True
        torch.autograd.backward(out, grad)
        if split:
            deferred.on = False
        if not stage.is_first:
            assert x.grad is not None
            self._send(step, "backward", action.stage - 1, action.micro, x.grad)

    def _pipe(self, direction: Direction, stage: int) -> tuple[int, int, dist.ProcessGroup]:
        """Who sends and who receives what ``stage`` waits for, and the group it travels over."""
        ranks = self.mesh.sizes.pp
        sender = (stage - 1 if direction == "forward" else stage + 1) % ranks
        receiver = stage % ranks
        wraps = (sender > receiver) == (direction == "forward")
        return sender, receiver, self.mesh.pipes[direction, wraps]

    def _send(self, step: _Passes, direction: Direction, stage: int, micro: int, x: Tensor) -> None:
        _, receiver, group = self._pipe(direction, stage)
        x = x.contiguous()
        step.sending.append((dist.isend(x, group=group, group_dst=receiver), x))

    def _post_receive(self, step: _Passes, action: Action) -> None:
        """Start to receive what an action needs, if it has not been started."""
        key = (action.kind, action.stage, action.micro)
        if action.kind == "weights" or key in step.receiving:
            return
        if action.stage == (0 if action.kind == "forward" else self.last):
            return
        shard, sizes = step.shards[action.micro].batch.tokens, self.mesh.sizes
        dim = self.stages[action.stage].config.dim
        x = torch.empty(len(shard), shard.shape[1] // sizes.tp, dim, dtype=self.stream, device=self.mesh.device)
        sender, _, group = self._pipe(action.kind, action.stage)
        step.receiving[key] = (dist.irecv(x, group=group, group_src=sender), x)

    def _received(self, step: _Passes, direction: Direction, action: Action) -> Tensor:
        work, x = step.receiving.pop((direction, action.stage, action.micro))
        work.wait()
        return x

    def _tell(self, step: _Step) -> tuple[float, float, dict[str, float]]:
        """Sum what the last stage saw over all shards of the batch, and tell every stage."""
        seen: dict[str, float] = {}
        if self.last in self.stages:
            names = sorted(step.sums)
            values = torch.tensor([step.loss, *(step.sums[name] for name in names)], dtype=torch.float64)
            values = values.to(self.mesh.device)
            dist.all_reduce(values, group=self.mesh.batch)
            seen = dict(zip(["loss", *names], values.tolist(), strict=True))
        if self.mesh.sizes.pp > 1:
            text = json.dumps(seen).encode().ljust(TOLD_BYTES)
            told = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(self.mesh.device)
            dist.broadcast(told, group=self.mesh.pp.get_group(), group_src=self.last % self.mesh.sizes.pp)
            seen = json.loads(bytes(told.tolist()))
        return seen.pop("loss"), step.divisor, seen
