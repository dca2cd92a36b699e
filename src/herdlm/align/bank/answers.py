"""Samples a model's answers to questions, and checks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from herdlm.align.bank.tasks import Question, is_right
from herdlm.base.progress import Progress
from herdlm.evaluate.engines import Tokens
from herdlm.generate import Engine, SamplingParams
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat

SEQUENCES_AT_ONCE = 512  # the engine's throughput on a CPU levels off here


def as_messages(question: Question) -> list[Message]:
    """A question as the user's message of a dialog."""
    return [{"role": "user", "content": question.prompt}]


def sample_answers(
    engine: Engine | Tokens,
    format: ChatFormat,
    questions: Sequence[Question],
    *,
    samples: int,
    temperature: float,
    max_tokens: int,
    seed: int,
    title: str,
) -> list[list[str]]:
    """``samples`` answers to each question, in the order of the questions."""
    return sample_texts(
        engine,
        format,
        [(as_messages(question), None) for question in questions],
        samples=samples,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        title=title,
    )


def sample_texts(
    engine: Engine | Tokens,
    format: ChatFormat,
    asked: Sequence[tuple[Sequence[Message], Sequence[dict[str, Any]] | None]],
    *,
    samples: int,
    temperature: float,
    max_tokens: int,
    seed: int,
    title: str,
) -> list[list[str]]:
    """``samples`` answers to each prompt, which is messages and their tools, in the order of the prompts."""
    prompts = [format.prompt(messages, tools=tools) for messages, tools in asked]
    params = [
        SamplingParams(
            max_tokens=max_tokens,
            temperature=temperature,
            n=samples,
            seed=seed + number,
            stop_tokens=format.stop_tokens,
        )
        for number in range(len(prompts))
    ]
    with Progress(title, len(prompts) * samples, "samples") as progress:
        if isinstance(engine, Engine):
            results = engine.generate(prompts, params, progress=progress)
        else:
            results = [[] for _ in prompts]
            for number, completions in engine.generate(prompts, params):
                results[number] = completions
                progress.advance(len(completions))
    return [[completion.text.strip() for completion in completions] for completions in results]


def examine(
    engine: Engine | Tokens, format: ChatFormat, questions: Sequence[Question], *, max_tokens: int, title: str
) -> list[dict[str, Any]]:
    """Greedy answers to ``questions``, each marked right or wrong."""
    given = sample_answers(
        engine, format, questions, samples=1, temperature=0.0, max_tokens=max_tokens, seed=0, title=title
    )
    return [
        {"task": q.task, "prompt": q.prompt, "answer": q.answer, "given": g[0], "right": is_right(q, g[0])}
        for q, g in zip(questions, given, strict=True)
    ]
