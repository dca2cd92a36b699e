"""The batches of policy gradient: each is sampled with the weights before its first step."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from herdlm.align.grpo.config import GrpoConfig
from herdlm.align.grpo.groups import Group, figures_of, group_of
from herdlm.align.grpo.rollout import Layout, Rollout, read_rollout, values_of
from herdlm.align.grpo.sampler import Prompt, Sampler
from herdlm.align.job import Model, Run
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.seeds import derive_seed, stream
from herdlm.data.write import write_records
from herdlm.evaluate.forward import token_logprobs
from herdlm.parallel.processes import from_first, is_first, meet
from herdlm.tokens.batch import Batch
from herdlm.train.work import hash_weights

ROLLOUTS = "rollouts"


class GrpoBatches:
    """Samples, judges and lays out a batch when its first step asks for it; later steps on it read what was kept.

    Every process makes the same calls and gets the same batches. A batch is in a file before it is trained on, so a run
    that resumes in its middle trains on the same samples. Seeds depend on the batch's number and the prompt only, so
    one that is sampled again is the same.

    Args:
        model: as it is trained.
        reference: what the divergence is from; None: there is none.
    """

    shown = ("reward", "any_right", "answer_tokens", "entropy", "kl", "clipped")

    def __init__(
        self,
        run: Run,
        config: GrpoConfig,
        prompts: Sequence[Prompt],
        *,
        sampler: Sampler,
        model: Model,
        reference: Model | None,
    ) -> None:
        self.run, self.config, self.prompts, self.sampler = run, config, prompts, sampler
        self.model, self.reference = model, reference
        self.seed = run.seed_of("batches")
        self.layout = Layout(config.seq_len, run.rows_at_once, run.format.pad, config.mean, config.max_answer_tokens)
        self.steps = run.job.steps or config.updates * math.ceil(config.epochs * len(prompts) / config.prompts_per_step)
        self.folder = run.work / ROLLOUTS
        if is_first():
            self.folder.mkdir(exist_ok=True)
        meet()
        self._number, self._rollout = -1, Rollout([], "", {})

    @property
    def content(self) -> str:
        """A hash of the prompts and of what the batches depend on besides."""
        plan = self.config.model_dump(mode="json", exclude={"train", "epochs", "objective", "keep_samples"})
        said = [(prompt.key, prompt.tokens, prompt.record) for prompt in self.prompts]
        return hashlib.blake2b(json.dumps([self.seed, plan, said]).encode(), digest_size=16).hexdigest()

    def micro_batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step; samples first where the step is the first of its batch."""
        number, part = divmod(step, self.config.updates)
        rollout = self._of(number, is_start=part == 0)
        answers = [answer for answer in rollout.answers if answer.part == part % self.config.minibatches]
        return self.layout.batches(answers, first=part == 0)[0]

    def figures(self, step: int) -> dict[str, float]:
        """What to log of the samples that a step learned from."""
        return self._of(step // self.config.updates, is_start=False).figures

    def _of(self, number: int, *, is_start: bool) -> Rollout:
        """The samples of a batch: those at hand, or in the file, if they are of the weights that there are; else new.

        In the middle of a batch the weights have changed since.
        """
        weights = hash_weights(self.model) if is_start else None
        if self._number == number and weights in (None, self._rollout.weights):
            return self._rollout
        path = self.folder / f"batch-{number:08d}.safetensors"
        found = from_first(lambda: _weights_in(path, strict=not is_start))
        if found is None or weights not in (None, found):
            rollout = self._sampled(number, weights or hash_weights(self.model))
            if is_first():
                rollout.write(path)
            meet()
        else:
            rollout = read_rollout(path) or Rollout([], "", {})
        self._number, self._rollout = number, rollout
        return rollout

    def _sampled(self, number: int, weights: str) -> Rollout:
        groups = self._groups(number)
        kept = [group for group in groups if group.trained(self.config)][: self.config.prompts_per_step]
        if not kept and not number:
            raise _nothing_to_learn(groups, self.config)
        # Steps that are left when the model has learned all have no gradient of their own.
        flat = (group.flattened() for group in groups if not group.trained(self.config))
        kept += islice(flat, max(self.config.minibatches - len(kept), 0))
        parts = np.array_split(np.arange(len(kept)), self.config.minibatches)
        answers = [a for part, some in enumerate(parts) for i in some for a in kept[i].answers(part, self.config)]
        rollout = Rollout(answers, weights, figures_of(groups, self.config))
        if is_first() and self.config.keep_samples:
            path = self.folder / f"batch-{number:08d}.jsonl"
            path.unlink(missing_ok=True)
            write_records(path, (group.row(self.run.start.path.name, self.config) for group in groups))
        if self.config.updates > 1:
            rollout = rollout.with_logprobs("old", self._logprobs(self.model, rollout))
        if self.reference is not None:
            rollout = rollout.with_logprobs("reference", self._logprobs(self.reference, rollout))
        return rollout

    def _groups(self, number: int) -> list[Group]:
        """Draw groups until enough of them teach something, or enough prompts were tried."""
        config, groups = self.config, list[Group]()
        needed = config.prompts_per_step if config.dynamic_sampling else config.minibatches
        coming, seen = self._order(number), Counter[str]()
        count, first = config.prompts_per_step, True
        while count:
            prompts = list(islice(coming, count))
            if not prompts:
                break
            seeds = []
            for prompt in prompts:
                seeds.append(derive_seed(self.seed, "samples", number, prompt.key, seen[prompt.key]))
                seen[prompt.key] += 1
            drawn = self.sampler.draw(
                self.model,
                prompts,
                seeds,
                samples=config.samples,
                temperature=config.temperature,
                max_tokens=config.max_answer_tokens,
                fresh=first,
            )
            first = False
            groups += [group_of(prompt, each, config) for prompt, each in zip(prompts, drawn, strict=True)]
            teaching = sum(bool(group.trained(config)) for group in groups)
            room = config.max_draws * config.prompts_per_step - len(groups)
            count = max(min(needed - teaching, room), 0)
        return groups

    def _order(self, number: int) -> Iterator[Prompt]:
        """The prompts of a batch: the next of the epoch, and then any others, as far as more are needed."""
        count, per = len(self.prompts), self.config.prompts_per_step
        epochs = range(number * per // count, ((number + 1) * per - 1) // count + 1)
        order = np.concatenate([stream(self.seed, "prompts", epoch).permutation(count) for epoch in epochs])
        first = number * per - epochs.start * count
        taken = order[first : first + per].tolist()
        further = stream(self.seed, "further prompts", number).permutation(count).tolist()
        known = set(taken)
        yield from (self.prompts[index] for index in taken)
        yield from (self.prompts[index] for index in further if index not in known)

    def _logprobs(self, model: Model, rollout: Rollout) -> list[np.ndarray]:
        """The log-probabilities of all answers' targets under a model, computed as in training."""
        device = next(iter(model.parameters())).device.type
        found: dict[int, np.ndarray] = {}
        for part in range(self.config.minibatches):
            numbers = [i for i, answer in enumerate(rollout.answers) if answer.part == part]
            answers = [rollout.answers[i] for i in numbers]
            batches, ends = self.layout.batches(answers, first=True)
            with torch.autocast(device, torch.bfloat16, enabled=self.run.precision != "float32"):
                values = list(token_logprobs(model, batches, temperature=self.config.temperature))
            found.update(zip(numbers, values_of(answers, values, ends), strict=True))
        return [found[i] for i in range(len(rollout.answers))]


def _nothing_to_learn(groups: Sequence[Group], config: GrpoConfig) -> InputError:
    right = figures_of(groups, config)["right"]
    return InputError(
        f"none of the first {len(groups)} prompts got answers of different worth; {right:.0%} of the answers are right",
        "Give prompts that the model sometimes answers rightly: fine-tune it first, or raise samples, temperature, "
        "prompts_per_step or max_draws",
    )


def _weights_in(path: Path, *, strict: bool) -> str | None:
    """The hash of the weights that sampled a batch in a file; None if there is none, or none that can be read."""
    try:
        rollout = read_rollout(path)
    except DamagedError:
        if strict:
            raise
        return None
    return rollout.weights if rollout else None
