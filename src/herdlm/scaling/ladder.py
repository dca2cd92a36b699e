"""Trains a ladder for scaling laws: sizes at equal compute or at fixed tokens per parameter, on one machine or many.

Every model is pre-trained by the recipe's own procedure in fewer steps; warm-up, decay, ramp and anneal keep their
share of the run. A machine claims a run by the lock that training holds, so several may work on one shared folder.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from herdlm.base.artifact import read_manifest, write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.standalone import ClaimedError, input_folder
from herdlm.model.config import ModelConfig
from herdlm.pretrain.config import PretrainConfig, tokens_in
from herdlm.pretrain.job import HerdJob, PretrainJob
from herdlm.pretrain.mix import MixPlan, plan_mix, source_tokens
from herdlm.scaling.mix_candidates import in_small
from herdlm.scaling.points import FLOPS_PER_PARAMETER_TOKEN
from herdlm.scaling.trained import folder_of, trained_once

POINTS, PLAN, RUNS = "points.csv", "ladder.json", "runs"
FEWEST_STEPS = 20
COLUMNS = ("run", "params", "tokens", "flops", "budget", "loss", "bits_per_byte", "steps")


@dataclass(frozen=True, slots=True)
class Rung:
    """A run of the ladder: a model, and the compute that it gets.

    Args:
        budget: nominal FLOPs of an isoFLOP sweep; None at a fixed ratio.
        params: its size along the recipe's ``forecast.axis``.
    """

    name: str
    job: PretrainJob
    budget: float | None
    params: float

    @property
    def tokens(self) -> int:
        """Tokens that it is trained on, in whole steps."""
        return tokens_in(self.job.pretrain)

    @property
    def flops(self) -> float:
        """6 x parameters x tokens."""
        return FLOPS_PER_PARAMETER_TOKEN * self.params * self.tokens

    def as_json(self) -> dict[str, Any]:
        """The run as the plan's file lists it."""
        return {
            "run": self.name,
            "params": self.params,
            "tokens": self.tokens,
            "flops": self.flops,
            "budget": self.budget,
            "steps": self.job.pretrain.steps,
        }


def plan_ladder(
    herd: HerdJob,
    tokens: Path,
    *,
    budgets: Sequence[float] = (),
    ratios: Sequence[float] = (),
    models: Sequence[str] = (),
    shapes: int = 0,
) -> list[Rung]:
    """The runs of a ladder, the ones with least compute first.

    Args:
        tokens: folder of token shards, whose sizes cap the epochs of the mix.
        budgets: FLOPs that every size gets (isoFLOP).
        ratios: tokens per parameter that every size gets.
        models: names of models of the recipe; by default its ladder.
        shapes: further sizes, made from the flagship's shape by scaling width and depth.

    Raises:
        InputError: no sweep or no sizes are given, or a run would have fewer than 20 steps.
    """
    if not budgets and not ratios:
        raise InputError("a ladder needs compute", "Give --budgets, --ratios, or both")
    if bad := [value for value in (*budgets, *ratios) if not 0 < value < float("inf")]:
        raise InputError(f"{bad[0]:g} is no budget and no ratio", "Give positive numbers")
    jobs = [herd.job(name) for name in models or (() if shapes else herd.ladder)]
    jobs += scaled(herd, shapes)
    if not jobs:
        raise InputError("a ladder needs sizes", "Give --models or --shapes; the recipe has no herd.ladder")
    plan = plan_mix(herd.pretrain, source_tokens(tokens, herd.pretrain))
    whole = in_small(plan, None, "the recipe")
    per_step = tokens_in(whole) / whole.steps
    rungs = []
    for job in jobs:
        params = float(getattr(job.model, herd.axis))
        by_budget = FLOPS_PER_PARAMETER_TOKEN * params
        wanted: list[tuple[float | None, float, str]] = []
        wanted += [(budget, budget / by_budget, f"{budget:.4g}") for budget in budgets]
        wanted += [(None, ratio * params, f"{ratio:g}x") for ratio in ratios]
        for budget, length, label in wanted:
            name = f"{job.name}-{label.replace('+', '')}"
            rungs.append(_rung(name, job, plan, budget=budget, params=params, steps=round(length / per_step)))
    return sorted(rungs, key=lambda rung: (rung.flops, rung.name))


def _rung(name: str, job: PretrainJob, plan: MixPlan, *, budget: float | None, params: float, steps: int) -> Rung:
    if steps < FEWEST_STEPS:
        raise InputError(
            f"the run {name} would have {steps} steps, which is fewer than {FEWEST_STEPS}",
            "Raise the compute, leave this size out, or lower pretrain.rows_per_step",
        )
    pretrain: PretrainConfig = in_small(plan, steps, name)
    return Rung(name, replace(job.on(pretrain), name=name), budget, params)


def scaled(herd: HerdJob, count: int) -> list[PretrainJob]:
    """``count`` sizes up to the flagship's, each about half of the next; the learning rate is the nearest model's."""
    flagship = herd.job(herd.flagship)
    made: dict[int, PretrainJob] = {}
    for number in range(count):
        share = 2.0 ** (-number / 3)  # parameters go with the third power of width: depth is scaled, too
        shape = scaled_shape(flagship.model, share)
        size = shape.parameters
        nearest = min(herd.models.values(), key=lambda job: abs(job.model.parameters / size - 1))
        train = flagship.pretrain.train.model_copy(update={"peak_lr": nearest.pretrain.train.peak_lr})
        pretrain = flagship.pretrain.model_copy(update={"train": train})
        made[size] = replace(flagship, name=f"d{shape.dim}-l{shape.layers}", model=shape, pretrain=pretrain)
    if len(made) < count:
        raise InputError(
            f"the flagship's shape gives {len(made)} different sizes, not {count}", "Lower --shapes, or give --models"
        )
    return list(made.values())


def scaled_shape(shape: ModelConfig, share: float) -> ModelConfig:
    """A shape of ``share`` of the width and depth. Of more than 8 heads fewer remain; else their size shrinks."""
    heads, kv, head_size = shape.heads, shape.kv_heads, shape.head_size
    if heads > 8:
        heads, kv = max(round(heads * share), 1), max(round(kv * share), 1)
        while heads % kv:
            kv -= 1
    else:
        head_size = max(2 * round(head_size * share / 2), 2)
    dim = heads * head_size
    changes = {
        "dim": dim,
        "heads": heads,
        "kv_heads": kv,
        "layers": max(round(shape.layers * share), 1),
        "ffn_dim": max(8 * round(shape.ffn_dim * dim / shape.dim / 8), 8),
        "head_dim": None,
    }
    return ModelConfig.model_validate(shape.model_dump() | changes)


def run_ladder(
    rungs: Sequence[Rung],
    *,
    tokens: Path,
    tokenizer: Path,
    out: Path,
    only: tuple[int, int] = (1, 1),
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train the runs that are missing and write ``out/points.csv``; returns how many are done.

    Interrupted runs resume. Another ladder in the same folder is refused.

    Args:
        only: (i, n): train the i-th of n parts of the runs, without claiming others.
        say: told of each run.

    Raises:
        InputError: the folder holds another ladder, or training cannot begin.
    """
    part, parts = only
    if not 1 <= part <= parts:
        raise InputError(f"--only {part}/{parts} is no part", "Give I/N with I from 1 to N")
    inputs = {"tokens": input_folder(tokens).content, "tokenizer": input_folder(tokenizer).content}
    runs = out / RUNS
    folders = {rung.name: folder_of(rung.job, runs, inputs) for rung in rungs}
    _claim_folder(out, rungs, folders, inputs)
    for rung in rungs[part - 1 :: parts]:
        if read_manifest(folders[rung.name]) is None:
            say(f"{rung.name}: {rung.params:,.0f} parameters, {rung.tokens:,} tokens")
            try:
                trained_once(rung.job, tokens=tokens, tokenizer=tokenizer, runs=runs, inputs=inputs)
            except ClaimedError:
                say(f"{rung.name}: another process trains it")
                continue
        write_points(rungs, folders, out)
    done = write_points(rungs, folders, out)
    return {"runs": len(rungs), "done": done, "points": str(out / POINTS), "complete": done == len(rungs)}


def _claim_folder(out: Path, rungs: Sequence[Rung], folders: dict[str, Path], inputs: dict[str, str]) -> None:
    """Write the plan of the ladder, or check that the folder's is the same."""
    rows = [rung.as_json() | {"folder": folders[rung.name].name} for rung in rungs]
    plan = json.dumps({"inputs": inputs, "runs": rows}, indent=2) + "\n"
    path = out / PLAN
    if path.is_file():
        if path.read_text(encoding="utf-8") != plan:
            raise InputError(f"{path} is of another ladder", "Choose another folder, or the same recipe and options")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text_durably(path, plan)


def write_points(rungs: Sequence[Rung], folders: dict[str, Path], out: Path) -> int:
    """Write the runs that are done as CSV; returns how many there are."""
    with (out / ".lock").open("w") as lock:  # other machines may write it at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        text, done = _points(rungs, folders)
        write_text_durably(out / POINTS, text)
    return done


def _points(rungs: Sequence[Rung], folders: dict[str, Path]) -> tuple[str, int]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    done = 0
    for rung in rungs:
        if read_manifest(folders[rung.name]) is None:
            continue
        found = json.loads((folders[rung.name] / "training.json").read_text(encoding="utf-8"))
        numbers = (f"{rung.params:.0f}", rung.tokens, f"{rung.flops:.6g}", "" if rung.budget is None else rung.budget)
        losses = (found["validation_nats_per_token"], found["validation_bits_per_byte"])
        writer.writerow((rung.name, *numbers, *losses, found["steps"]))
        done += 1
    return text.getvalue(), done
