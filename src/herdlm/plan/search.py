"""Search for the fastest layouts that fit: all that divide, ordered by time, the first that memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from herdlm.base.errors import InputError
from herdlm.plan.job import Job
from herdlm.plan.layouts import Question, jobs

BEST = 10
FEW = 64  # GPUs, of which a layout may use any number; of more it uses over half
TRAFFIC = ("tp", "cp", "pp", "dp")
DAY = 86_400


class Timed(Protocol):
    """A step's seconds, and their parts by name."""

    @property
    def parts(self) -> dict[str, float]: ...

    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job with its step's time; ``gib`` are the GiB that its GPU needs."""

    job: Job
    seconds: float
    parts: dict[str, float]
    gib: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens per second of all GPUs."""
        return self.job.tokens_per_step / self.seconds

    def as_json(self, first: Candidate) -> dict[str, Any]:
        """The candidate, and what it loses to the first."""
        return {
            "layout": asdict(self.job.layout),
            "gpus": self.job.gpus,
            "micro_batches": self.job.micro_batches,
            "step_seconds": self.seconds,
            "tokens_per_s": self.rate,
            "tokens_per_s_per_gpu": self.rate / self.job.gpus,
            "memory_gib_per_gpu": self.gib,
            "parts": self.parts,
            "slower": self.seconds / first.seconds - 1,
            "reason": reason(self, first),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: the best, the fastest of every number of GPUs, and the fastest if memory had no end."""

    best: list[Candidate]
    by_gpus: list[Candidate]
    without_limit: Candidate
    considered: int
    too_large: int


def search(
    question: Question, seconds: Callable[[Job], Timed], memory: Callable[[Job], float], gib: float, best: int = BEST
) -> Found:
    """The fastest layouts that need at most ``gib`` on every GPU, and the front over fewer and fewer GPUs.

    Args:
        seconds: the time of a job's step.
        memory: the GiB that its GPU needs.

    Raises:
        InputError: nothing divides the job, or nothing that does fits.
    """
    needed = _Needed(memory)
    found = _search(question, seconds, needed, gib, best)
    every, gpus = list(found.by_gpus), question.gpus
    while gpus > FEW:
        gpus //= 2
        try:
            every += _search(replace(question, gpus=gpus), seconds, needed, gib, 1).by_gpus
        except InputError:
            break
    return replace(found, by_gpus=front(every))


def _search(question: Question, seconds: Callable[[Job], Timed], needed: _Needed, gib: float, best: int) -> Found:
    """The fastest layouts that use more than half of the GPUs, or any number of a few."""
    least = question.gpus // 2 + 1 if question.gpus > FEW else 1
    timed = [
        (step.seconds, number, job, step.parts)
        for number, (job, step) in enumerate((job, seconds(job)) for job in jobs(question, least))
    ]
    if not timed:
        raise InputError(
            f"no layout divides {question.shape.heads} heads, {question.shape.layers} layers and {question.rows} rows "
            f"of a step among {question.gpus} GPUs",
            "Change tokens_per_step or the sizes that are given",
        )
    timed.sort(key=lambda entry: (entry[0], entry[1]))
    found: list[Candidate] = []
    by_gpus: dict[int, Candidate] = {}
    seen: set[tuple[Any, ...]] = set()
    too_large = 0
    for each, _, job, parts in timed:
        wanted = job.gpus not in by_gpus
        if not wanted and len(found) >= best:
            continue
        size = needed(job)
        if size > gib:
            too_large += 1
            continue
        candidate = Candidate(job, each, parts, size)
        by_gpus.setdefault(job.gpus, candidate)
        key = _kind(job)
        if len(found) < best and key not in seen:
            seen.add(key)
            found.append(candidate)
    first = timed[0]
    if not found:
        smallest = min(needed(job) for _, _, job, _ in timed[:: max(len(timed) // 500, 1)])
        raise InputError(
            f"no layout of {question.gpus} GPUs fits {gib:.0f} GiB; the least found is {smallest:.1f} GiB",
            "Take more GPUs, or GPUs with more memory",
        )
    return Found(found, front(by_gpus.values()), Candidate(first[2], first[0], first[3]), len(timed), too_large)


class _Needed:
    """The memory of jobs, remembered by what it depends on."""

    def __init__(self, memory: Callable[[Job], float]) -> None:
        self.memory = memory
        self.known: dict[tuple[Any, ...], float] = {}

    def __call__(self, job: Job) -> float:
        layout = job.layout
        key = (*_kind(job), layout.sharded, layout.dp_replicate > 1, min(job.micro_batches, 4 * layout.pp + 1))
        if key not in self.known:
            self.known[key] = self.memory(job)
        return self.known[key]


def _kind(job: Job) -> tuple[Any, ...]:
    """What tells layouts apart in a list of the best: not how data parallelism divides into shards and copies."""
    layout = job.layout
    return (
        *(layout.tp, layout.cp, layout.pp, layout.vpp, layout.dp, layout.micro_batch, layout.schedule),
        *(layout.recompute, layout.reshard_after_forward),
    )


def front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other beats in both time and GPU time, from the fastest to the cheapest."""
    left: list[Candidate] = []
    for each in sorted(candidates, key=lambda each: (each.seconds, each.seconds * each.job.gpus)):
        if not left or each.seconds * each.job.gpus < left[-1].seconds * left[-1].job.gpus:
            left.append(each)
    return left


def reason(candidate: Candidate, first: Candidate) -> str:
    """Where the time goes, or what a slower candidate loses to the first, in words."""
    if candidate is first:
        most = sorted(candidate.parts.items(), key=lambda part: -part[1])[:4]
        return "most of the step: " + ", ".join(f"{name} {value / candidate.seconds:.0%}" for name, value in most)
    changes = {name: candidate.parts[name] - first.parts.get(name, 0.0) for name in candidate.parts}
    lost = [f"{name} {change / first.seconds:+.1%}" for name, change in _largest(changes, 1) if change > 0]
    won = [f"{name} {change / first.seconds:+.1%}" for name, change in _largest(changes, -1) if change < 0]
    return "; ".join([*(["loses " + ", ".join(lost)] if lost else []), *(["gains " + ", ".join(won)] if won else [])])


def _largest(changes: dict[str, float], sign: int) -> list[tuple[str, float]]:
    return sorted(changes.items(), key=lambda part: -sign * part[1])[:2]


def explain(found: Found, seconds: Callable[[Job], Timed], gib: float) -> dict[str, Any]:
    """What binds the best layout: what each limit costs of its time.

    ``memory`` is the share of time that unlimited memory would save, ``batch`` what twice the tokens per step would
    save of the time of a token, ``bubble`` and ``traffic`` their shares of the step.
    """
    first = found.best[0]
    job = first.job
    twice = Job(job.shape, job.layout, job.gpus, job.gpu, job.seq_len, 2 * job.tokens_per_step, job.software)
    binds = {
        "memory": 1 - found.without_limit.seconds / first.seconds,
        "bubble": first.parts.get("bubble", 0.0) / first.seconds,
        "traffic": sum(first.parts.get(name, 0.0) for name in TRAFFIC) / first.seconds,
        "batch": 1 - seconds(twice).seconds / (2 * first.seconds),
    }
    second = found.best[1] if len(found.best) > 1 else None
    return {
        "binds": binds,
        "most": max(binds, key=lambda name: binds[name]),
        "memory_used": first.gib / gib,
        "without_memory_limit": asdict(found.without_limit.job.layout),
        "next": None
        if second is None
        else {"slower": second.seconds / first.seconds - 1, "why": reason(second, first)},
        "considered": found.considered,
        "too_large": found.too_large,
    }


def cost_front(found: Found, tokens: int, dollars_per_gpu_hour: float) -> list[dict[str, Any]]:
    """Days and dollars of a whole run of ``tokens``, of the layouts that no other beats in both."""
    rows = []
    for each in found.by_gpus:
        days = tokens / each.rate / DAY
        rows.append(
            {
                "gpus": each.job.gpus,
                "days": days,
                "dollars": days * 24 * each.job.gpus * dollars_per_gpu_hour,
                "layout": str(each.job.layout),
                "recompute": each.job.layout.recompute,
            }
        )
    return rows
