"""The likelihood of continuations, by which multiple-choice benchmarks judge a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from herdlm.base.errors import InputError
from herdlm.base.progress import Progress
from herdlm.generate.engine import Engine
from herdlm.generate.request import Completion, SamplingParams


@dataclass(frozen=True, slots=True)
class Score:
    """The likelihood of a continuation.

    Attributes:
        logprobs: natural log-probability of each of its tokens, given all before it.
        greedy: whether each of its tokens is the most likely one.
    """

    logprobs: list[float]
    greedy: bool


def score(
    engine: Engine, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, progress: Progress | None = None
) -> list[Score]:
    """The likelihood of each continuation after its context. Pairs with a common beginning share its computation.

    Args:
        pairs: token ids of contexts and of their continuations.

    Raises:
        InputError: a side of a pair is empty, or both are longer than the model's ``max_seq_len``.
        HerdError: submitted requests are still running.
    """
    prompts, params = score_requests(pairs)
    done = engine.generate(prompts, params, progress=progress)
    return [score_of(continuation, one) for (_, continuation), (one,) in zip(pairs, done, strict=True)]


def score_requests(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> tuple[list[list[int]], list[SamplingParams]]:
    """The prompts and parameters whose completions :func:`score_of` reads.

    Raises:
        InputError: a side of a pair is empty.
    """
    if not all(context and continuation for context, continuation in pairs):
        raise InputError("a context or a continuation has no tokens", "Begin each context with a token")
    prompts = [[*context, *continuation[:-1]] for context, continuation in pairs]
    return prompts, [_params(len(context), continuation) for context, continuation in pairs]


def _params(context: int, continuation: Sequence[int]) -> SamplingParams:
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        top_logprobs=1,
        forced=continuation[-1],
        prompt_logprobs=len(continuation) > 1,
        prompt_logprobs_from=context,
    )


def score_of(continuation: Sequence[int], completion: Completion) -> Score:
    """A continuation's likelihood by the completion of its request."""
    top = [*completion.prompt_top_logprobs, *completion.top_logprobs]
    greedy = all(token == best[0][0] for token, best in zip(continuation, top, strict=True))
    return Score([*completion.prompt_logprobs, *completion.logprobs], greedy)
