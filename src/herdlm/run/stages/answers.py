"""Answers of models that stages draw, verify and score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from herdlm.align.reward import answered, scores_of_fitting
from herdlm.align.reward_workers import open_reward_model
from herdlm.align.samples.options import SampleOptions
from herdlm.align.samples.rows import SampledRow
from herdlm.align.samples.sample import draw, with_system
from herdlm.align.samples.verify import VerifyOptions, verify
from herdlm.run.stage import Context
from herdlm.tokens.chat_format import ChatFormat


def drawn(
    context: Context, model: Path, rows: Sequence[Mapping[str, Any]], options: SampleOptions, work: str = "answers"
) -> list[SampledRow]:
    """Rows with answers of a model, named after the stage that made it; a killed stage goes on where it was.

    Args:
        work: the folder in the stage's working folder that keeps finished answers.
    """
    options = replace(options, batch=options.batch or context.recipe.align.batch)  # type: ignore[union-attr]
    found = draw(rows, [str(model)], options, context.work / work, engine=context.engines, quiet=context.quiet)
    return found.rows


def verified(context: Context, rows: Sequence[SampledRow]) -> None:
    """Put a verdict into each answer that a program can check."""
    assert context.recipe.align
    options = VerifyOptions(own=context.recipe.align.own_verifiers)
    verify(rows, options, where=context.stage.name, quiet=context.quiet)


def answered_greedily(
    context: Context, model: Path, rows: Sequence[Mapping[str, Any]], max_tokens: int, work: str
) -> list[SampledRow]:
    """Rows with a model's greedy answer and the verdict on it."""
    options = SampleOptions(samples=1, temperatures=(0.0,), max_tokens=max_tokens)
    found = drawn(context, model, rows, options, work)
    verified(context, found)
    return found


def rewarded(context: Context, rows: Sequence[SampledRow], folder: Path, seq_len: int) -> None:
    """Put the reward model's score into each answer; None for one that is too long for a row of ``seq_len`` tokens."""
    format = ChatFormat.load(folder)
    distinct = [
        (number, system, answer)
        for number, row in enumerate(rows)
        for system, answer in sorted({(s.get("system", ""), s["answer"]) for s in row["samples"]})
    ]
    dialogs = [
        answered(format, [*_asked(rows[n], system), {"role": "assistant", "content": answer}], rows[n].get("tools"))
        for n, system, answer in distinct
    ]
    with open_reward_model(folder, context.engines) as model:
        found = scores_of_fitting(model, dialogs, seq_len=seq_len, title=context.stage.name, quiet=context.quiet)
    scores = dict(zip(distinct, found, strict=True))
    for number, row in enumerate(rows):
        for sample in row["samples"]:
            score = scores[number, sample.get("system", ""), sample["answer"]]
            sample["reward"] = score if score > float("-inf") else None


def _asked(row: SampledRow, system: str) -> list[Any]:
    messages, _ = with_system(row["prompt"], system)
    return list(messages)
