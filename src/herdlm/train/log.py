"""The record of a run: ``events.jsonl``, one line per event, and its copies in TensorBoard and Weights & Biases."""

from __future__ import annotations

import statistics
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from herdlm.base.events import EventLog, read_events
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel
from herdlm.tokens.batch import TENSORS, Batch
from herdlm.train.config import TrackConfig, TrainConfig
from herdlm.train.speed import device_peak, peak_memory_gib
from herdlm.train.track import Tracker

SPIKE_WINDOW = 64
SPIKE_DEVIATIONS = 6.0
COLLAPSE_WINDOW = 20  # steps
CHOSEN_FALL = 0.1  # nats per token


@dataclass(frozen=True, slots=True)
class StepResult:
    """A finished training step; loss and gradient norm are over all processes.

    Attributes:
        logged: means of what else the objective logs, and what the batches say of themselves.
        seconds: from the end of the step before; ``stall_seconds`` of them were spent waiting for the batches.
        own_seconds: this process's time until its gradients were there.
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


class RunLog:
    """Writes a run's events into ``work``, from the process that leads; use as a context manager."""

    def __init__(self, work: Path, model: Transformer | ParallelModel, config: TrainConfig) -> None:
        self.work, self.events = work, EventLog(work / "events.jsonl")
        self.shape = model.shape if isinstance(model, ParallelModel) else model.config
        self.processes = dist.get_world_size() if isinstance(model, ParallelModel) else 1
        self.device = next(iter(model.parameters())).device
        self.peak = device_peak(self.device, getattr(torch, config.autocast))
        self.spikes, self.collapse = SpikeDetector(), CollapseDetector()
        self.tracker: Tracker | None = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.tracker:
            self.tracker.__exit__(*raised)

    def cut_back(self, done: int, damaged: dict[str, str]) -> tuple[list[float], set[int]]:
        """Drop the events after step ``done``, so that a resumed run logs no step twice.

        Args:
            damaged: what is wrong with checkpoints that were passed over, by name.

        Returns:
            The losses of the finished steps, and the steps (from 0) that were refused.
        """
        for kind in ("step", "validation", "spike", "ranks", "collapse"):
            self.events.truncate_after(kind, "step", done)
        for name, problem in damaged.items():
            instead = f"step-{done:08d}"
            self.events.write("damaged", damaged=name, what=problem, instead=instead)
            warnings.warn(f"{problem}; resuming from {instead}", RuntimeWarning, stacklevel=1)
        finished = list(read_events(self.events.path, "step"))
        self.collapse = CollapseDetector()
        for event in finished:
            self.collapse.see(event["step"], event)
        losses = [event["loss"] for event in finished]
        return losses, {event["step"] - 1 for event in read_events(self.events.path, "refused")}

    def begin(self, done: int, title: str, track: TrackConfig | None) -> None:
        """Log what speeds are measured against, and start TensorBoard and Weights & Biases where asked to."""
        self.events.write(
            "setup",
            step=done,
            peak_flops=round(self.peak.flops),
            peak_source=self.peak.source,
            mfu_counts="attention in full over rows, padding included",
            processes=self.processes,
        )
        if track:
            self.tracker = Tracker(track, self.work, title, done)

    def step(self, done: int, result: StepResult) -> None:
        """Log a finished step, the ``done``-th, and whether its loss is a spike."""
        per_second = result.tokens / max(result.seconds, 1e-9)
        flops = per_second * self.shape.full_attention_flops_per_token(result.seq_len)
        figures = {
            "loss": result.loss,
            "lr": result.rate,
            "grad_norm": result.grad_norm,
            "tokens": result.tokens,
            "seconds": round(result.seconds, 4),
            "stall_seconds": round(result.stall_seconds, 5),
            "tokens_per_second": round(per_second, 1),
            "mfu": round(flops / (self.peak.flops * self.processes), 4),
            "memory_gib": round(peak_memory_gib(self.device), 3),
            **result.logged,
        }
        self.figures("step", done, figures)
        if self.spikes.is_spike(result.loss):
            self.events.write("spike", step=done, loss=result.loss)
        if problem := self.collapse.see(done, result.logged):
            self.events.write("collapse", step=done, what=problem)

    def end(self) -> tuple[str, ...]:
        """Warn of every sign that the model collapsed; returns them."""
        for problem in self.collapse.found:
            warnings.warn(f"{problem} (see {self.events.path})", RuntimeWarning, stacklevel=1)
        return tuple(self.collapse.found)

    def figures(self, kind: str, done: int, figures: dict[str, float]) -> None:
        """Log figures of step ``done`` as an event of ``kind``, here and live."""
        self.events.write(kind, step=done, **figures)
        if self.tracker:
            self.tracker.write(kind, done, figures)

    def ranks(self, done: int, by_rank: list[float]) -> None:
        """Log every process's own seconds for a step, the slowest process, and the spread."""
        if len(by_rank) > 1:
            self.events.write(
                "ranks",
                step=done,
                seconds=by_rank,
                slowest=by_rank.index(max(by_rank)),
                spread=round(max(by_rank) / max(min(by_rank), 1e-9) - 1, 4),
            )

    def refused(self, step: int, loss: float, norm: float, batches: Sequence[Batch]) -> Path:
        """Keep the batches of a step (from 1) that was refused, and log it; returns the file."""
        kept = save_batches(self.work / "refused", step, batches)
        self.events.write("refused", step=step, loss=str(loss), grad_norm=str(norm), batches=kept.name)
        return kept


class SpikeDetector:
    """Finds losses more than six standard deviations above the mean of the last 64."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def is_spike(self, loss: float) -> bool:
        """Whether ``loss`` is a spike; if so, it is left out of the losses that later ones are compared with."""
        full = len(self.recent) == SPIKE_WINDOW
        spread = statistics.pstdev(self.recent) if full else 0.0
        if full and loss > statistics.fmean(self.recent) + SPIKE_DEVIATIONS * max(spread, 1e-6):
            return True
        self.recent.append(loss)
        return False


class CollapseDetector:
    """Finds preference optimization that lowers the probability of the answers it should raise.

    It compares the mean over the last ``COLLAPSE_WINDOW`` steps with the reference, or with the first such window where
    the objective has no reference. A model in which chosen answers lost ``CHOSEN_FALL`` nats a token writes something
    else instead, often longer or repetitive text (arXiv 2402.13228).
    """

    def __init__(self) -> None:
        self.recent: dict[str, deque[float]] = {}
        self.start: dict[str, float] = {}
        self.found: list[str] = []

    def see(self, step: int, figures: Mapping[str, float]) -> str | None:
        """The problem that shows in the figures of a finished step, the first time that it does."""
        if self.found:
            return None
        name, value = _chosen_figure(figures)
        if name is None:
            return None
        recent = self.recent.setdefault(name, deque(maxlen=COLLAPSE_WINDOW))
        recent.append(value)
        if len(recent) < COLLAPSE_WINDOW:
            return None
        mean = statistics.fmean(recent)
        fall = self.start.setdefault(name, 0.0 if "drift" in name else mean) - mean
        if fall <= CHOSEN_FALL:
            return None
        problem = (
            f"by step {step} the answers to be preferred lost {fall:.2f} nats a token of log-probability ({name}): "
            "lower peak_lr, or raise nll_weight or beta"
        )
        self.found.append(problem)
        return problem


def _chosen_figure(figures: Mapping[str, float]) -> tuple[str | None, float]:
    """The logged figure that follows the answers to be preferred, and its value per token."""
    for name in ("chosen_drift_per_token", "chosen_logprob"):
        if name in figures:
            return name, figures[name]
    if share := figures.get("desirable_share"):
        return "desirable_drift_per_token", figures["desirable_drift_per_token"] / share
    return None, 0.0


def save_batches(folder: Path, step: int, batches: Sequence[Batch]) -> Path:
    """Write a step's micro-batches into ``folder`` as one safetensors file, for inspection; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{number}.{name}": value.contiguous()
        for number, batch in enumerate(batches)
        for name, value in {**{f: getattr(batch, f) for f in TENSORS}, **batch.columns}.items()
    }
    path = folder / f"step-{step:08d}.safetensors"
    save_file(tensors, path)
    return path
