"""The result of a search for layouts, as data and as lines of text."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from herdlm.base.errors import InputError
from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import Job, Layout
from herdlm.plan.layouts import Question
from herdlm.plan.predict import needed_gib
from herdlm.plan.request import Request
from herdlm.plan.search import Found, cost_front, explain, search
from herdlm.plan.stacks import Stack
from herdlm.plan.step_time import Step, step_time
from herdlm.plan.training_memory import StepMemory

LIMITS = {
    "memory": "unlimited memory would save {:.1%} of the step",
    "bubble": "the pipeline waits for {:.1%} of the step",
    "traffic": "communication that is not hidden takes {:.1%} of the step",
    "batch": "with twice the tokens per step, a token would take {:.1%} less time",
}


@dataclass(frozen=True, slots=True)
class LayoutSearch:
    """A search on a machine, by the planner's own models of time and memory."""

    question: Question
    machine: Machine
    constants: Constants
    stack: Stack

    @classmethod
    def of(
        cls, request: Request, given: dict[str, Any], machine: Machine, constants: Constants, stack: Stack
    ) -> LayoutSearch:
        """The search for a request's job; of its layout, only what is ``given`` stays."""
        names = {field.name for field in fields(Layout)} - {"precision"}
        question = Question(
            shape=request.shape,
            gpus=request.gpus,
            gpu=request.gpu,
            seq_len=request.seq_len,
            tokens_per_step=request.tokens_per_step,
            node=machine.gpus_per_node,
            precision=given.get("precision", request.precision),
            software=request.software,
            given={name: value for name, value in given.items() if name in names},
        )
        return cls(question, machine, constants, stack)

    def seconds(self, job: Job) -> Step:
        """The time of a job's step."""
        return step_time(job, self.machine, self.constants, self.stack)

    def memory(self, job: Job) -> float:
        """GiB that a job's GPU needs; of one that has too little, at least these."""
        least = StepMemory.of(job).least() / 2**30
        return least if least > self.machine.gpu.memory_gib else needed_gib(job, self.stack)

    def run(self, best: int) -> Found:
        """Search.

        Raises:
            InputError: no layout divides the job, or none fits.
        """
        if self.question.tokens_per_step % self.question.seq_len:
            raise InputError(
                f"tokens_per_step {self.question.tokens_per_step} is not a multiple of seq_len {self.question.seq_len}",
                "Change one",
            )
        return search(self.question, self.seconds, self.memory, self.machine.gpu.memory_gib, best)

    def report(self, found: Found, tokens: int) -> dict[str, Any]:
        """What was found, what binds, and days and dollars of a run of ``tokens``, of its steps alone."""
        gpu = self.machine.gpu
        return {
            "gpu": gpu.name,
            "gpus": self.question.gpus,
            "memory_gib": gpu.memory_gib,
            "tokens": tokens,
            "best": [each.as_json(found.best[0]) for each in found.best],
            "explain": explain(found, self.seconds, gpu.memory_gib),
            "front": cost_front(found, tokens, gpu.dollars_per_hour),
        }


def layout_text(layout: dict[str, Any]) -> str:
    """A layout in a few words."""
    names = {"tp": "TP", "cp": "CP", "pp": "PP", "vpp": "V", "dp_shard": "shard", "dp_replicate": "copies"}
    sizes = [f"{title} {layout[name]}" for name, title in names.items() if layout[name] > 1 or name in ("tp", "pp")]
    kinds = [f"rows {layout['micro_batch']}", f"recompute {layout['recompute']}"]
    if layout["pp"] > 1:
        kinds.append(layout["schedule"])
    elif layout["reshard_after_forward"]:
        kinds.append("reshard")
    return ", ".join([*sizes, *kinds])


def lines(report: dict[str, Any], *, explained: bool) -> list[str]:
    """The report as text; ``explained`` adds what binds the best layout."""
    out = [
        f"{report['explain']['considered']:,} layouts of up to {report['gpus']:,} {report['gpu']}, "
        f"{report['memory_gib']:g} GiB each",
        "",
        f"{'tokens/s/GPU':>12} {'GPUs':>7} {'GiB':>6} {'slower':>7}  layout",
    ]
    for row in report["best"]:
        out.append(
            f"{row['tokens_per_s_per_gpu']:12,.0f} {row['gpus']:7,} {row['memory_gib_per_gpu']:6.1f} "
            f"{row['slower']:7.1%}  {layout_text(row['layout'])}"
        )
        out.append(f"{'':36} {row['reason']}")
    if explained:
        out += ["", *_explained(report["explain"])]
    out += ["", f"days and dollars of {report['tokens']:,} tokens, without failures"]
    for row in report["front"]:
        out.append(f"  {row['gpus']:7,} GPUs {row['days']:9,.1f} days {row['dollars']:15,.0f} dollars  {row['layout']}")
    return out


def _explained(found: dict[str, Any]) -> list[str]:
    out = [f"what binds the best layout, most of all {found['most']}:"]
    out += [f"  {name:8} {LIMITS[name].format(share)}" for name, share in found["binds"].items()]
    out.append(f"  it uses {found['memory_used']:.0%} of the memory; {found['too_large']:,} faster layouts do not fit")
    out.append(f"  without the limit: {layout_text(found['without_memory_limit'])}")
    if found["next"]:
        out.append(f"  the next best is {found['next']['slower']:.2%} slower: {found['next']['why']}")
    return out
