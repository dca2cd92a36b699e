"""Preference optimization of a model on pairs or thumbs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from herdlm.align.config import DpoConfig
from herdlm.align.dpo import objective_of, open_batches, prepare
from herdlm.align.files import Data, kind_of, read_data
from herdlm.align.job import FinetuneJob, Model, Run
from herdlm.align.preference_figures import Answers, lines, measure, pair_figures, thumb_figures
from herdlm.align.result import finished, save, write_figures
from herdlm.align.sampled_answers import AnswerFigures, collapse_signs, sample_greedily
from herdlm.align.work import work_on
from herdlm.data.formats.form import Kind
from herdlm.model.transformer import Transformer
from herdlm.parallel.processes import from_first, is_first
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.tokens.thumbs import ThumbBatches

SAMPLED_PROMPTS, SAMPLED_TOKENS = 32, 128  # half a minute on two cores with a model of 135 million parameters


def dpo(job: FinetuneJob, config: DpoConfig) -> dict[str, Any] | None:
    """Optimize a model on the pairs in files, and publish it; see :func:`herdlm.align.work.work_on`.

    The loss "kto" takes thumbs, of which a pair gives two. The reference is the model as it is given. With held-out
    pairs or thumbs, their log-probabilities and the model's greedy answers to their prompts are measured before and
    after.
    """

    def act(run: Run) -> dict[str, Any]:
        is_kto = config.loss == "kto"
        held_out: Kind | None = kind_of(job.held_out, job.rename) if is_kto and job.held_out else None
        held_out = "preferences" if held_out == "preferences" else None
        return train_dpo(run, config, read_data(run, "thumbs" if is_kto else "preferences", held_out))

    return work_on(job, "dpo", config, act)


def train_dpo(run: Run, config: DpoConfig, data: Data) -> dict[str, Any]:
    """Optimize the run's model on pairs or thumbs and write it; returns counts. Every process calls this."""
    sampled_before: AnswerFigures | None = None
    if data.held_out:
        whole = run.start.load(run.device)
        sampled_before = _sampled(run, data, whole, "before")
        model: Model = run.lay_out(whole)
    else:
        model = run.load()
    batches = prepare(
        model,
        run.format,
        data.records,
        config,
        seed=run.seed_of("batches"),
        steps=run.job.steps,
        rows_per_micro_batch=run.rows_at_once,
        remember=lambda compute: run.remember("reference", compute),
        quiet=run.job.quiet,
    )
    measured = _held_out_batches(run, config, data.held_out) if data.held_out else None
    before: Answers | None = None
    if measured is not None:
        before = Answers(**run.remember("before", lambda: asdict(measure(model, measured, run.precision))))

    def figures() -> tuple[dict[str, Any], Any]:
        assert measured is not None and before is not None
        after = measure(model, measured, run.precision)
        if isinstance(measured, PreferenceBatches):
            return pair_figures(before, after, config.loss)
        return thumb_figures(before, after, [bool(thumb["label"]) for thumb in data.held_out])

    def validate() -> dict[str, float]:
        return {name: estimate.value for name, estimate in figures()[1].items()}

    result = run.train(model, objective_of(config), batches, validate if measured is not None else None)
    found = figures() if measured is not None else None
    save(run, model)
    counts: dict[str, Any] = {
        "parameters": run.start.shape.parameters,
        "steps": result.steps,
        "warmup_steps": run.training(batches.steps).warmup_steps,
        "last_loss": round(result.last_loss, 6),
        "items": len(data.records),
        "beta": config.beta_used,
        "warnings": list(result.warnings),
        **data.counts,
    }
    if found is None or sampled_before is None or not is_first():
        return counts
    summary, estimates = found
    write_figures(run, estimates)
    sampled_after = _answers(run, data, finished(run, model))
    signs = collapse_signs(sampled_before, sampled_after)
    for line in [*lines(summary), *_sampled_lines(sampled_before, sampled_after)]:
        run.say(line)
    for sign in signs:
        run.say(f"Warning: {sign}")
    sampled = {"before": asdict(sampled_before), "after": asdict(sampled_after)}
    return counts | {"warnings": [*counts["warnings"], *signs], "held_out": summary | {"sampled_answers": sampled}}


def _held_out_batches(run: Run, config: DpoConfig, items: Sequence[Any]) -> PreferenceBatches | ThumbBatches:
    """Batches that hold the items in order. Pairs are measured as pairs, also with KTO."""
    if config.loss == "kto" and "chosen" in items[0]:
        keys = {"loss": "sigmoid", "beta": None, "desirable_weight": 1.0, "undesirable_weight": 1.0}
        config = config.model_copy(update=keys)
    return open_batches(run.format, items, config, seed=0, rows_per_micro_batch=run.rows_at_once)


def _sampled(run: Run, data: Data, model: Transformer, name: str) -> AnswerFigures:
    """Figures of the model's answers before training, computed on the first process and kept while the run lasts."""
    return AnswerFigures(
        **run.remember(f"answers-{name}", lambda: from_first(lambda: asdict(_answers(run, data, model))))
    )


def _answers(run: Run, data: Data, model: Transformer) -> AnswerFigures:
    room = run.start.shape.max_seq_len - SAMPLED_TOKENS
    prompts: dict[str, Any] = {}
    for item in data.held_out:
        key = json.dumps(item["prompt"], sort_keys=True)
        if key not in prompts and len(run.format.prompt(item["prompt"], tools=item.get("tools"))) <= room:
            prompts[key] = (item["prompt"], item.get("tools"))
        if len(prompts) == SAMPLED_PROMPTS:
            break
    return sample_greedily(
        model,
        run.format,
        list(prompts.values()),
        max_tokens=SAMPLED_TOKENS,
        title="dpo: answers to held-out prompts",
        quiet=run.job.quiet,
    )


def _sampled_lines(before: AnswerFigures, after: AnswerFigures) -> list[str]:
    return [
        f"Greedy answers to {after.answers} held-out prompts: {before.mean_tokens:.0f} tokens before, "
        f"{after.mean_tokens:.0f} after (at most {SAMPLED_TOKENS}); repeated 4-grams "
        f"{before.repeated_share:.1%} before, {after.repeated_share:.1%} after"
    ]
