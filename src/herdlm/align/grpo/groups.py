"""Groups of answers to a prompt: what their rewards teach, figures of them, and their rows in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from herdlm.align.grpo.config import GrpoConfig
from herdlm.align.grpo.rewards import advantages, base_reward, reward_of
from herdlm.align.grpo.rollout import Answer
from herdlm.align.grpo.sampler import Drawn, Prompt


@dataclass(frozen=True, slots=True)
class Group:
    """The answers to a prompt with their rewards and advantages.

    Attributes:
        equal: whether all answers are worth the same, penalties aside, so that they teach nothing.
    """

    prompt: Prompt
    drawn: list[Drawn]
    rewards: list[float]
    advantages: list[float]
    equal: bool

    def trained(self, config: GrpoConfig) -> list[int]:
        """The numbers of the answers to train on; none if the group teaches nothing."""
        if self.equal:
            return []
        return [i for i, drawn in enumerate(self.drawn) if not (drawn.cut and config.cut_answers == "mask")]

    def answers(self, part: int, config: GrpoConfig) -> list[Answer]:
        """The answers to train on, in minibatch ``part``; all, if the group teaches nothing."""
        return [
            Answer(
                tokens=np.array([*self.prompt.tokens, *self.drawn[i].tokens], np.int64),
                targets=len(self.drawn[i].tokens),
                part=part,
                advantage=self.advantages[i],
                engine=np.array(self.drawn[i].logprobs, np.float32),
            )
            for i in self.trained(config) or range(len(self.drawn))
        ]

    def flattened(self) -> Group:
        """The group with advantages of 0, to fill a step in which there is nothing to learn."""
        return replace(self, advantages=[0.0] * len(self.drawn))

    def row(self, model: str, config: GrpoConfig) -> dict[str, Any]:
        """The group as a row of a file of samples."""
        samples = [
            {
                "answer": drawn.text,
                "model": model,
                "temperature": config.temperature,
                "finish": "length" if drawn.cut else "stop",
                "tokens": len(drawn.tokens),
                "logprob": sum(drawn.logprobs),
                "verdict": asdict(drawn.verdict),
                "reward": reward,
                "advantage": advantage,
            }
            for drawn, reward, advantage in zip(self.drawn, self.rewards, self.advantages, strict=True)
        ]
        return self.prompt.record | {"id": self.prompt.key, "samples": samples, "skipped": not self.trained(config)}


def group_of(prompt: Prompt, drawn: list[Drawn], config: GrpoConfig) -> Group:
    """The answers to a prompt, with what they are worth."""
    base = [base_reward(each.verdict, config) for each in drawn]
    rewards = [reward_of(each.verdict, len(each.tokens), cut=each.cut, config=config) for each in drawn]
    above = advantages(rewards, divide_by_std=config.divide_by_std)
    return Group(prompt, drawn, rewards, above, equal=max(base) == min(base))


def figures_of(groups: Sequence[Group], config: GrpoConfig) -> dict[str, float]:
    """What to log of all groups of a batch, also of those that are skipped."""
    drawn = [each for group in groups for each in group.drawn]
    right = [[each.verdict.passed for each in group.drawn] for group in groups]
    return {
        "reward": fmean(reward for group in groups for reward in group.rewards),
        "right": fmean(each for group in right for each in group),
        "any_right": fmean(any(group) for group in right),
        "answer_tokens": fmean(len(each.tokens) for each in drawn),
        "cut": fmean(each.cut for each in drawn),
        "groups": len(groups),
        "skipped": sum(not group.trained(config) for group in groups),
    }
