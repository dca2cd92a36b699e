"""The one training loop: pre-training, annealing, fine-tuning, reward modelling and DPO run through :func:`train`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from herdlm.base.errors import DamagedError, HerdError
from herdlm.base.events import EventLog, read_events
from herdlm.base.progress import Progress
from herdlm.model.transformer import Transformer
from herdlm.parallel.run import ParallelModel
from herdlm.tokens.batch import Batch
from herdlm.train.checkpoint import Average, HasParameters, checkpoints, load_checkpoint, save_checkpoint
from herdlm.train.config import TrainConfig
from herdlm.train.guards import (
    PreemptedError,
    Preemption,
    SpikeDetector,
    Watchdog,
    agree,
    share,
    step_seconds_by_rank,
)
from herdlm.train.objectives import Objective
from herdlm.train.schedules import learning_rate


class Batches(Protocol):
    """Where a run's batches come from. Any step can be asked for, so resuming needs no loader state but the step."""

    @property
    def steps(self) -> int:
        """Optimizer steps in the run."""
        ...

    def micro_batches(self, step: int) -> list[Batch]:
        """The batches whose gradients add up to step ``step``."""
        ...


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run did. ``last_loss`` is the mean over the last tenth of its steps; ``seconds`` are this process's."""

    steps: int
    tokens: int
    last_loss: float
    averaged: int
    seconds: float


@dataclass(frozen=True, slots=True)
class OneProcess:
    """A model that is whole in this process; the counterpart of :class:`herdlm.parallel.run.ParallelModel`."""

    model: Transformer

    def gradients(
        self, objective: Objective, batches: Sequence[Batch], autocast: AbstractContextManager[Any]
    ) -> tuple[float, float, dict[str, float]]:
        """Add a step's gradients to the parameters; its loss, what that was divided by, and sums of what is logged."""
        device = next(self.model.parameters()).device
        divisor = sum(objective.normaliser(batch) for batch in batches)
        total, sums = 0.0, dict[str, float]()
        for batch in batches:
            with autocast:
                loss, seen = objective.loss(self.model, batch.to(device))
            loss = loss / divisor
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            for name, value in seen.items():
                sums[name] = sums.get(name, 0.0) + value
        return total, divisor, sums

    def clip(self, max_norm: float) -> float:
        """Scale gradients to a norm of at most ``max_norm``; returns what it was."""
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm))


def make_optimizer(model: Transformer | ParallelModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices only: norms are left alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=config.betas, eps=config.eps, fused=True)


def averaging_steps(steps: int, config: TrainConfig) -> set[int]:
    """After which numbers of finished steps the weights count towards the average; the last step is one of them."""
    if not config.average_last:
        return set()
    first = steps * (1 - config.average_last)
    spread = (steps - first) / max(config.average_count - 1, 1)
    return {round(steps - i * spread) for i in range(config.average_count)}


def train(  # noqa: PLR0912, PLR0915 - the loop is read in one piece
    model: Transformer | ParallelModel,
    objective: Objective,
    batches: Batches,
    config: TrainConfig,
    *,
    work: Path | None = None,
    title: str = "train",
    quiet: bool = False,
) -> TrainResult:
    """Train ``model`` in place.

    The loss of a step is the sum over all its targets divided by their global weight, however the step is cut into
    micro-batches and over processes. A model that a :class:`herdlm.parallel.layout.Layout` was applied to is trained by
    all its processes together, each of them calling this with the same arguments. With ``work``, checkpoints and
    ``events.jsonl`` (one line a step) go there and a run that was cut off goes on from its last checkpoint, to bitwise
    the same weights.

    Raises:
        HerdError: the loss or the gradient is not finite; the step is not taken (``on_not_finite`` may pass it over).
        PreemptedError: the process got SIGTERM; the state after the step it was at is saved.
        DamagedError: the only checkpoints there are cannot be read.
    """
    started = time.monotonic()
    run = model if isinstance(model, ParallelModel) else OneProcess(model)
    leads = isinstance(model, Transformer) or dist.get_rank() == 0
    device = next(iter(model.parameters())).device
    optimizer = make_optimizer(model, config)
    average = Average()
    events = EventLog(work / "events.jsonl") if work and leads else None
    done, losses, refused = _go_on(work, events, model, optimizer, average)
    autocast = (
        torch.autocast(device.type, torch.bfloat16) if config.precision == "bfloat16" else contextlib.nullcontext()
    )
    goes_on = (config.horizon_steps or 0) > batches.steps  # the first part of a longer run
    averaged_at = averaging_steps(batches.steps, config)
    tokens, spikes = 0, SpikeDetector()
    model.train()
    with (
        Progress(title, batches.steps, "steps", quiet=quiet or not leads) as progress,
        Watchdog(config.watchdog_seconds) as watchdog,
        Preemption() as preemption,
    ):
        progress.restore(done)
        step = done
        while step < batches.steps:
            if step in refused:
                step += 1
                continue
            step_started = time.monotonic()
            rate = learning_rate(step, batches.steps, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            parts = batches.micro_batches(step)
            optimizer.zero_grad(set_to_none=True)
            total, divisor, sums = run.gradients(objective, parts, autocast)
            own_seconds = time.monotonic() - step_started
            norm = run.clip(config.max_grad_norm)
            if not (math.isfinite(total) and math.isfinite(norm)):
                refused.add(step)
                if events:
                    events.write("refused", step=step + 1, loss=str(total), grad_norm=str(norm))
                told = f"{title}: step {step} has loss {total} and gradient norm {norm}; it was not taken"
                if config.on_not_finite == "stop":
                    raise HerdError(told, "Lower peak_lr or look at the batch; the checkpoints before it are whole")
                if len(refused) > config.max_refused_steps:
                    raise HerdError(f"{told}, nor were {len(refused) - 1} before it", "Lower peak_lr, look at the data")
                if config.on_not_finite == "roll-back":
                    if not (work and checkpoints(work / "checkpoints")):
                        raise HerdError(f"{told}, and there is no checkpoint to go back to", "Save more often")
                    step, losses, _ = _go_on(work, events, model, optimizer, average)
                continue
            optimizer.step()
            losses.append(total)
            count = sum(part.token_count for part in parts)
            tokens += count
            step += 1
            if step in averaged_at:
                average.add(model)
            if events:
                seconds = time.monotonic() - step_started
                events.write(
                    "step", step=step, loss=total, lr=rate, grad_norm=norm, tokens=count, seconds=round(seconds, 4),
                    **{name: value / divisor for name, value in sums.items()},
                )  # fmt: skip
                if spikes.is_spike(total):
                    events.write("spike", step=step, loss=total)
            due = goes_on if step == batches.steps else step % config.checkpoint_every_steps == 0
            ends = agree(preemption.asked) and step < batches.steps
            if work and (due or ends):
                by_rank = step_seconds_by_rank(own_seconds)
                if events and len(by_rank) > 1:
                    events.write("ranks", step=step, seconds=by_rank, slowest=by_rank.index(max(by_rank)))
                save_checkpoint(work / "checkpoints", step, model, optimizer, average)
            if ends:
                saved = f"its state after step {step} is saved" if work else "nothing of it is saved"
                raise PreemptedError(f"{title} was asked to end; {saved}", "Run again to go on")
            watchdog.step_done()
            progress.advance(1, f"loss {total:.3f}")
    if average.count:
        average.apply(model)
    model.train(False)
    tail = losses[-max(len(losses) // 10, 1) :]
    return TrainResult(
        batches.steps, tokens, sum(tail) / len(tail) if tail else math.nan, average.count, time.monotonic() - started
    )


def _go_on(
    work: Path | None, events: EventLog | None, model: HasParameters, optimizer: torch.optim.Optimizer, average: Average
) -> tuple[int, list[float], set[int]]:
    """Go on from the newest checkpoint: finished steps, their losses, and the steps that were refused.

    The log is cut back to the checkpoint, so that it has no gap and no step twice.
    """
    done = _resume(work, model, optimizer, average)
    if events:
        events.truncate_after("step", "step", done)
    losses = [event["loss"] for event in read_events(events.path, "step")] if events else []
    refused = {event["step"] - 1 for event in read_events(events.path, "refused")} if events else set()
    return done, losses, set(share(sorted(refused)))


def _resume(work: Path | None, model: HasParameters, optimizer: torch.optim.Optimizer, average: Average) -> int:
    """Load the newest checkpoint that can be read; the number of steps it stands for, 0 where there is none."""
    found = checkpoints(work / "checkpoints") if work else []
    for path in reversed(found):
        try:
            return load_checkpoint(path, model, optimizer, average)
        except DamagedError:
            if path == found[0]:
                raise
    return 0
