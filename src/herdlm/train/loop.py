"""The one training loop: pre-training, annealing, fine-tuning, reward modeling and DPO run through :func:`train`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from herdlm.base.errors import HerdError
from herdlm.base.progress import Progress
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel
from herdlm.tokens.batch import Batch, Batches, Prefetch
from herdlm.train.checkpoint import CHECKPOINTS, Average, Checkpointer, checkpoints
from herdlm.train.config import TrackConfig, TrainConfig
from herdlm.train.forward import batch_logprobs
from herdlm.train.fp8 import ensure_fp8
from herdlm.train.guards import PreemptedError, Preemption, Stopwatch, Watchdog, agree, share
from herdlm.train.log import RunLog, StepResult
from herdlm.train.objectives import Objective
from herdlm.train.ranks import step_seconds_by_rank
from herdlm.train.refusals import convert_to_float, no_target, refusal_error
from herdlm.train.schedules import learning_rate
from herdlm.train.work import WorkRecord, open_record


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run; ``last_loss`` is of its last tenth, ``seconds`` of this process, ``warnings`` of a collapse."""

    steps: int
    tokens: int
    last_loss: float
    averaged: int
    seconds: float
    warnings: tuple[str, ...] = ()


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
    identity: str | None = None,
) -> TrainResult:
    """Train ``model`` in place. Its trained weights are FP32, or wider: those of a narrower type are converted first.

    The loss of a step is the sum over all its targets divided by their global weight, however the step is divided into
    micro-batches and among processes. All processes of a model that a :class:`herdlm.parallel.layout.Layout` was
    applied to call this together, with the same arguments. With ``work``, checkpoints and ``events.jsonl`` (one line
    per step) go there, and an interrupted run resumes from its last checkpoint, to bitwise the same weights. It refuses
    another run (:mod:`herdlm.train.work`).

    Args:
        validate: measures the model; its result is logged every ``config.validate_every_steps``. All processes call it.
        track: where else to log; None: nowhere.
        identity: what ``work`` knows the objective by, if a run changes it on the way; default: its name and fields.

    Raises:
        InputError: the precision does not work here, ``work`` is of another run, or a step has no target.
        HerdError: the loss or the gradient is not finite, or a checkpoint could not be written. The step is skipped;
            ``config.on_not_finite`` may let the run continue.
        PreemptedError: the process got SIGTERM; the state after its current step is saved.
        DamagedError: there are checkpoints, and none can be read.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(config.watchdog_seconds))
        preemption = stack.enter_context(Preemption())
        run = TrainingRun(
            stack, model, objective, batches, config, work=work, title=title, track=track, identity=identity
        )
        progress = stack.enter_context(Progress(title, batches.steps, "steps", quiet=quiet or not run.leads))
        progress.restore(run.done)
        shown = getattr(batches, "shown", ())
        while run.done < batches.steps:
            result = run.train_step()
            if result is None:
                continue
            stopping = agree(preemption.asked) and run.done < batches.steps
            run.after_step(result, stopping=stopping, validate=validate)
            if stopping:
                saved = f"its state after step {run.done} is saved" if work else "nothing of it is saved"
                raise PreemptedError(f"{title} was asked to stop; {saved}", "Run again to resume")
            watchdog.step_done()
            progress.advance(1, note(result, shown))
    return run.result(time.monotonic() - started)


class TrainingRun:
    """The state of one call of :func:`train`; takes the same arguments."""

    def __init__(
        self,
        stack: ExitStack,
        model: Transformer | ParallelModel,
        objective: Objective,
        batches: Batches,
        config: TrainConfig,
        *,
        work: Path | None,
        title: str,
        track: TrackConfig | None,
        identity: str | None,
    ) -> None:
        if any(p.requires_grad and p.dtype.itemsize < 4 for p in model.parameters()):
            convert_to_float(model)
        self.model, self.objective, self.config, self.work, self.title = model, objective, config, work, title
        if config.precision == "fp8":
            ensure_fp8(model)
        self.module = model if isinstance(model, ParallelModel) else OneProcess(model)
        self.leads = isinstance(model, Transformer) or dist.get_rank() == 0
        self.device = next(iter(model.parameters())).device
        self.steps, self.tokens, self.figures = batches.steps, 0, getattr(batches, "figures", None)
        self.average, self.averaged_at = Average(), averaging_steps(batches.steps, config)
        self.optimizer = make_optimizer(model, config)
        self.autocast: AbstractContextManager[Any] = nullcontext()
        if config.precision != "float32":
            self.autocast = torch.autocast(self.device.type, torch.bfloat16)
        self.log: RunLog | None = None
        self.checkpointer: Checkpointer | None = None
        self.record: WorkRecord | None = None
        if work:
            self.record = open_record(work, model, identity or objective, batches, config)
            saver = Checkpointer(work / CHECKPOINTS, model, self.optimizer, self.average, config)
            self.checkpointer = stack.enter_context(saver)
            self.log = stack.enter_context(RunLog(work, model, config)) if self.leads else None
        self.done, self.losses, self.refused = self._resume()
        if self.log:
            self.log.begin(self.done, title, track)
        self.prefetch = stack.enter_context(Prefetch(batches.micro_batches, batches.steps, config.prefetch_steps))
        self.ended = time.monotonic()
        model.train()

    def train_step(self) -> StepResult | None:
        """One training step: batches, gradients, clipping, update. None where the step was refused."""
        if self.done in self.refused:
            self.done += 1
            return None
        rate = learning_rate(self.done, self.steps, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batches, stall_seconds = self.prefetch.micro_batches(self.done)
        watch = Stopwatch(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        prepared = self.objective.prepare(batches, self._logprobs)
        total, normalizer, sums = self.module.gradients(self.objective, prepared, self.autocast)
        watch.stop()
        if not normalizer:
            raise no_target(self.title, self.done + 1)
        clipped = self.module.clip(self.config.max_grad_norm)
        loss, norm, *values = read_scalars(total, clipped, *sums.values())  # the step's one wait for the device
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(loss, norm, batches)
            return None
        self.optimizer.step()
        self.done += 1
        self.losses.append(loss)
        tokens = sum(batch.token_count for batch in batches)
        self.tokens += tokens
        now = time.monotonic()
        seconds, self.ended = now - self.ended, now
        return StepResult(
            loss=loss,
            grad_norm=norm,
            rate=rate,
            tokens=tokens,
            seq_len=batches[0].tokens.shape[1],
            logged=(self.figures(self.done - 1) if self.figures else {})
            | {name: value / normalizer for name, value in zip(sums, values, strict=True)},
            seconds=seconds,
            stall_seconds=stall_seconds,
            own_seconds=watch.seconds,
        )

    def after_step(
        self, result: StepResult, *, stopping: bool, validate: Callable[[], dict[str, float]] | None
    ) -> None:
        """Average, log, validate and save, each where it is due."""
        if self.done in self.averaged_at:
            self.average.add(self.model)
        if self.log:
            self.log.step(self.done, result)
        every = self.config.validate_every_steps
        if validate and every and self.done % every == 0:
            self.model.train(False)
            figures = validate()
            self.model.train()
            if self.log:
                self.log.figures("validation", self.done, figures)
        if self.checkpointer and (stopping or self.checkpointer.is_due(self.done, self.steps)):
            by_rank = step_seconds_by_rank(result.own_seconds)
            if self.log:
                self.log.ranks(self.done, by_rank)
            self.checkpointer.save(self.done)

    def result(self, seconds: float) -> TrainResult:
        """Put the averaged weights into the model, if any, and sum up."""
        if self.average.count:
            self.average.apply(self.model)
        self.model.train(False)
        if self.record:
            self.record.finish(self.model)
        tail = self.losses[-max(len(self.losses) // 10, 1) :]
        last_loss = sum(tail) / len(tail) if tail else math.nan
        warned = self.log.end() if self.log else ()
        return TrainResult(self.steps, self.tokens, last_loss, self.average.count, seconds, warned)

    def _logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        with self.autocast:
            return self.module.logprobs(batches)

    def _resume(self) -> tuple[int, list[float], set[int]]:
        """Restore the newest checkpoint; returns finished steps, their losses, and the steps that were refused."""
        if self.checkpointer is None:  # without a work folder, a run begins anew
            return 0, [], set()
        done, damaged = self.checkpointer.restore()
        losses, refused = self.log.cut_back(done, damaged) if self.log else ([], set())
        return done, losses, set(share(sorted(refused)))

    def _refuse(self, loss: float, norm: float, batches: list[Batch]) -> None:
        """Record a step whose loss or gradient is not finite; then stop, skip it or roll back, as configured."""
        step = self.done
        self.refused.add(step)
        problem = f"{self.title}: step {step + 1} has loss {loss} and gradient norm {norm}; it was skipped"
        if self.log:
            problem += f" (its batches are in {self.log.refused(step + 1, loss, norm, batches)})"
        if error := refusal_error(problem, self.config, len(self.refused)):
            raise error
        if self.config.on_not_finite == "roll-back":
            if self.checkpointer:
                self.checkpointer.wait()
            if not (self.work and checkpoints(self.work / CHECKPOINTS)):
                raise HerdError(f"{problem}; there is no checkpoint to roll back to", "Lower checkpoint_every_steps")
            self.done, self.losses, _ = self._resume()


@dataclass(frozen=True, slots=True)
class OneProcess:
    """A model that is whole in this process; the counterpart of :class:`herdlm.parallel.model.ParallelModel`."""

    model: Transformer

    def gradients(
        self, objective: Objective, batches: Sequence[Batch], autocast: AbstractContextManager[Any]
    ) -> tuple[Tensor, float, dict[str, Tensor]]:
        """Add a step's gradients to the parameters, without waiting for the device.

        Returns:
            The loss and sums of what else is logged, float64 scalars on the device, and the loss's normalizer.
        """
        device = next(self.model.parameters()).device
        normalizer = sum(objective.normalizer(batch) for batch in batches)
        total, sums = torch.zeros((), dtype=torch.float64, device=device), dict[str, Tensor]()
        for batch in batches:
            with autocast:
                loss, logged = objective.loss(self.model, batch.to(device))
            loss = loss / normalizer
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            for name, value in logged.items():
                sums[name] = sums.get(name, 0.0) + value.double()
        return total, normalizer, sums

    def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The log-probability of every target, as :func:`batch_logprobs` returns it."""
        return [batch_logprobs(self.model, batch) for batch in batches]

    def clip(self, max_norm: float) -> Tensor:
        """Scale gradients to a norm of at most ``max_norm``; returns what it was, a scalar on the device."""
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)


def note(result: StepResult, shown: Sequence[str]) -> str:
    """The loss, and the logged figures of these names, for a line of progress."""
    figures = ((name, result.logged[name]) for name in shown if name in result.logged)
    return ", ".join([f"loss {result.loss:.3f}", *(f"{name} {value:.3g}" for name, value in figures)])


def read_scalars(*values: Tensor) -> list[float]:
    """The values of scalars, read from the device at once."""
    return torch.stack([value.double() for value in values]).tolist()


def make_optimizer(model: Transformer | ParallelModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices only: norms are left alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=config.betas, eps=config.eps, fused=True)


def averaging_steps(steps: int, config: TrainConfig) -> set[int]:
    """After which numbers of finished steps the weights count toward the average; the last step is one of them."""
    if not config.average_last:
        return set()
    first = steps * (1 - config.average_last)
    spread = (steps - first) / max(config.average_count - 1, 1)
    return {round(steps - i * spread) for i in range(config.average_count)}
