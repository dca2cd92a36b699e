"""Draws and judges answers: each process those to its share of the prompts, on an engine of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from herdlm.align.grpo.config import GrpoConfig
from herdlm.align.grpo.rewards import Judge, Judged, prompt_key
from herdlm.align.job import Model, Run
from herdlm.base.errors import HerdError
from herdlm.data.formats.form import Record
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.matrix import fastest_type
from herdlm.generate.memory import default_cache_tokens
from herdlm.model.lora import lora_of, merged_weights
from herdlm.model.transformer import Transformer
from herdlm.parallel.gather import every_weight, lora_in
from herdlm.parallel.model import ParallelModel
from herdlm.train.ranks import problem_of_any
from herdlm.verifiers.verdict import Verdict

MAX_BATCH, PAGE = 256, 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with what identifies it, and its tokens."""

    record: Record
    key: str
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sampled answer with its verdict.

    Attributes:
        tokens: those that were drawn, with the stop token that ended the answer, if one did.
        logprobs: of ``tokens``, as the engine computed them, at temperature 1.
        cut: whether the answer was cut at its greatest length.
    """

    tokens: list[int]
    logprobs: list[float]
    text: str
    cut: bool
    verdict: Verdict


def prompts_with_room(run: Run, records: Sequence[Record], answer_tokens: int) -> list[Prompt]:
    """The prompts that leave room for an answer in a row."""
    prompts = [
        Prompt(record, prompt_key(record), run.format.prompt(record["prompt"], tools=record.get("tools")))
        for record in records
    ]
    # The last token of a row is only a target.
    return [prompt for prompt in prompts if len(prompt.tokens) + answer_tokens <= run.config.seq_len + 1]


def weights_of(model: Model) -> Iterator[tuple[str, Tensor]]:
    """Each weight of the whole model as an engine takes it, with adapters merged. Every process iterates to the end."""
    if isinstance(model, ParallelModel):
        return merged_weights(every_weight(model), lora_in(model))
    return merged_weights(model.named_parameters(), lora_of(model))


class Sampler:
    """This process's engine for the model that is trained.

    Args:
        whole: the model before it is laid out; the engine holds it until it first takes weights.
    """

    def __init__(self, run: Run, config: GrpoConfig, whole: Transformer, judge: Judge) -> None:
        self.run, self.judge = run, judge
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        device = whole.model.embed_tokens.weight.device
        exact = run.precision == "float32"
        compute = torch.float32 if exact else fastest_type(device, torch.bfloat16)
        most = default_cache_tokens(whole.config, device, compute, MAX_BATCH)
        most = int(most * config.engine_share) if device.type == "cuda" else most
        wanted = math.ceil(config.prompts_per_step / self.world) * config.samples * (config.seq_len + PAGE)
        self.engine = Engine(
            whole,
            run.format.tokenizer,
            compute=compute,
            page_size=PAGE,
            cache_tokens=max(min(wanted, most), config.seq_len + 2 * PAGE),
            max_batch=MAX_BATCH,
        )

    def draw(
        self,
        model: Model,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        *,
        samples: int,
        temperature: float,
        max_tokens: int,
        fresh: bool = True,
    ) -> list[list[Drawn]]:
        """The answers to each prompt, in order, on every process. All processes call this together.

        Args:
            fresh: whether the engine has to take the model's weights first.

        Raises:
            HerdError: on every process, if one of them failed.
        """
        if fresh:
            self.engine.take_weights(weights_of(model))
        here = range(self.rank, len(prompts), self.world)
        mine: list[list[Drawn]] = []

        def work() -> None:
            params = [
                SamplingParams(
                    max_tokens=max_tokens,
                    temperature=temperature,
                    n=samples,
                    seed=seeds[i],
                    stop_tokens=self.run.format.stop_tokens,
                )
                for i in here
            ]
            found = self.engine.generate([prompts[i].tokens for i in here], params)
            mine.extend(self._judged([prompts[i] for i in here], found))

        _all_or_none(work)
        if self.world == 1:
            return mine
        everyone: list[list[list[dict[str, Any]]]] = [[] for _ in range(self.world)]
        dist.all_gather_object(everyone, [[asdict(drawn) for drawn in group] for group in mine])
        shares = [[[_drawn(row) for row in group] for group in share] for share in everyone]
        return [shares[i % self.world][i // self.world] for i in range(len(prompts))]

    def _judged(self, prompts: Sequence[Prompt], found: Sequence[Sequence[Any]]) -> Iterator[list[Drawn]]:
        spaced = self.run.format.tokenizer.leading_space or self.run.format.tokenizer.strips_space
        texts = [[each.text.removeprefix(" ") if spaced else each.text for each in group] for group in found]
        answers = [Judged(p.record, text) for p, group in zip(prompts, texts, strict=True) for text in group]
        verdicts = iter(self.judge.verdicts(answers))
        for group, said in zip(found, texts, strict=True):
            yield [
                Drawn(
                    each.tokens if each.stop_token is None else [*each.tokens, each.stop_token],
                    each.logprobs,
                    text,
                    each.finish_reason == "length",
                    next(verdicts),
                )
                for each, text in zip(group, said, strict=True)
            ]


def _drawn(row: dict[str, Any]) -> Drawn:
    return Drawn(**row | {"verdict": Verdict(**row["verdict"])})


def _all_or_none(work: Callable[[], None]) -> None:
    """Do this process's work; if that of any failed, all raise."""
    failure: HerdError | None = None
    try:
        work()
    except HerdError as error:
        if not dist.is_initialized():
            raise
        failure = error
    mine = None if failure is None else f"{failure.what}\0{failure.remedy}"
    if problem := problem_of_any(mine):
        raise failure or HerdError(*problem.split("\0", 1))
