"""Trains a reward model on pairs."""

from __future__ import annotations

from typing import Any

from herdlm.align.config import RewardConfig
from herdlm.align.files import Data, read_data
from herdlm.align.job import FinetuneJob, Model, Run, work_on
from herdlm.align.result import finished, save, write_figures
from herdlm.align.reward import pair_scores
from herdlm.align.reward_figures import accuracy, lines, reward_figures, scored
from herdlm.base.seeds import derive_seed
from herdlm.model.start import reward_model_from
from herdlm.parallel.processes import is_first
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.train.preferences import Reward

EDITED = "edited"


def reward(job: FinetuneJob, config: RewardConfig) -> dict[str, Any] | None:
    """Train a reward model on the pairs in files, and publish it; see :func:`herdlm.align.job.work_on`.

    A model that writes gets a new head for scores; a reward model keeps its own and trains on. With held-out pairs,
    :func:`herdlm.align.reward_figures.reward_figures` of them is measured.
    """
    return work_on(job, "reward", config, lambda run: _reward(run, config, read_data(run, "preferences")))


def open_batches(
    format: ChatFormat,
    pairs: list[Any],
    config: RewardConfig,
    *,
    seed: int,
    steps: int | None = None,
    rows_per_micro_batch: int | None = None,
) -> PreferenceBatches:
    """Batches of pairs, in which every token of an answer counts."""
    return PreferenceBatches(
        format,
        pairs,
        seq_len=config.seq_len,
        pairs_per_step=config.pairs_per_step,
        epochs=config.epochs,
        seed=seed,
        mask_formatting=False,
        steps=steps,
        rows_per_micro_batch=rows_per_micro_batch,
    )


def _reward(run: Run, config: RewardConfig, data: Data) -> dict[str, Any]:
    pairs = [pair for pair in data.records if config.use_edited or pair.get("rating") != EDITED]
    batches = open_batches(
        run.format,
        pairs,
        config,
        seed=derive_seed(run.seed, "batches"),
        steps=run.job.steps,
        rows_per_micro_batch=run.rows_at_once,
    )
    whole = run.start.load(run.device)
    if whole.config.head != "score":
        whole = reward_model_from(whole, derive_seed(run.seed, "head"))
    model: Model = run.lay_out(whole)
    result = run.train(model, Reward(), batches, None)
    save(run, model)
    counts: dict[str, Any] = {
        "parameters": run.start.shape.parameters,
        "steps": result.steps,
        "warmup_steps": run.training(batches.steps).warmup_steps,
        "last_loss": round(result.last_loss, 6),
        "pairs": len(pairs),
        **data.counts,
    }
    if not (data.held_out and is_first()):
        return counts
    measured = open_batches(run.format, data.held_out, config, seed=0)
    found = scored(data.held_out, measured, pair_scores(finished(run, model), measured))
    write_figures(run, {"accuracy": accuracy(found)})
    figures = reward_figures(found)
    for line in lines(figures):
        run.say(line)
    return counts | {"held_out": figures}
