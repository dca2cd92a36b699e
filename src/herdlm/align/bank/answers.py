"""Samples a model's answers to questions of the bank."""

from __future__ import annotations

from collections.abc import Sequence

from herdlm.align.bank.tasks import Question
from herdlm.base.progress import Progress
from herdlm.generate import Engine, SamplingParams
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat


def as_messages(question: Question) -> list[Message]:
    """A question as the user's message of a dialog."""
    return [{"role": "user", "content": question.prompt}]


def sample_answers(
    engine: Engine,
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
    prompts = [format.prompt(as_messages(question)) for question in questions]
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
        results = engine.generate(prompts, params, progress=progress)
    return [[completion.text.strip() for completion in completions] for completions in results]
