"""Recipe keys of the generators that have a teacher write, and check what it wrote."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from herdlm.base.recipe import Section
from herdlm.verifiers.detect import languages


class LongDocumentsConfig(Section):
    """Questions about long documents, and summaries of them."""

    questions: int = Field(200, ge=0, description="questions to ask for")
    summaries: int = Field(50, ge=0, description="documents to summarize")
    shortest: int = Field(4000, ge=200, description="characters of the shortest document that is used")
    longest: int = Field(24000, ge=400, description="characters of a document; longer ones are cut after a paragraph")
    section: int = Field(1500, ge=100, description="characters of a section that a question is about")
    part: int = Field(4000, ge=200, description="characters of a part that is summarized at once")
    attempts: int = Field(3, ge=1, description="summaries of each part, of which the first good one is taken")
    grounded: float = Field(0.6, ge=0, le=1, description="least share of a summary's longer words that the source has")
    temperature: float = Field(0.7, ge=0, description="of the teacher's questions and summaries")
    max_tokens: int = Field(384, ge=1, description="of the teacher's answers")

    @model_validator(mode="after")
    def _ordered(self) -> LongDocumentsConfig:
        if self.shortest > self.longest:
            raise ValueError(f"shortest = {self.shortest} is more than longest = {self.longest}")
        return self


class MultilingualConfig(Section):
    """Dialogs and prompts in other languages, translated or asked there."""

    languages: tuple[str, ...] = Field(
        ("de", "fr", "it", "pt", "hi", "es", "th"), min_length=1, description="codes of the languages"
    )
    dialogs: tuple[Path, ...] = Field((), description="files of dialogs to translate")
    prompts: tuple[Path, ...] = Field((), description="files of prompts to translate, whose answers stay the same")
    limit: int | None = Field(None, ge=1, description="dialogs, and prompts, to use, the first ones; all if absent")
    each: int = Field(1, ge=1, description="languages into which each is translated")
    native: int = Field(0, ge=0, description="requests that the teacher makes up and answers in each language")
    alike: float = Field(0.5, ge=0, le=1, description="least share of words that the translation back has in common")
    shortest: float = Field(0.4, gt=0, le=1, description="least length of a translation, as a share of the original's")
    longest: float = Field(2.5, ge=1, description="greatest length of a translation, as a share of the original's")
    temperature: float = Field(0.7, ge=0, description="of native requests and answers; translations are greedy")
    max_tokens: int = Field(768, ge=1, description="of the teacher's answers")

    @field_validator("languages")
    @classmethod
    def _known(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        known = set(languages())
        if unknown := [code for code in given if code not in known]:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(sorted(known))}")
        if len(set(given)) < len(given):
            raise ValueError("a language is named twice")
        return given


class FactualityConfig(Section):
    """What the teacher knows is kept, and where it is always wrong, "I don't know" is taught."""

    count: int = Field(200, ge=1, description="questions to ask for")
    probes: int = Field(8, ge=2, description="answers of the teacher to each question")
    knows: float = Field(0.75, gt=0.5, le=1, description="least share of right answers of what it knows")
    errs: float = Field(0.75, gt=0.5, le=1, description="least share of wrong answers of what it does not know")
    judge: bool = Field(True, description="ask the teacher whether an answer of other words means the same")
    shortest: int = Field(600, ge=100, description="characters of the shortest document that is used")
    section: int = Field(1200, ge=100, description="characters of a section that a question is about")
    temperature: float = Field(0.8, gt=0, description="of the probes and questions")
    max_tokens: int = Field(256, ge=1, description="of the teacher's answers")


class SteerabilityConfig(Section):
    """Dialogs under system prompts whose wishes a program can check."""

    count: int = Field(200, ge=1, description="dialogs to make")
    most: int = Field(3, ge=1, le=5, description="most wishes of a system prompt")
    turns: int = Field(3, ge=1, le=6, description="most questions of a dialog")
    samples: int = Field(4, ge=1, description="answers of the teacher to each question")
    languages: tuple[str, ...] = Field((), description="codes of languages that a system prompt may wish for")
    temperature: float = Field(0.8, ge=0, description="of the teacher's answers")
    max_tokens: int = Field(384, ge=1, description="of the teacher's answers")


class SelfInstructConfig(Section):
    """New tasks from seeds, with answers that agree."""

    seeds: tuple[Path, ...] = Field((), description="files of tasks, as self-instruct's or any dialogs")
    count: int = Field(500, ge=1, description="new tasks to ask for")
    examples: int = Field(6, ge=1, description="tasks that are shown")
    own: int = Field(2, ge=0, description="of these, new ones, once there are any")
    at_once: int = Field(16, ge=1, description="requests for tasks before new tasks may become examples")
    alike: float = Field(0.6, gt=0, le=1, description="greatest share of words in common with an earlier task")
    samples: int = Field(4, ge=2, description="answers of the teacher to each task")
    agree: float = Field(0.5, ge=0, le=1, description="share of equal short answers that must be exceeded")
    common: float = Field(0.2, ge=0, le=1, description="least share of words that long answers have in common")
    temperature: float = Field(0.8, gt=0, description="of the teacher's tasks and answers")
    max_tokens: int = Field(512, ge=1, description="of the teacher's answers")


class SafetyConfig(Section):
    """Requests to refuse, and harmless ones that sound alike and are answered."""

    violating: int = Field(200, ge=0, description="requests to refuse")
    borderline: int = Field(200, ge=0, description="harmless requests that sound alike")
    rewordings: int = Field(1, ge=0, description="how often the teacher rewords each request")
    samples: int = Field(2, ge=1, description="answers of the teacher to each request")
    longest: int = Field(70, ge=10, description="most words of a refusal")
    temperature: float = Field(0.8, ge=0, description="of the teacher's answers")
    max_tokens: int = Field(384, ge=1, description="of the teacher's answers")
