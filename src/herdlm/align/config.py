"""Recipe keys of post-training. Defaults are the Llama 3 report's (section 4) where it gives a number."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from herdlm.base.own_parts import PATTERN
from herdlm.base.recipe import Section
from herdlm.train.config import TrainConfig


class BankConfig(Section):
    """The instruction tasks: how many words they use, how many demonstrations and held-out questions there are."""

    words: int = Field(240, ge=16, description="one-token words of the corpus that instances are made of")
    snippet_characters: int = Field(60, ge=10, description="length of pieces of text, cut at words")
    snippets_per_language: int = Field(2000, ge=10)
    seed_demonstrations: int = Field(780, ge=1)
    held_out_questions: int = Field(2000, ge=1)


class SftConfig(Section):
    """Supervised fine-tuning from the pre-trained model."""

    seq_len: int = Field(gt=0)
    rows_per_step: int = Field(gt=0)
    epochs: float = Field(gt=0)
    objective: str | None = Field(
        None, pattern=PATTERN, description="module:attribute of an objective of your own, in place of the built-in one"
    )
    train: TrainConfig


class PairsConfig(Section):
    """Training on preference pairs: the reward model and DPO."""

    seq_len: int = Field(gt=0)
    pairs_per_step: int = Field(gt=0)
    epochs: int = Field(1, ge=1)
    objective: str | None = Field(
        None, pattern=PATTERN, description="module:attribute of an objective of your own, in place of the built-in one"
    )
    train: TrainConfig


class RewardConfig(PairsConfig):
    """The reward model, trained from the current policy."""

    use_edited: bool = Field(True, description="whether corrected answers count as the better side of a pair")


class DpoConfig(PairsConfig):
    """Direct preference optimisation."""

    beta: float = Field(0.1, gt=0)
    nll_weight: float = Field(0.2, ge=0)
    mask_formatting: bool = True


class PreferencesConfig(Section):
    """New preference data of a round: samples of the current model, ranked by the annotator."""

    prompts: int = Field(gt=0)
    samples: int = Field(4, ge=2)
    temperature: float = Field(1.0, gt=0)
    edited_percent: float = Field(6.0, ge=0, le=100, description="of prompts whose best answer the annotator corrects")
    held_out_percent: float = Field(10.0, gt=0, lt=50, description="of prompts kept to measure the reward model")
    max_answer_tokens: int = Field(32, gt=0)


class RejectionConfig(Section):
    """Rejection sampling: K answers per prompt of which the best are kept."""

    prompts: int = Field(gt=0)
    samples: int = Field(10, ge=1, description="K; the report uses 10 to 30")
    temperature: float = Field(0.9, gt=0)
    keep_per_task: int = Field(200, ge=1)
    keep_share_unverified: float = Field(0.5, gt=0, le=1, description="by reward, where no verifier may help")
    max_answer_tokens: int = Field(32, gt=0)


class TeachConfig(Section):
    """The flagship's filtered answers as the small model's fine-tuning data."""

    answers: RejectionConfig
    seed_repeats: int = Field(2, ge=1)


class AlignConfig(Section):
    """Post-training in rounds; each starts from the pre-trained model with data that the round before it wrote."""

    renamed: ClassVar = {"dpo_ablation": "experiments.dpo_nll"}

    rounds: int = Field(6, ge=1)
    remember_rounds: int = Field(2, ge=1, description="data of this many last rounds is used")
    seed_repeats: int = Field(2, ge=1, description="times the demonstrations and edits appear in fine-tuning data")
    seed_sft: SftConfig
    preferences: PreferencesConfig
    reward: RewardConfig
    rejection: RejectionConfig
    sft: SftConfig
    dpo: DpoConfig
    teach: TeachConfig | None = Field(None, description="the flagship teaches the small model; without it none does")

    @property
    def seq_lens(self) -> set[int]:
        """The row lengths of all fine-tuning."""
        return {part.seq_len for part in (self.seed_sft, self.sft, self.dpo, self.reward)}


class DpoNllConfig(Section):
    """DPO with and without its likelihood term, at a rate where it collapses without."""

    peak_lr: float = Field(gt=0)


class ExperimentsConfig(Section):
    """Controls and ablations that measure what a part of the recipe is worth. Each trains models of its own."""

    control_sft: bool = Field(False, description="the flagship on demonstrations and edits, for the rounds' steps")
    small_control: bool = Field(False, description="the small model on demonstrations, for as many steps as taught")
    dpo_nll: DpoNllConfig | None = Field(None, description="DPO with and without align.dpo.nll_weight")
