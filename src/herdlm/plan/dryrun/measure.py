"""Measures one training step of a run, with or without values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from herdlm.model.transformer import Transformer
from herdlm.parallel.linear import DeferredGradients
from herdlm.parallel.mesh import Mesh
from herdlm.parallel.model import ParallelModel
from herdlm.plan.dryrun.memory import MemoryMeter
from herdlm.plan.dryrun.observe import Meter, Observer
from herdlm.plan.dryrun.operations import FlopMeter, TrafficMeter, default_group_name
from herdlm.plan.dryrun.private import fsdp_categories
from herdlm.train.loop import TrainingRun


@dataclass(frozen=True, slots=True)
class Meters:
    """What is measured of a step."""

    memory: MemoryMeter
    flops: FlopMeter
    traffic: TrafficMeter

    @classmethod
    def make(cls, groups: dict[str, str], counts: Callable[[Tensor], bool]) -> Meters:
        """New meters; ``counts`` says of which tensors memory is measured, ``groups`` names groups by torch's name."""
        return cls(MemoryMeter(counts), FlopMeter(), TrafficMeter(groups))

    @property
    def all(self) -> list[Meter]:
        """All of them."""
        return [self.memory, self.flops, self.traffic]


@dataclass(slots=True)
class InFlight:
    """The most bytes of activations by the number of passes that wait for their backward pass."""

    bytes: dict[int, int] = field(default_factory=dict)
    waiting: int = 0
    micro_batches: int = 0

    def add(self, change: int, activations: int) -> None:
        """A pass began to wait (1), or ended (-1)."""
        self.waiting += change
        if change > 0:
            self.bytes[self.waiting] = max(self.bytes.get(self.waiting, 0), activations)


def group_names(mesh: Mesh) -> dict[str, str]:
    """What the groups of a mesh are over, by torch's name of the group."""
    data = mesh.data["dp_replicate"] if mesh.data.ndim > 1 else None
    groups = [
        ("tp", mesh.tp.get_group()),
        ("cp", mesh.context),
        ("dp_shard x cp", mesh.shard.get_group()),
        ("dp_replicate", data.get_group() if data else None),
        ("dp x cp", mesh.batch),
        ("pp", mesh.pp.get_group()),
        *((f"pp {direction}", group) for (direction, _), group in mesh.pipes.items()),
    ]
    names: dict[str, str] = {}
    for name, group in groups:
        if group is not None:
            names.setdefault(group.group_name, name)
    names.setdefault(default_group_name(), "all")
    return names


def measured_step(run: TrainingRun, observer: Observer, meters: Meters) -> InFlight:
    """Measure one step of a run whose optimizer has its state."""
    memory, model = meters.memory, run.model
    for parameter in model.parameters():
        memory.assign(parameter, "weights")
        for value in run.optimizer.state.get(parameter, {}).values():
            memory.assign(value, "optimizer")
    memory.forget_peaks()
    in_flight = InFlight()
    with (
        memory.resizes(),
        fsdp_categories(memory),
        _gradients_known(model, memory),
        _passes_counted(model, memory, in_flight),
        observer,
    ):
        run.train_step()
    if isinstance(model, Transformer):
        in_flight.micro_batches = len(run.prefetch.make(0))
        in_flight.bytes = {1: memory.highest.get("activations", 0)}
    return in_flight


@contextmanager
def _gradients_known(model: Transformer | ParallelModel, memory: MemoryMeter) -> Iterator[None]:
    """Tell a meter which tensors are gradients that FSDP does not make."""
    modules = [model] if isinstance(model, Transformer) else list(model.stages.values())
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda held: memory.assign(held.grad, "gradients"))  # type: ignore[no-untyped-call]
        for module in modules
        if not isinstance(module, FSDPModule)
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    compute = DeferredGradients.compute

    def accumulated(self: DeferredGradients) -> None:
        with memory.category("accumulated"):
            compute(self)

    DeferredGradients.compute = accumulated  # type: ignore[method-assign]
    try:
        yield
    finally:
        DeferredGradients.compute = compute  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()


@contextmanager
def _passes_counted(model: Transformer | ParallelModel, memory: MemoryMeter, in_flight: InFlight) -> Iterator[None]:
    if not isinstance(model, ParallelModel):
        yield
        return
    forward, backward, shard = model.forward_pass, model.backward_pass, model.shard

    def forward_pass(*args: Any) -> None:
        forward(*args)
        in_flight.add(1, memory.now.get("activations", 0))

    def backward_pass(*args: Any) -> None:
        backward(*args)
        in_flight.add(-1, 0)

    def counted(*args: Any) -> Any:
        shards = shard(*args)
        in_flight.micro_batches = len(shards)
        return shards

    replaced = {"forward_pass": forward_pass, "backward_pass": backward_pass, "shard": counted}
    vars(model).update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            vars(model).pop(name, None)
