"""Measures what quantization, or another change, does to a model: distributions, answers, rewards, benchmarks.

Benchmarks hide losses of quality, so the Llama 3 report (section 6.2) compares the distributions of a reward model's
scores. These are measured here beside what is cheaper, each on the same text or prompts for both models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from herdlm.align.bank.answers import as_messages, sample_answers
from herdlm.align.bank.tasks import Question, is_right
from herdlm.align.reward import score_answers
from herdlm.base.errors import InputError
from herdlm.evaluate.choices import ChoiceQuestion, choice_logprobs
from herdlm.evaluate.divergence import Divergence, TokenDivergence, summary, token_divergence
from herdlm.evaluate.intervals import paired_difference, pass_rate
from herdlm.evaluate.paired import paired_loss_difference
from herdlm.generate import Engine
from herdlm.generate.load import load_model
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch, Piece, lay_out
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.packing import pack_whole

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
BINS = 30
ROWS_AT_ONCE = 16
WORST = 12


@dataclass(slots=True)
class Pair:
    """The two models, loaded, with the dialog format they share."""

    original: Transformer
    changed: Transformer
    format: ChatFormat

    @classmethod
    def load(cls, original: Path, changed: Path, *, device: str) -> Pair:
        """Load both in one type: float32 on a CPU, which holds BF16 exactly, and the stored one on a GPU."""
        dtype = torch.float32 if device == "cpu" else "auto"
        first, second = (load_model(folder, device, dtype) for folder in (original, changed))
        return cls(first, second, ChatFormat.load(original))


@dataclass(frozen=True, slots=True)
class AnswerSampling:
    """How prompts are answered. Temperature 0 is greedy and allows one sample, as all would be the same."""

    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples > 1 and not self.temperature:
            raise InputError(f"{self.samples} greedy answers to a prompt are the same", "Give a temperature above 0")


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward model with its dialog format."""

    model: Transformer
    format: ChatFormat


def compare_text(pair: Pair, batches: Sequence[Batch]) -> dict[str, Any]:
    """Compare next-token distributions and perplexity on text."""
    parts = [token_divergence(pair.original, pair.changed, batch) for batch in batches]
    return _with_perplexity(summary(parts)) | {"spread": _spread(np.concatenate([part.kl for part in parts]))}


def compare_answers(
    pair: Pair, questions: Sequence[Question], sampling: AnswerSampling, reward: Reward | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compare answers: how many are the same, how many are right, and how a reward model scores them.

    Divergence is measured along the original's first answer to each prompt. If a question has a right answer, the
    first samples are checked.

    Returns:
        The measurements, and a row for each prompt.
    """
    answers_of = {
        side: sample_answers(
            Engine(model, pair.format.tokenizer),
            pair.format,
            questions,
            samples=sampling.samples,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            title=f"answers, {side}",
        )
        for side, model in (("original", pair.original), ("changed", pair.changed))
    }
    rows: list[dict[str, Any]] = [
        {"task": q.task, "prompt": q.prompt, "original": a[0], "changed": b[0]}
        for q, a, b in zip(questions, answers_of["original"], answers_of["changed"], strict=True)
    ]
    along = _along_answers(pair, questions, [answers[0] for answers in answers_of["original"]])
    for row, part in zip(rows, along, strict=True):
        row["kl"] = float(part.kl.mean()) if part else None
    result: dict[str, Any] = {
        "prompts": len(rows),
        "samples": sampling.samples,
        "temperature": sampling.temperature,
        "same_answers": float(np.mean([row["original"] == row["changed"] for row in rows])),
        "along_answers": _with_perplexity(summary([part for part in along if part])) if any(along) else None,
        "tasks": _tasks(questions, rows),
        "reward": None,
    }
    if reward:
        result["reward"] = _rewards(reward, questions, answers_of, rows)
    result["worst"] = _worst(rows)
    return result, rows


def compare_benchmarks(pair: Pair, questions: Sequence[ChoiceQuestion]) -> dict[str, Any]:
    """Compare right answers to multiple-choice questions, and nats per byte of the right choice, both paired.

    The second changes with every weight; a right answer changes only at the border between two choices.
    """
    logprobs = [choice_logprobs(model, pair.format.tokenizer, questions) for model in (pair.original, pair.changed)]
    by_task: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    nats: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for question, *both in zip(questions, *logprobs, strict=True):
        present = [values for values in both if values is not None]
        if len(present) < len(both):
            continue
        size = len(question.choices[question.answer].encode())
        for task in dict.fromkeys(("all", question.task)):
            before, after = (int(values.argmax()) == question.answer for values in present)
            by_task[task].append((before, after))
            first, second = (-float(values[question.answer]) / size for values in present)
            nats[task].append((first, second))
    tasks = {name: _pass_rates(pairs) | {"nats": _nats(nats[name])} for name, pairs in by_task.items()}
    return {"too_long": sum(values is None for values in logprobs[0]), "tasks": tasks}


def _nats(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    before, after = np.array(pairs).T
    difference = asdict(paired_loss_difference(before, after)) if len(pairs) > 1 else None
    return {"original": float(before.mean()), "changed": float(after.mean()), "difference": difference}


def _with_perplexity(divergence: Divergence) -> dict[str, Any]:
    perplexity = {side: float(np.exp(getattr(divergence, f"{side}_nats"))) for side in ("original", "changed")}
    return asdict(divergence) | {"perplexity": perplexity}


def _spread(values: NDArray[np.float64]) -> dict[str, Any]:
    """The share of values below each power of ten and above the one before; the last bound is None."""
    bounds = [10.0**power for power in range(-7, 2)]
    counts = np.histogram(values, [0.0, *bounds, np.inf])[0]
    return {"bounds": [*bounds, None], "shares": (counts / max(len(values), 1)).tolist()}


def _along_answers(pair: Pair, questions: Sequence[Question], answers: Sequence[str]) -> list[TokenDivergence | None]:
    """The divergence over the tokens of each answer; None if prompt and answer exceed the model's context."""
    pad, longest = pair.format.pad, pair.original.config.max_seq_len
    pieces = []
    for question, answer in zip(questions, answers, strict=True):
        dialog = pair.format.render([*as_messages(question), {"role": "assistant", "content": answer}])
        pieces.append(Piece(np.array(dialog.tokens), np.array(dialog.weights[1:], np.float32)))
    lengths = [len(piece.weights) for piece in pieces]
    fitting = [i for i, length in enumerate(lengths) if length <= longest]
    divergences: list[TokenDivergence | None] = [None] * len(pieces)
    if not fitting:
        return divergences
    capacity = max(*(lengths[i] for i in fitting), min(longest, 512))
    rows = pack_whole([lengths[i] for i in fitting], capacity)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = [[fitting[i] for i in row] for row in rows[first : first + ROWS_AT_ONCE]]
        batch, places = lay_out([[pieces[i] for i in row] for row in some], capacity, pad)
        whole = token_divergence(pair.original, pair.changed, batch)
        for i, place in zip((i for row in some for i in row), (p for row in places for p in row), strict=True):
            own = whole.documents == place.document
            divergences[i] = TokenDivergence(
                whole.kl[own],
                whole.agrees[own],
                whole.original_nats[own],
                whole.changed_nats[own],
                whole.documents[own],
            )
    return divergences


def _tasks(questions: Sequence[Question], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Pass rates of all tasks and of each, with paired differences; only questions with a right answer count."""
    by_task: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for question, row in zip(questions, rows, strict=True):
        if question.answer:
            right = (is_right(question, row["original"]), is_right(question, row["changed"]))
            row["right"] = {"original": right[0], "changed": right[1]}
            by_task[question.task].append(right)
    everything = [pair for pairs in by_task.values() for pair in pairs]
    named = [("all", everything), *sorted(by_task.items())] if everything else []
    return {name: _pass_rates(pairs) for name, pairs in named}


def _pass_rates(pairs: list[tuple[bool, bool]]) -> dict[str, Any]:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    return {
        "questions": len(pairs),
        "original": asdict(pass_rate(before)),
        "changed": asdict(pass_rate(after)),
        "difference": asdict(paired_difference(before, after)),
        "gained": sum(b and not a for a, b in pairs),
        "lost": sum(a and not b for a, b in pairs),
    }


def _rewards(
    reward: Reward, questions: Sequence[Question], answers_of: dict[str, list[list[str]]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Distributions of the scores of all samples, and the paired difference of each prompt's mean score."""
    scores = {
        side: np.array(
            score_answers(
                reward.model,
                reward.format,
                questions,
                answers,
                seq_len=reward.model.config.max_seq_len,
                title=f"rewards, {side}",
            )
        )
        for side, answers in answers_of.items()
    }
    scored = np.isfinite(scores["original"]).all(1) & np.isfinite(scores["changed"]).all(1)
    for number, row in enumerate(rows):
        pair = {side: float(values[number].mean()) for side, values in scores.items()}
        row["reward"] = pair if scored[number] else None
    kept = {side: values[scored] for side, values in scores.items()}
    result: dict[str, Any] = {"prompts": int(scored.sum()), "too_long": int((~scored).sum())}
    if scored.sum() < 2:
        return result | {"distribution": None, "difference": None, "histogram": None}
    difference = paired_loss_difference(kept["original"].mean(1), kept["changed"].mean(1))
    everything = np.concatenate([values.ravel() for values in kept.values()])
    edges = np.histogram_bin_edges(everything, BINS)
    return result | {
        "distribution": {
            side: {
                "mean": float(values.mean()),
                "standard_deviation": float(values.std()),
                "quantiles": {f"p{100 * q:g}": float(np.quantile(values, q)) for q in QUANTILES},
            }
            for side, values in kept.items()
        },
        "difference": asdict(difference),
        "histogram": {
            "edges": edges.tolist(),
            **{side: (np.histogram(values, edges)[0] / values.size).tolist() for side, values in kept.items()},
        },
    }


def _worst(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The prompts whose answers lost the most reward, and those with the largest divergence."""
    rewarded = [row for row in rows if row.get("reward")]
    rewarded.sort(key=lambda row: row["reward"]["changed"] - row["reward"]["original"])
    fell = [row for row in rewarded[:WORST] if row["reward"]["changed"] < row["reward"]["original"]]
    apart = sorted((row for row in rows if row["kl"] is not None), key=lambda row: -row["kl"])
    return {"by_reward": fell, "by_divergence": apart[:WORST]}
