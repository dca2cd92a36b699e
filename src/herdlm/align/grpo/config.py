"""Recipe keys of policy gradient on prompts with checkable answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from herdlm.base.own_parts import Reference
from herdlm.base.recipe import Section
from herdlm.train.config import TrainConfig


class GrpoConfig(Section):
    """Group relative policy optimization: sample, check, and make what did better than its group more likely."""

    seq_len: int = Field(gt=1, description="tokens in a row; a prompt that leaves no room for an answer is left out")
    prompts_per_step: int = Field(gt=0, description="prompts in a batch of samples")
    samples: int = Field(8, ge=2, description="answers to each prompt, its group")
    max_answer_tokens: int = Field(gt=0, description="longest answer; a longer one is cut")
    epochs: float = Field(1.0, gt=0, description="how often the prompts are read")
    minibatches: int = Field(
        1, ge=1, description="parts that a batch of samples is divided into, an optimizer step each"
    )
    passes: int = Field(1, ge=1, description="how often a batch of samples is trained on")
    temperature: float = Field(1.0, gt=0, description="sampling temperature; training divides its logits by it, too")
    reward: Literal["score", "passed"] = Field(
        "score", description="score: the verdict's score, 0 to 1; passed: 1 for a right answer, else 0"
    )
    length_penalty: float = Field(
        0.0, ge=0, description="taken from the reward of an answer of max_answer_tokens, of shorter ones in proportion"
    )
    cut_penalty: float = Field(0.0, ge=0, description="taken from the reward of an answer that was cut")
    cut_answers: Literal["train", "mask"] = Field(
        "train", description="train: cut answers count like others; mask: they count in their group's mean only"
    )
    divide_by_std: bool = Field(
        True, description="divide advantages by their group's standard deviation; Dr. GRPO does not (arXiv 2503.20783)"
    )
    mean: Literal["tokens", "answers", "constant"] = Field(
        "tokens",
        description="tokens: each token counts the same (DAPO); answers: each answer counts the same (GRPO); constant: "
        "tokens are divided by max_answer_tokens instead of their answer's length (Dr. GRPO)",
    )
    clip_low: float = Field(0.2, gt=0, lt=1, description="how far below 1 a ratio to the old policy counts")
    clip_high: float = Field(0.28, gt=0, description="how far above 1 a ratio to the old policy counts")
    kl_weight: float = Field(
        0.0, ge=0, description="weight of the divergence from the model at the start; above 0 that stays in memory"
    )
    dynamic_sampling: bool = Field(
        False, description="draw further prompts until prompts_per_step groups have different rewards"
    )
    max_draws: int = Field(
        4, ge=1, description="most prompts that a batch tries, in multiples of prompts_per_step, before it makes do"
    )
    engine_share: float = Field(
        0.3,
        gt=0,
        le=1,
        description="on a GPU, the most that the engine's cache takes, as a share of what it takes without training",
    )
    own_verifiers: tuple[Reference, ...] = Field(
        (), description="functions of your own, module:function, that prompts may name as their verifier"
    )
    keep_samples: bool = Field(True, description="publish the sampled answers with their verdicts beside the model")
    objective: Reference | None = Field(
        None, description="module:attribute of an objective of your own, in place of the built-in one"
    )
    train: TrainConfig

    @property
    def updates(self) -> int:
        """Optimizer steps on each batch of samples."""
        return self.minibatches * self.passes

    @model_validator(mode="before")
    @classmethod
    def _samples_follow_weights(cls, tables: Any) -> Any:
        """Samples come from the weights before their step, so none can be made ahead."""
        train = tables.get("train") if isinstance(tables, dict) else None
        if not isinstance(train, dict) or train.get("prefetch_steps", 0) != 0:
            return tables
        return tables | {"train": train | {"prefetch_steps": 0}}

    @model_validator(mode="after")
    def _keys_go_together(self) -> GrpoConfig:
        if self.train.prefetch_steps:
            raise ValueError("train.prefetch_steps must be 0: a step's samples come from the weights before it")
        if self.max_answer_tokens >= self.seq_len:
            raise ValueError(
                f"max_answer_tokens {self.max_answer_tokens} leaves no room for a prompt in rows of {self.seq_len} "
                "tokens: raise seq_len"
            )
        if self.minibatches > self.prompts_per_step:
            raise ValueError(f"{self.prompts_per_step} prompts do not divide into {self.minibatches} minibatches")
        return self
