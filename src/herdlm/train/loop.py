"""The one training loop: pre-training, annealing, fine-tuning, reward modelling and DPO run through :func:`train`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from herdlm.base.errors import HerdError
from herdlm.base.events import EventLog, read_events
from herdlm.base.progress import Progress
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel
from herdlm.tokens.batch import Batch, save_batches
from herdlm.train.checkpoint import Average, Checkpointer, checkpoints
from herdlm.train.config import TrackConfig, TrainConfig
from herdlm.train.guards import PreemptedError, Preemption, SpikeDetector, Watchdog, agree, share, step_seconds_by_rank
from herdlm.train.objectives import Objective
from herdlm.train.prefetch import Prefetch
from herdlm.train.schedules import learning_rate
from herdlm.train.speed import device_peak, peak_memory_gib
from herdlm.train.track import Tracker


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
    """A model that is whole in this process; the counterpart of :class:`herdlm.parallel.model.ParallelModel`."""

    model: Transformer

    def gradients(
        self, objective: Objective, batches: Sequence[Batch], autocast: AbstractContextManager[Any]
    ) -> tuple[float, float, dict[str, float]]:
        """Add a step's gradients to the parameters; its loss, what that was divided by, and sums of what is logged."""
        device = next(self.model.parameters()).device
        divisor = sum(objective.normalizer(batch) for batch in batches)
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


def train(
    model: Transformer | ParallelModel,
    objective: Objective,
    batches: Batches,
    config: TrainConfig,
    *,
    work: Path | None = None,
    title: str = "train",
    quiet: bool = False,
    validate: Callable[[], dict[str, float]] | None = None,
    track: TrackConfig | None = None,
) -> TrainResult:
    """Train ``model`` in place.

    The loss of a step is the sum over all its targets divided by their global weight, however the step is cut into
    micro-batches and over processes. A model that a :class:`herdlm.parallel.layout.Layout` was applied to is trained by
    all its processes together, each of them calling this with the same arguments. With ``work``, checkpoints and
    ``events.jsonl`` (one line a step) go there and a run that was cut off goes on from its last checkpoint, to bitwise
    the same weights.

    Args:
        validate: measures the model; what it gives is logged every ``config.validate_every_steps``. A call for all
            processes.
        track: where else the log goes; None: nowhere.

    Raises:
        HerdError: the loss or the gradient is not finite; the step is not taken (``on_not_finite`` may pass it over).
            Or a checkpoint could not be written.
        PreemptedError: the process got SIGTERM; the state after the step it was at is saved.
        DamagedError: the only checkpoints there are cannot be read.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(config.watchdog_seconds))
        preemption = stack.enter_context(Preemption())
        training = _Training(model, objective, batches, config, work, title, track, stack)
        progress = Progress(title, batches.steps, "steps", quiet=quiet or not training.leads)
        stack.enter_context(progress)
        progress.restore(training.done)
        while training.done < batches.steps:
            taken = training.take_step()
            if taken is None:
                continue
            ends = agree(preemption.asked) and training.done < batches.steps
            training.after_step(taken, ends=ends, validate=validate)
            if ends:
                saved = f"its state after step {training.done} is saved" if work else "nothing of it is saved"
                raise PreemptedError(f"{title} was asked to end; {saved}", "Run again to go on")
            watchdog.step_done()
            progress.advance(1, f"loss {taken.loss:.3f}")
    return training.result(time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken: its loss and gradient norm, over all processes, and how it went.

    Attributes:
        logged: means of what else the objective tells.
        seconds: from the end of the step before; ``stall_seconds`` of them were spent waiting for the batches.
        own_seconds: of this process until its gradients were there, without what it waited for others afterwards.
    """

    loss: float
    grad_norm: float
    rate: float
    tokens: int
    seq_len: int
    logged: dict[str, float]
    seconds: float
    stall_seconds: float
    own_seconds: float


class _Training:
    """The state of one run of the loop."""

    def __init__(  # noqa: PLR0917 - of train() alone
        self,
        model: Transformer | ParallelModel,
        objective: Objective,
        batches: Batches,
        config: TrainConfig,
        work: Path | None,
        title: str,
        track: TrackConfig | None,
        stack: ExitStack,
    ) -> None:
        self.model, self.objective, self.config, self.work, self.title = model, objective, config, work, title
        self.run = model if isinstance(model, ParallelModel) else OneProcess(model)
        self.leads = isinstance(model, Transformer) or dist.get_rank() == 0
        self.steps = batches.steps
        self.goes_on = (config.horizon_steps or 0) > batches.steps  # the first part of a longer run
        self.device = next(iter(model.parameters())).device
        self.autocast: AbstractContextManager[Any] = nullcontext()
        if config.precision == "bfloat16":
            self.autocast = torch.autocast(self.device.type, torch.bfloat16)
        self.optimizer = make_optimizer(model, config)
        self.average = Average()
        self.averaged_at = averaging_steps(batches.steps, config)
        self.events = EventLog(work / "events.jsonl") if work and self.leads else None
        self.checkpointer = None
        if work:
            self.checkpointer = stack.enter_context(
                Checkpointer(
                    work / "checkpoints",
                    model,
                    self.optimizer,
                    self.average,
                    keep=config.checkpoints_kept,
                    milestone_every=config.milestone_every_steps,
                )
            )
        self.done, self.losses, self.refused = self._go_on()
        self.peak = device_peak(self.device, getattr(torch, config.precision)) if self.events else None
        if self.events and self.peak:
            self.events.write(
                "setup",
                step=self.done,
                peak_flops=round(self.peak.flops),
                peak_source=self.peak.source,
                mfu_counts="attention in full over rows, padding included",
                processes=self._processes(),
            )
        self.track = None
        if track and work and self.leads:
            self.track = stack.enter_context(Tracker(track, work, title, self.done))
        self.prefetch = stack.enter_context(Prefetch(batches.micro_batches, batches.steps, config.prefetch_steps))
        self.spikes = SpikeDetector()
        self.tokens = 0
        self.ended = time.monotonic()
        model.train()

    def take_step(self) -> Taken | None:
        """One whole training step: batches, gradients, clipping, update. None if it was passed over."""
        if self.done in self.refused:
            self.done += 1
            return None
        rate = learning_rate(self.done, self.steps, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batches, stall = self.prefetch.micro_batches(self.done)
        began = time.monotonic()
        self.optimizer.zero_grad(set_to_none=True)
        loss, divisor, sums = self.run.gradients(self.objective, batches, self.autocast)
        own_seconds = time.monotonic() - began
        norm = self.run.clip(self.config.max_grad_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(loss, norm, batches)
            return None
        self.optimizer.step()
        self.done += 1
        tokens = sum(batch.token_count for batch in batches)
        self.losses.append(loss)
        self.tokens += tokens
        now = time.monotonic()
        seconds, self.ended = now - self.ended, now
        logged = {name: value / divisor for name, value in sums.items()}
        seq_len = batches[0].tokens.shape[1]
        return Taken(loss, norm, rate, tokens, seq_len, logged, seconds, stall, own_seconds)

    def after_step(self, taken: Taken, *, ends: bool, validate: Callable[[], dict[str, float]] | None) -> None:
        """Average, log, validate and save, each where it is due."""
        if self.done in self.averaged_at:
            self.average.add(self.model)
        self._log(taken)
        every = self.config.validate_every_steps
        if validate and every and self.done % every == 0:
            self.model.train(False)
            self._write("validation", validate())
            self.model.train()
        last = self.done == self.steps
        due = self.goes_on if last else self.done % self.config.checkpoint_every_steps == 0
        if self.checkpointer and (due or ends):
            by_rank = step_seconds_by_rank(taken.own_seconds)
            if self.events and len(by_rank) > 1:
                self.events.write(
                    "ranks",
                    step=self.done,
                    seconds=by_rank,
                    slowest=by_rank.index(max(by_rank)),
                    spread=round(max(by_rank) / max(min(by_rank), 1e-9) - 1, 4),
                )
            self.checkpointer.save(self.done)

    def result(self, seconds: float) -> TrainResult:
        """Put the averaged weights into the model, if any, and sum up."""
        if self.average.count:
            self.average.apply(self.model)
        self.model.train(False)
        tail = self.losses[-max(len(self.losses) // 10, 1) :]
        last_loss = sum(tail) / len(tail) if tail else math.nan
        return TrainResult(self.steps, self.tokens, last_loss, self.average.count, seconds)

    def _log(self, taken: Taken) -> None:
        if not (self.events and self.peak):
            return
        shape = self.model.shape if isinstance(self.model, ParallelModel) else self.model.config
        per_second = taken.tokens / max(taken.seconds, 1e-9)
        flops = per_second * shape.full_attention_flops_per_token(taken.seq_len)
        self._write(
            "step",
            {
                "loss": taken.loss,
                "lr": taken.rate,
                "grad_norm": taken.grad_norm,
                "tokens": taken.tokens,
                "seconds": round(taken.seconds, 4),
                "stall_seconds": round(taken.stall_seconds, 5),
                "tokens_per_second": round(per_second, 1),
                "mfu": round(flops / (self.peak.flops * self._processes()), 4),
                "memory_gib": round(peak_memory_gib(self.device), 3),
                **taken.logged,
            },
        )
        if self.spikes.is_spike(taken.loss):
            self.events.write("spike", step=self.done, loss=taken.loss)

    def _write(self, kind: str, figures: dict[str, float]) -> None:
        if self.events:
            self.events.write(kind, step=self.done, **figures)
        if self.track:
            self.track.write(kind, self.done, figures)

    def _processes(self) -> int:
        return dist.get_world_size() if isinstance(self.model, ParallelModel) else 1

    def _refuse(self, loss: float, norm: float, batches: list[Batch]) -> None:
        """Record a step whose loss or gradient is not finite and its batches; end, pass over it, or go back."""
        step = self.done
        self.refused.add(step)
        told = f"{self.title}: step {step + 1} has loss {loss} and gradient norm {norm}; it was not taken"
        if self.events and self.work:
            kept = save_batches(self.work / "refused", step + 1, batches)
            self.events.write("refused", step=step + 1, loss=str(loss), grad_norm=str(norm), batches=kept.name)
            told += f" (its batches are in {kept})"
        if self.config.on_not_finite == "stop":
            raise HerdError(told, "Lower peak_lr or look at the batch; the checkpoints before it are whole")
        if len(self.refused) > self.config.max_refused_steps:
            raise HerdError(f"{told}, nor were {len(self.refused) - 1} before it", "Lower peak_lr, look at the data")
        if self.config.on_not_finite == "roll-back":
            if self.checkpointer:
                self.checkpointer.wait()
            if not (self.work and checkpoints(self.work / "checkpoints")):
                raise HerdError(f"{told}, and there is no checkpoint to go back to", "Save more often")
            self.done, self.losses, _ = self._go_on()

    def _go_on(self) -> tuple[int, list[float], set[int]]:
        """Go on from the newest checkpoint: finished steps, their losses, and the steps that were refused.

        The log is cut back to the checkpoint, so that it has no gap and no step twice.
        """
        done, damaged = self.checkpointer.restore() if self.checkpointer else (0, {})
        if self.events:
            for kind in ("step", "validation", "spike", "ranks"):
                self.events.truncate_after(kind, "step", done)
            for name, what in damaged.items():
                instead = f"step-{done:08d}"
                self.events.write("damaged", damaged=name, what=what, instead=instead)
                warnings.warn(f"{what}; going on from {instead}", RuntimeWarning, stacklevel=1)
        losses = [event["loss"] for event in read_events(self.events.path, "step")] if self.events else []
        refused = {event["step"] - 1 for event in read_events(self.events.path, "refused")} if self.events else set()
        return done, losses, set(share(sorted(refused)))
