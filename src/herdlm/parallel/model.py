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
from herdlm.parallel.batches import BatchShard, shard_batches
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.linear import DeferredGradients
from herdlm.parallel.mesh import Direction, Mesh
from herdlm.parallel.output_head import ShardedOutputHead
from herdlm.parallel.schedule import Action, forward_order, make_schedule
from herdlm.parallel.shards import before_backward, clip_gradients, free_gathered, reduce_deferred
from herdlm.parallel.stage import Stage
from herdlm.tokens.batch import Batch

NAMES_BYTES = 4096  # for the names of what an objective logs, as JSON


class Objective(Protocol):
    """The methods of ``train.objectives.Objective`` that a step calls."""

    def normalizer(self, batch: Batch) -> float: ...

    def read(
        self, output_head: ShardedOutputHead, hidden: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


Read = Callable[[ShardedOutputHead, Tensor, Tensor], Tensor]
"""Computes a value [N] for each target, from the output head, hidden states [N, D] and targets [N]."""


@dataclass(slots=True, kw_only=True)
class _Passes:
    """Micro-batches on their way through the pipeline."""

    shards: list[BatchShard]
    attends: list[Attend]
    sending: list[tuple[Any, Tensor]] = field(default_factory=list)
    receiving: dict[tuple[str, int, int], tuple[Any, Tensor]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Step(_Passes):
    """The state of one training step; inputs and outputs by stage and micro-batch."""

    objective: Objective
    normalizer: float
    autocast: AbstractContextManager[Any]
    loss: Tensor
    inputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    outputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)


class ParallelModel:
    """This process's stages of a model, and how they step together with those of all others.

    Args:
        layers: of every stage of the pipeline.
        stream: the type of the activations that stages exchange.
        deferred: by stage, the weight gradients that a zero-bubble schedule computes late.
    """

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
        """The pipeline rank that holds the weight ``name`` of the whole model."""
        if name.startswith("model.layers."):
            layer = int(name.split(".")[2])
            stage = next(number for number, layers in enumerate(self.layers) if layer in layers)
        else:
            stage = 0 if name.startswith("model.embed_tokens.") else self.last
        return stage % self.mesh.sizes.pp

    def train(self, mode: bool = True) -> None:
        """Switch every stage to training mode, or out of it."""
        for stage in self.stages.values():
            stage.train(mode)

    def set_rope_scaling(self, scaling: RopeScaling) -> None:
        """Give every stage a RoPE scaling; weights do not change."""
        for stage in self.stages.values():
            stage.set_rope_scaling(scaling)
        self.shape = self.shape.model_copy(update={"rope_scaling": scaling})

    def shard(self, batches: Sequence[Batch]) -> list[BatchShard]:
        """This process's shards of a step's whole micro-batches."""
        return shard_batches(batches, self.mesh, self.config.rows_per_micro_batch)

    def gradients(
        self, objective: Objective, batches: Sequence[Batch], autocast: AbstractContextManager[Any]
    ) -> tuple[Tensor, float, dict[str, Tensor]]:
        """Add the gradients of a step to the parameters, without waiting for the device.

        Args:
            batches: the step's whole micro-batches on the CPU, the same on every process.

        Returns:
            On every process: the loss of the whole step and sums of what else is logged, float64 scalars on the device,
            and the loss's normalizer.
        """
        shards = self.shard(batches)
        step = _Step(
            shards=shards,
            attends=[shard.attend(self.mesh) for shard in shards],
            objective=objective,
            normalizer=sum(objective.normalizer(batch) for batch in batches),
            autocast=autocast,
            loss=torch.zeros((), dtype=torch.float64, device=self.mesh.device),
        )
        split = self.config.pipeline_schedule == "zero-bubble" and self.mesh.sizes.pp > 1
        order = make_schedule(self.mesh.sizes.pp, self.config.stages_per_rank, len(shards), split)[self.mesh.pp_rank]
        final = {action.stage: place for place, action in enumerate(order) if action.kind == "backward"}
        for place, action in enumerate(order):
            self._receive_ahead(step, order, place)
            if action.kind == "forward":
                self.forward_pass(step, action)
            elif action.kind == "backward":
                before_backward(self.stages[action.stage], is_last=final[action.stage] == place and not split)
                self.backward_pass(step, action, split)
            else:
                self.deferred[action.stage].compute()
            step.sending = [pair for pair in step.sending if not pair[0].is_completed()]
        _wait(step.sending)
        if split:
            for number, stage in self.stages.items():
                reduce_deferred(stage, self.deferred[number].sums)
        loss, sums = self._reduce_logged(step)
        return loss, step.normalizer, sums

    def clip(self, max_norm: float) -> Tensor:
        """Scale gradients to a norm of at most ``max_norm``; returns the norm before, over all processes, a scalar on
        the device."""
        return clip_gradients(self.parameters(), self.mesh, max_norm)

    @torch.no_grad()
    def values(self, batches: Sequence[Batch], read: Read) -> list[Tensor]:
        """Run forward passes only, and ``read`` a value for every target.

        Weights are used in the type in which FSDP gathers them; no autocast.

        Args:
            batches: whole, on the CPU, the same on every process.

        Returns:
            On every process, for each batch, [B, T] float64 on the CPU, 0 where there is no target.
        """
        sizes = self.mesh.sizes
        shards = self.shard(batches)
        passes = _Passes(shards=shards, attends=[shard.attend(self.mesh) for shard in shards])
        order = forward_order(sizes.pp, self.config.stages_per_rank, len(shards))[self.mesh.pp_rank]
        found = [torch.zeros(shard.whole_shape, dtype=torch.float64, device=self.mesh.device) for shard in shards]
        for place, action in enumerate(order):
            self._receive_ahead(passes, order, place)
            stage, shard = self.stages[action.stage], shards[action.micro]
            x = shard.batch.tokens if stage.is_first else self._received(passes, "forward", action)
            out = stage(x, shard.batch.positions, passes.attends[action.micro])
            if stage.is_last:
                targets = shard.batch.target_places()
                head = ShardedOutputHead(stage, shard, self.mesh)
                local = torch.zeros(shard.batch.tokens.shape, dtype=torch.float64, device=self.mesh.device)
                hidden = out.flatten(0, 1)[targets]
                local.view(-1)[targets] = read(head, hidden, shard.batch.targets.flatten()[targets]).double()
                found[action.micro][shard.rows[:, None], shard.places] = local
            else:
                self._send(passes, "forward", action.stage + 1, action.micro, out)
            # A stage that runs ahead waits here, which bounds what is in flight to a round of the pipeline.
            _wait(passes.sending[: -2 * sizes.pp])
            passes.sending = [pair for pair in passes.sending if not pair[0].is_completed()]
        _wait(passes.sending)
        for stage in self.stages.values():
            free_gathered(stage)
        every = torch.cat([values.flatten() for values in found])
        if self.last in self.stages:
            dist.all_reduce(every, group=self.mesh.batch)
        if sizes.pp > 1:
            dist.broadcast(every, group=self.mesh.pp.get_group(), group_src=self.last % sizes.pp)
        parts = torch.split(every.cpu(), [batch.token_count for batch in batches])
        return [part.view(batch.tokens.shape) for part, batch in zip(parts, batches, strict=True)]

    def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The log-probability of every target, as :meth:`values` returns it."""
        return self.values(batches, lambda head, hidden, targets: head.target_logprobs(hidden, targets))

    def forward_pass(self, step: _Step, action: Action) -> None:
        """Run a stage's forward pass over a micro-batch, the objective on the last stage, and send its output on."""
        at, stage, shard = (action.stage, action.micro), self.stages[action.stage], step.shards[action.micro]
        x = shard.batch.tokens if stage.is_first else self._received(step, "forward", action).requires_grad_()
        with step.autocast:
            out = stage(x, shard.batch.positions, step.attends[action.micro])
            if stage.is_last:
                head = ShardedOutputHead(stage, shard, self.mesh)
                loss, logged = step.objective.read(head, out.flatten(0, 1), shard.batch)
                out = loss / step.normalizer
                step.loss += out.detach()
                for name, value in logged.items():
                    step.sums[name] = step.sums.get(name, 0.0) + value.detach().double()
        step.inputs[at], step.outputs[at] = x, out
        if not stage.is_last:
            self._send(step, "forward", action.stage + 1, action.micro, out.detach())

    def backward_pass(self, step: _Step, action: Action, split: bool) -> None:
        """Run a stage's backward pass over a micro-batch, and send its input's gradient back."""
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
        """Sender, receiver and group of the tensor that ``stage`` waits for."""
        ranks = self.mesh.sizes.pp
        sender = (stage - 1 if direction == "forward" else stage + 1) % ranks
        receiver = stage % ranks
        wraps = (sender > receiver) == (direction == "forward")
        return sender, receiver, self.mesh.pipes[direction, wraps]

    def _send(self, step: _Passes, direction: Direction, stage: int, micro: int, x: Tensor) -> None:
        _, receiver, group = self._pipe(direction, stage)
        x = x.contiguous()
        step.sending.append((dist.isend(x, group=group, group_dst=receiver), x))

    def _receive_ahead(self, step: _Passes, order: list[Action], place: int) -> None:
        """Post the receives of an action and of the next one, whose input then travels while this one runs."""
        for action in order[place : place + 2]:
            key = (action.kind, action.stage, action.micro)
            if action.kind == "weights" or key in step.receiving:
                continue
            if action.stage == (0 if action.kind == "forward" else self.last):
                continue
            rows, length = step.shards[action.micro].batch.tokens.shape
            shape = (rows, length // self.mesh.sizes.tp, self.stages[action.stage].config.dim)
            x = torch.empty(shape, dtype=self.stream, device=self.mesh.device)
            sender, _, group = self._pipe(action.kind, action.stage)
            step.receiving[key] = (dist.irecv(x, group=group, group_src=sender), x)

    def _received(self, step: _Passes, direction: Direction, action: Action) -> Tensor:
        work, x = step.receiving.pop((direction, action.stage, action.micro))
        work.wait()
        return x

    def _reduce_logged(self, step: _Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the logged sums over all shards of the batch, on every stage."""
        names, last = sorted(step.sums), self.last in self.stages
        if self.mesh.sizes.pp > 1:
            names = self.names_from_last_stage(names)
        values = torch.zeros(1 + len(names), dtype=torch.float64, device=self.mesh.device)
        if last:
            torch.stack([step.loss, *(step.sums[name] for name in names)], out=values)
            dist.all_reduce(values, group=self.mesh.batch)
        if self.mesh.sizes.pp > 1:
            dist.broadcast(values, group=self.mesh.pp.get_group(), group_src=self.last % self.mesh.sizes.pp)
        loss, *sums = values.unbind()
        return loss, dict(zip(names, sums, strict=True))

    def names_from_last_stage(self, names: list[str]) -> list[str]:
        """The last stage's ``names``: those of what its objective logs. They travel between CPUs, not devices."""
        text = torch.frombuffer(bytearray(json.dumps(names).encode().ljust(NAMES_BYTES)), dtype=torch.uint8)
        dist.broadcast(text, group=self.mesh.pp.get_group(), group_src=self.last % self.mesh.sizes.pp)
        received: list[str] = json.loads(bytes(text.tolist()))
        return received


def _wait(transfers: Sequence[tuple[Any, Tensor]]) -> None:
    for work, _ in transfers:
        work.wait()
