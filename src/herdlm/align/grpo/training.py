"""Trains a model by policy gradient on prompts with checkable answers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from herdlm.align.files import Data, read_data
from herdlm.align.grpo.batches import ROLLOUTS, GrpoBatches
from herdlm.align.grpo.config import GrpoConfig
from herdlm.align.grpo.measure import Answered, answer_greedily, line, mean_of, summary
from herdlm.align.grpo.rewards import Judge
from herdlm.align.grpo.sampler import Prompt, Sampler, prompts_with_room
from herdlm.align.job import FinetuneJob, Model, Run
from herdlm.align.result import save, shown, write_figures
from herdlm.align.work import work_on
from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.evaluate.intervals import pass_rate
from herdlm.parallel.processes import is_first
from herdlm.train.policy_gradient import PolicyGradient

SAMPLES = "samples"


def grpo(job: FinetuneJob, config: GrpoConfig) -> dict[str, Any] | None:
    """Train a model on the prompts in files, and publish it; see :func:`herdlm.align.work.work_on`.

    With held-out prompts, the share that the model answers rightly, by greedy answers, is measured before and after.
    Each process samples its share of a batch on an engine that holds the whole model.
    """

    def act(run: Run) -> dict[str, Any]:
        with Judge(config.own_verifiers) as judge:
            return train_grpo(run, config, read_data(run, "prompts"), judge)

    return work_on(job, "grpo", config, act)


def train_grpo(run: Run, config: GrpoConfig, data: Data, judge: Judge) -> dict[str, Any]:
    """Train the run's model on prompts, and write it into the run's folder."""
    prompts = _with_room(run, config, data.records)
    held_out = _with_room(run, config, data.held_out) if data.held_out else []
    judge.check([prompt.record for prompt in (*prompts, *held_out)])
    whole = run.start.load(run.device)
    sampler = Sampler(run, config, whole, judge)
    model: Model = run.lay_out(whole)
    reference: Model | None = run.lay_out(run.start.load(run.device)) if config.kl_weight else None
    batches = GrpoBatches(run, config, prompts, sampler=sampler, model=model, reference=reference)

    def measure() -> Answered:
        return answer_greedily(sampler, model, held_out, config.max_answer_tokens)

    before = Answered(**run.remember("before", lambda: asdict(measure()))) if held_out else None
    objective = PolicyGradient(config.clip_low, config.clip_high, config.kl_weight, config.temperature)
    validate = (lambda: {"right": pass_rate(measure().right).value}) if held_out else None
    result = run.train(model, objective, batches, validate)
    save(run, model)
    counts: dict[str, Any] = {
        "parameters": run.start.shape.parameters,
        "steps": result.steps,
        "warmup_steps": run.training(batches.steps).warmup_steps,
        "last_loss": round(result.last_loss, 6),
        "prompts": len(prompts),
        "without_room": len(data.records) - len(prompts),
        **data.counts,
    }
    after = measure() if held_out else None
    if is_first():
        if config.keep_samples:
            _publish_samples(run)
        counts["sampled"] = _sampled(run, config)
    if before is None or after is None:
        return counts
    write_figures(run, {"right": pass_rate(after.right), "score": mean_of(after.scores)})
    run.say(line(before, after))
    return counts | {"held_out": summary(before, after)}


def _with_room(run: Run, config: GrpoConfig, records: Sequence[Any]) -> list[Prompt]:
    prompts = prompts_with_room(run, records, config.max_answer_tokens)
    if not prompts:
        raise InputError(
            f"no prompt leaves room for an answer of {config.max_answer_tokens:,} tokens in rows of {config.seq_len:,}",
            "Raise seq_len, or lower max_answer_tokens",
        )
    if left_out := len(records) - len(prompts):
        run.say(f"{left_out:,} prompts leave no room for an answer of {config.max_answer_tokens:,} tokens: left out")
    return prompts


def _publish_samples(run: Run) -> None:
    (run.out / SAMPLES).mkdir()
    for path in sorted((run.work / ROLLOUTS).glob("*.jsonl")):
        shutil.copyfile(path, run.out / SAMPLES / path.name)


def _sampled(run: Run, config: GrpoConfig) -> dict[str, Any]:
    """The mean reward, and the share of right answers, in the first and the last quarter of the batches."""
    steps = read_events(run.work / "events.jsonl", "step")
    batches = [event for event in steps if (event["step"] - 1) % config.updates == 0]
    quarter = max(len(batches) // 4, 2)
    found: dict[str, Any] = {name: int(sum(event[name] for event in batches)) for name in ("groups", "skipped")}
    for name in ("reward", "right"):
        first, last = (mean_of([event[name] for event in some]) for some in (batches[:quarter], batches[-quarter:]))
        found |= {f"{name}_first": first.to_json(), f"{name}_last": last.to_json()}
        if name == "reward" and len(batches) > quarter:
            run.say(
                f"Mean reward of sampled answers: {shown(first)} in the first {quarter} of {len(batches)} batches, "
                f"{shown(last)} in the last"
            )
    return found
