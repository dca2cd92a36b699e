"""The likelihood of continuations, by which multiple-choice benchmarks judge a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        InputError: a side of a pair is empty, or both are longer than the model's ``max_seq_len`` and a token.
        HerdError: submitted requests are still running.
    """
    prompts, params = score_requests(pairs)
    return scores_of(pairs, [one for (one,) in engine.generate(prompts, params, progress=progress)])


def score_requests(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> tuple[list[list[int]], list[SamplingParams]]:
    """The prompts and parameters whose completions :func:`scores_of` reads.

    Of pairs with the same context the first one's request scores the first token of all, and further ones, where there
    are more tokens, the others.

    Raises:
        InputError: a side of a pair is empty.
    """
    if not all(context and continuation for context, continuation in pairs):
        raise InputError("a context or a continuation has no tokens", "Begin each context with a token")
    prompts, params = [], []
    for first, others, longer in _alike(pairs):
        compared = tuple(pairs[other][1][0] for other in others)
        for number in (first, *longer):
            context, continuation = pairs[number]
            known = 0 if number == first else 1
            prompts.append([*context, *continuation[:-1]])
            params.append(_params(len(context) + known, continuation[known:], () if known else compared))
    return prompts, params


def scores_of(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], completions: Sequence[Completion]) -> list[Score]:
    """The likelihood of each continuation by the completions of :func:`score_requests`, in order."""
    found: dict[int, Score] = {}
    following = iter(completions)
    for first, others, longer in _alike(pairs):
        completion = next(following)
        logprobs, likeliest = _scored(completion)
        found[first] = _score(pairs[first][1], logprobs, likeliest)
        rests = {other: _scored(next(following)) for other in longer}
        for other, logprob in zip(others, completion.compared, strict=True):
            more, best = rests.get(other, ([], []))
            found[other] = _score(pairs[other][1], [logprob, *more], [likeliest[0], *best])
    return [found[number] for number in range(len(pairs))]


def _alike(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[tuple[int, list[int], list[int]]]:
    """For each context the number of its first pair, those of the others, and of these the ones of several tokens."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, (context, _) in enumerate(pairs):
        found.setdefault(tuple(context), []).append(number)
    for first, *others in found.values():
        yield first, others, [other for other in others if len(pairs[other][1]) > 1]


def _params(context: int, continuation: Sequence[int], compared: tuple[int, ...]) -> SamplingParams:
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        top_logprobs=1,
        forced=continuation[-1],
        compared=compared,
        prompt_logprobs=len(continuation) > 1,
        prompt_logprobs_from=context,
    )


def _scored(completion: Completion) -> tuple[list[float], list[int]]:
    """The log-probability of each token, and the likeliest token in its place."""
    top = [*completion.prompt_top_logprobs, *completion.top_logprobs]
    return [*completion.prompt_logprobs, *completion.logprobs], [best[0][0] for best in top]


def _score(continuation: Sequence[int], logprobs: list[float], likeliest: list[int]) -> Score:
    return Score(logprobs, list(continuation) == likeliest)
