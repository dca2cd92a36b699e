"""Runs one training step of one rank on tensors without values."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from herdlm.base.errors import InputError
from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer
from herdlm.parallel.blocks import apply_checkpointing
from herdlm.parallel.config import ParallelConfig, sizes_for
from herdlm.parallel.context import ContextAttention
from herdlm.parallel.layout import lay_out_shape
from herdlm.parallel.model import ParallelModel
from herdlm.plan.dryrun.batches import FullRows
from herdlm.plan.dryrun.gpu import as_on_a_gpu
from herdlm.plan.dryrun.measure import Meters, group_names, measured_step
from herdlm.plan.dryrun.private import FakeDevice, fake_processes, is_fake, without_values
from herdlm.plan.dryrun.report import RankReport
from herdlm.train.config import TrainConfig
from herdlm.train.loop import TrainingRun
from herdlm.train.objectives import Objective

CPU = torch.device("cpu")
# What plans a step from the values of its batches.
HOST = (
    (FullRows, "micro_batches"),
    (ParallelModel, "shard"),
    (DocumentAttention, "__init__"),
    (ContextAttention, "__init__"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepJob:
    """One training step of a model in a layout.

    Args:
        name: of the objective, in reports.
        gpu: choose kernels as on a GPU; else as on a CPU.
    """

    name: str
    model: ModelConfig
    parallel: ParallelConfig
    objective: Objective
    batches: FullRows
    train: TrainConfig
    gpu: bool = True


def dry_run(job: StepJob, *, ranks: int, rank: int = 0) -> RankReport:
    """Run one step of ``job`` as ``rank`` of ``ranks`` processes, with the state that the optimizer has after a step.

    Raises:
        InputError: the layout does not fit the model, the rows or the number of processes; or the job trains in FP8.
    """
    started = time.monotonic()
    if job.train.precision == "fp8":
        raise InputError("a dry run does not know FP8 products", 'Set precision = "bfloat16"')
    with ExitStack() as stack:
        # A single process has no group, as without torchrun.
        stack.enter_context(fake_processes(rank, ranks) if ranks > 1 else nullcontext())
        model = _laid_out(job, ranks)
        parallel = model if isinstance(model, ParallelModel) else None
        meters = Meters.make(group_names(parallel.mesh) if parallel else {}, is_fake)
        device = FakeDevice(meters.all)
        stack.enter_context(without_values())
        stack.enter_context(device.on_host(*HOST))
        stack.enter_context(as_on_a_gpu() if job.gpu else nullcontext())
        parts: list[nn.Module] = [model] if isinstance(model, Transformer) else list(model.stages.values())
        with device.mode:
            for part in parts:
                part.to_empty(device=CPU)
        if parallel and parallel.last not in parallel.stages:
            stack.enter_context(_told_names(parallel, _logged_names(job)))
        run = TrainingRun(
            stack, model, job.objective, job.batches, job.train, work=None, title=job.name, track=None, identity=None
        )
        with device:
            _give_state(run.optimizer)
        in_flight = measured_step(run, device, meters)
        return RankReport(
            rank=rank,
            ranks=ranks,
            place=_place(parallel),
            layers=_layers(parallel) if parallel else {0: (0, job.model.layers)},
            objective=job.name,
            micro_batches=in_flight.micro_batches,
            parameters=sum(_values(parameter) for parameter in model.parameters()),
            at_peak=meters.memory.at_peak,
            highest=meters.memory.highest,
            activations_in_flight=in_flight.bytes,
            collectives=meters.traffic.result(),
            flops=meters.flops.result(),
            seconds=round(time.monotonic() - started, 2),
        )


def _laid_out(job: StepJob, ranks: int) -> Transformer | ParallelModel:
    """The model in its layout, on the ``meta`` device."""
    lengths = {job.batches.seq_len}
    if ranks > 1:
        return lay_out_shape(job.parallel, job.model, lengths, autocast=job.train.autocast, device=CPU)
    sizes_for(job.parallel, 1, job.model, job.batches.seq_len)
    with torch.device("meta"):
        model = Transformer(job.model)
    for layer in model.model.layers:
        apply_checkpointing(layer, job.parallel.activation_checkpointing)
    return model


def _give_state(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer make its state, as its first step does."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _logged_names(job: StepJob) -> list[str]:
    """The names of what the objective logs, which the last stage tells the others."""
    shape = dict(vocab_size=8, dim=2, layers=1, heads=1, kv_heads=1, ffn_dim=2)
    tiny = Transformer(ModelConfig(**shape, head=job.model.head))
    (batch,) = FullRows((2,), 4, job.batches.columns).micro_batches(0)
    with torch.no_grad():
        return sorted(job.objective.loss(tiny, batch)[1])


@contextmanager
def _told_names(model: ParallelModel, names: list[str]) -> Iterator[None]:
    """Let the last stage, which does not run here, tell ``names``."""
    receive = model.names_from_last_stage

    def told(own: list[str]) -> list[str]:
        receive(own)
        return names

    model.names_from_last_stage = told  # type: ignore[method-assign, assignment]
    yield


def _values(parameter: torch.Tensor) -> int:
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()


def _place(model: ParallelModel | None) -> dict[str, int]:
    if model is None:
        return {"tp": 0, "cp": 0, "pp": 0, "dp": 0}
    mesh = model.mesh
    return {"tp": mesh.tp_rank, "cp": mesh.cp_rank, "pp": mesh.pp_rank, "dp": mesh.dp_rank}


def _layers(model: ParallelModel) -> dict[int, tuple[int, int]]:
    return {number: (model.layers[number].start, model.layers[number].stop) for number in model.stages}
