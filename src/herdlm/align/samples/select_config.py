"""Recipe keys of selecting: which answers are kept, and which pairs are made."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from herdlm.base.recipe import Section


class SelectConfig(Section):
    """What is kept of sampled answers (Llama 3 report, section 4.2.2), and which pairs are made of them."""

    keep_per_prompt: int = Field(1, ge=0, description="most answers to keep of each prompt")
    keep_per_task: int | None = Field(None, ge=1, description="most answers to keep of each task; none: all")
    share_unverified: float = Field(
        0.5, gt=0, le=1, description="share of the prompts without a verdict whose best answer is kept, in each task"
    )
    min_reward_quantile: float = Field(
        0.0, ge=0, lt=1, description="keep no answer whose reward is below this quantile of the rewards of its task"
    )
    diverse: bool = Field(False, description="of several answers to a prompt, keep those that differ most")
    cut: Literal["never", "rejected", "kept"] = Field(
        "never",
        description="what becomes of answers that were cut at the length limit: never used; only as the rejected "
        "answer of a pair; treated like others",
    )
    systems: Literal["keep", "drop"] = Field(
        "keep",
        description="whether the system prompt under which an answer was drawn stays before it; drop: the model "
        "learns to answer so without it",
    )
    pairs_per_prompt: int = Field(1, ge=0, description="most pairs of each prompt, those with an edited answer apart")
    pairs_per_task: int | None = Field(None, ge=1, description="most pairs of each task; none: all")
    slight_margin: float = Field(
        0.5, gt=0, description="margin of rewards, in spreads, from which a pair is slightly better"
    )
    better_margin: float = Field(1.0, gt=0, description="margin from which it is better")
    significant_margin: float = Field(2.0, gt=0, description="margin from which it is significantly better")
    length_weight: float = Field(
        1.0, ge=0, description="how much a pair's difference in length counts: twice as long costs this many spreads"
    )
