"""Trains a reward model on pairs."""

from __future__ import annotations

from typing import Any

from herdlm.align.config import RewardConfig
from herdlm.align.files import Data, read_data
from herdlm.align.job import FinetuneJob, Model, Run
from herdlm.align.result import estimate_json, save, write_figures
from herdlm.align.reward import pair_scores
from herdlm.align.reward_figures import ScoredPair, accuracy, lines, reward_figures, scored
from herdlm.align.work import work_on
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.train.preferences import Reward

EDITED = "edited"


def reward(job: FinetuneJob, config: RewardConfig) -> dict[str, Any] | None:
    """Train a reward model on the pairs in files, and publish it; see :func:`herdlm.align.work.work_on`.

    A model that writes gets a new head for scores; a reward model keeps its own and trains on. With held-out pairs,
    :func:`herdlm.align.reward_figures.reward_figures` of them is measured.
    """
    return work_on(job, "reward", config, lambda run: train_reward(run, config, read_data(run, "preferences")))


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


def train_reward(run: Run, config: RewardConfig, data: Data, *, rank_training: bool = False) -> dict[str, Any]:
    """Train a reward model on pairs and write it; returns counts. Every process calls this.

    Args:
        rank_training: also count the accuracy on the pairs that were trained on, as ``train_accuracy``.
    """
    pairs = [pair for pair in data.records if config.use_edited or pair.get("rating") != EDITED]
    batches = open_batches(
        run.format,
        pairs,
        config,
        seed=run.seed_of("batches"),
        steps=run.job.steps,
        rows_per_micro_batch=run.rows_at_once,
    )
    model: Model = run.load(scores=True)
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
    if rank_training and pairs:
        counts["train_accuracy"] = estimate_json(accuracy(_scored(run, model, config, pairs)))
    if not data.held_out:
        return counts
    found = _scored(run, model, config, data.held_out)
    write_figures(run, {"accuracy": accuracy(found)})
    figures = reward_figures(found)
    for line in lines(figures):
        run.say(line)
    return counts | {"held_out": figures}


def _scored(run: Run, model: Model, config: RewardConfig, pairs: list[Any]) -> list[ScoredPair]:
    batches = open_batches(run.format, pairs, config, seed=0, rows_per_micro_batch=run.rows_at_once)
    return scored(pairs, batches, pair_scores(model, batches))
