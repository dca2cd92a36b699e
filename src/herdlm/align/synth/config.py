"""Recipe keys of synthetic data: a table for each generator.

A generator's section is here or in :mod:`herdlm.align.synth.teacher_config`. Add a generator by a section, a key of
:class:`SynthConfig` and a line in :mod:`herdlm.align.synth.registry`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from herdlm.align.synth.teacher_config import (
    FactualityConfig,
    LongDocumentsConfig,
    MultilingualConfig,
    SafetyConfig,
    SelfInstructConfig,
    SteerabilityConfig,
)
from herdlm.base.own_parts import Reference
from herdlm.base.recipe import Section
from herdlm.evaluate.remote import is_address


class ConstraintsConfig(Section):
    """Prompts with one to three instructions that a program can check, and answers that keep them."""

    count: int = Field(1000, ge=1, description="prompts to make")
    kinds: Literal["all", "first half", "second half"] = Field(
        "all", description="which kinds of instructions; the other half shows whether a model generalizes"
    )
    without: tuple[str, ...] = Field((), description="ids of instructions that are left out")
    most: int = Field(3, ge=1, le=3, description="most instructions of a prompt")
    program_share: float = Field(
        1.0, ge=0, le=1, description="share of prompts whose answer by program is written as a dialog"
    )
    open: float = Field(
        0.3, ge=0, le=1, description="share of prompts that only a model can answer, so that no dialog is made of them"
    )
    passages: float = Field(
        0.3, ge=0, le=1, description="share of prompts that give a passage of the documents, if there are any"
    )
    teacher_samples: int = Field(0, ge=0, description="answers of the teacher to each prompt; 0 asks none")
    repairs: int = Field(1, ge=0, description="how often the teacher is told what its answer breaks and asked again")
    temperature: float = Field(0.8, ge=0, description="of the teacher's answers")
    max_tokens: int = Field(640, ge=1, description="of the teacher's answers")


class WordProblemsConfig(Section):
    """Arithmetic word problems with worked steps."""

    count: int = Field(1000, ge=0, description="problems to make by program")
    least_steps: int = Field(1, ge=1, le=4, description="fewest steps of a problem")
    most_steps: int = Field(3, ge=1, le=4, description="most steps of a problem")
    largest: int = Field(100, ge=20, le=10000, description="about the largest number in the story of a problem")
    distractors: float = Field(0.2, ge=0, le=1, description="share of problems with a number that is not needed")
    fractions: bool = Field(True, description="also halves, quarters and percentages")
    problems: tuple[Path, ...] = Field(
        (), description="files of problems with answers, which the teacher rewords and solves"
    )
    rewordings: int = Field(1, ge=0, description="how often the teacher rewords each given problem")
    solutions: int = Field(4, ge=0, description="solutions of the teacher to each given and each reworded problem")
    limit: int | None = Field(None, ge=1, description="given problems to use, the first ones; all if absent")
    temperature: float = Field(0.7, ge=0, description="of the teacher's answers")
    max_tokens: int = Field(256, ge=1, description="of the teacher's answers")

    @model_validator(mode="after")
    def _ordered(self) -> WordProblemsConfig:
        if self.least_steps > self.most_steps:
            raise ValueError(f"least_steps = {self.least_steps} is more than most_steps = {self.most_steps}")
        return self


class ToolsConfig(Section):
    """Dialogs with calls of tools."""

    count: int = Field(1000, ge=0, description="dialogs with tools of our own, whose calls are run")
    single: float = Field(0.4, ge=0, description="share with one call")
    parallel: float = Field(0.2, ge=0, description="share with several calls at once")
    steps: float = Field(0.25, ge=0, description="share with calls that need results of earlier ones")
    none: float = Field(0.15, ge=0, description="share that none of the tools fits")
    most_tools: int = Field(5, ge=1, le=20, description="most tools that are offered, beyond those that are needed")
    definitions: tuple[Path, ...] = Field(
        (), description="JSON files of definitions, with examples or for the teacher to invent requests"
    )
    requests: int = Field(8, ge=1, description="requests that the teacher invents for each definition")
    votes: int = Field(5, ge=1, description="answers of the teacher to each, of which more than half must agree")
    temperature: float = Field(0.7, ge=0, description="of the teacher's answers")
    max_tokens: int = Field(512, ge=1, description="of the teacher's answers")


class CodeConfig(Section):
    """Programming problems whose solutions pass tests in the sandbox."""

    problems: tuple[Path, ...] = Field((), description="files of problems with solutions and tests, as MBPP's")
    limit: int | None = Field(None, ge=1, description="given problems to use, the first ones; all if absent")
    mutants: int = Field(2, ge=0, le=6, description="new problems that are made of each given one by program")
    invent_inputs: bool = Field(
        False, description="test new problems on new inputs, too, where only the given solution says what is right"
    )
    snippets: tuple[Path, ...] = Field((), description="Python files, whose functions are explained and written again")
    explain: bool = Field(False, description="have the teacher describe real functions and write them again")
    invent: int = Field(0, ge=0, description="problems that the teacher invents")
    attempts: int = Field(3, ge=1, description="how often the teacher may try; each time it is told the error")
    least_tests: int = Field(3, ge=2, description="fewest tests of a problem that the teacher invents or describes")
    translate: tuple[Literal["javascript", "bash"], ...] = Field(
        (), description="languages into which given solutions are translated, and back"
    )
    temperature: float = Field(0.7, ge=0, description="of the teacher's answers")
    max_tokens: int = Field(768, ge=1, description="of the teacher's answers")


class OwnConfig(Section):
    """A generator of your own."""

    make: Reference = Field(description="module:function(setting, options), which yields Made; see docs/synth.md")
    options: dict[str, Any] = Field(default_factory=dict, description="given to it")


class SynthConfig(Section):
    """A recipe of synthetic data."""

    name: str = Field("synth", description="of the data")
    seed: int = Field(0, description="of all randomness")
    teacher: str | None = Field(None, description="the model that is asked: a folder, URL or URL#MODEL")
    documents: tuple[Path, ...] = Field((), description="files and folders of text, as herdlm tokenize takes them")
    constraints: ConstraintsConfig | None = None
    word_problems: WordProblemsConfig | None = None
    tools: ToolsConfig | None = None
    code: CodeConfig | None = None
    long_documents: LongDocumentsConfig | None = None
    multilingual: MultilingualConfig | None = None
    factuality: FactualityConfig | None = None
    steerability: SteerabilityConfig | None = None
    self_instruct: SelfInstructConfig | None = None
    safety: SafetyConfig | None = None
    own: dict[str, OwnConfig] = Field(default_factory=dict, description="generators of your own, by name")


def paths_of(value: Any) -> Iterator[Path]:
    """All files and folders that a recipe names, the teacher's among them."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from paths_of(item)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from paths_of(getattr(value, name))
        if isinstance(value, SynthConfig) and value.teacher is not None and not is_address(value.teacher):
            yield Path(value.teacher)


def localize(tables: dict[str, Any], folder: Path) -> None:
    """Make the paths in a recipe's tables absolute: they are relative to the recipe's ``folder``."""
    _localize(SynthConfig, tables, folder)


def _localize(schema: type[BaseModel], tables: dict[str, Any], folder: Path) -> None:
    for name, field in schema.model_fields.items():
        given, kind = tables.get(name), str(field.annotation)
        if isinstance(given, dict):
            for section in sections(field.annotation):
                _localize(section, given, folder)
        elif name == "teacher" and isinstance(given, str):
            tables[name] = given if is_address(given) else str((folder / given).resolve())
        elif "Path" in kind and isinstance(given, str):
            tables[name] = str((folder / given).resolve())
        elif "Path" in kind and isinstance(given, list):
            tables[name] = [str((folder / each).resolve()) if isinstance(each, str) else each for each in given]


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections in a key's type."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [
        each for each in getattr(annotation, "__args__", ()) if isinstance(each, type) and issubclass(each, Section)
    ]
