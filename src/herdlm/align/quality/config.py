"""Recipe keys of quality control. A step is turned off by ``STEP = false``."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from herdlm.align.quality.step import Step
from herdlm.align.quality.steps.caps import Caps, CapsConfig
from herdlm.align.quality.steps.contamination import Contamination, ContaminationConfig
from herdlm.align.quality.steps.difficulty import Difficulty, DifficultyConfig
from herdlm.align.quality.steps.duplicates import Exact, ExactConfig, Near, NearConfig
from herdlm.align.quality.steps.language import Language, LanguageConfig
from herdlm.align.quality.steps.leaks import Leaks, LeaksConfig
from herdlm.align.quality.steps.phrases import Phrases, PhrasesConfig
from herdlm.align.quality.steps.quality import Quality, QualityStepConfig
from herdlm.align.quality.steps.refusals import Refusals, RefusalsConfig
from herdlm.align.quality.steps.repetition import Repetition, RepetitionConfig
from herdlm.align.quality.steps.semantic import Semantic, SemanticConfig
from herdlm.align.quality.steps.tone import (
    Apologies,
    ApologiesConfig,
    Emoji,
    EmojiConfig,
    Exclamations,
    ExclamationsConfig,
)
from herdlm.align.quality.steps.topics import Topics, TopicsConfig
from herdlm.align.quality.steps.truncation import Truncation, TruncationConfig
from herdlm.base.recipe import Section

# In this order: what an example says for itself comes first, what depends on the others last.
STEPS: dict[str, type[Step]] = {
    step.name: step
    for step in (
        Topics,
        Difficulty,
        Exact,
        Leaks,
        Truncation,
        Repetition,
        Refusals,
        Apologies,
        Emoji,
        Exclamations,
        Language,
        Contamination,
        Quality,
        Phrases,
        Near,
        Semantic,
        Caps,
    )
}


class QualityConfig(Section):
    """Quality control of dialogs and prompts, step by step (Llama 3 report, section 4.2.3)."""

    topics: TopicsConfig | None = Field(TopicsConfig(), description="topics of examples without a task")
    difficulty: DifficultyConfig | None = Field(DifficultyConfig(), description="how many things a prompt wants")
    exact: ExactConfig | None = Field(ExactConfig(), description="equal examples")
    leaks: LeaksConfig | None = Field(LeaksConfig(), description="rests of chat templates")
    truncation: TruncationConfig | None = Field(TruncationConfig(), description="answers that stop in the middle")
    repetition: RepetitionConfig | None = Field(RepetitionConfig(), description="answers that run in circles")
    refusals: RefusalsConfig | None = Field(RefusalsConfig(), description="answers that refuse")
    apologies: ApologiesConfig | None = Field(ApologiesConfig(), description="answers that apologize")
    emoji: EmojiConfig | None = Field(EmojiConfig(), description="answers with many emoji")
    exclamations: ExclamationsConfig | None = Field(ExclamationsConfig(), description="answers that shout")
    language: LanguageConfig | None = Field(LanguageConfig(), description="answers in another language than the prompt")
    contamination: ContaminationConfig | None = Field(ContaminationConfig(), description="items of evaluations")
    quality: QualityStepConfig | None = Field(QualityStepConfig(), description="the top share by reward, or full marks")
    phrases: PhrasesConfig | None = Field(PhrasesConfig(), description="over-used phrases")
    near: NearConfig | None = Field(NearConfig(), description="nearly equal examples")
    semantic: SemanticConfig | None = Field(SemanticConfig(), description="examples that mean the same; needs a model")
    caps: CapsConfig | None = Field(CapsConfig(), description="most examples of a topic")

    def steps(self) -> list[Step]:
        """The steps that are turned on, in order."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in STEPS}
        return [STEPS[name](own) for name, own in settings.items() if own is not None]
