"""Tasks: a TOML file each, which says where items come from, what is asked, and how answers are judged."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from herdlm.base.errors import InputError
from herdlm.base.own_parts import Reference
from herdlm.base.recipe import Section, parse, read_toml

CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes", "mc2")
KINDS = Literal["choice", "continuation", "answer", "text"]


class Join(Section):
    """Further columns of the items, from other files."""

    files: tuple[str, ...] = Field(description="patterns, as of the items' own files")
    on: str = Field(description="the column by which rows belong together")


class Items(Section):
    """Where items come from."""

    files: tuple[str, ...] = Field(
        description="patterns in the data folder, each an alternative; ARCHIVE!PATTERN names files of a tar archive"
    )
    source: str = Field(description="which public file it is, and its form")
    where: str = Field("", description="a Jinja expression: rows for which it is false are left out")
    join: Join | None = None
    prepare: Reference | None = Field(None, description="module:function that gives further fields of an item")
    make: Reference | None = Field(
        None, description="module:function(rows, model, options, seed) that makes the items of the files' rows"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="of ``make``")
    fields: dict[str, str] = Field(default_factory=dict, description="further fields: name = Jinja expression")
    choices: str = Field("", description="the field that lists the choices' texts, for ``order`` and ``shots.answers``")
    answer: str = Field("", description="the field with the number of the right choice, or a label for each choice")
    order: str = Field("", description="a Jinja expression of ``n``, the count of choices: their numbers, reordered")


class Prompt(Section):
    """What is asked of an item. ``text``, ``description``, ``target`` and ``system`` are Jinja templates.

    ``choices``, ``contexts``, ``labels`` and ``answer`` are Jinja expressions.
    """

    text: str = Field("", description="the question")
    description: str = Field("", description="stands once before everything")
    system: str = Field("", description="a system message, in a chat only")
    target: str = Field("", description="the right continuation, or the answer of an example")
    separator: str = Field(" ", description="stands between a question and its answer")
    choices: str | None = Field(None, description="the choices' texts")
    contexts: str | None = Field(None, description="a context for each choice, where the continuation is the same")
    answer: str | None = Field(None, description="the number of the right choice, from 0")
    labels: str | None = Field(None, description="for each choice whether it is right, where several are")
    turns: str | None = Field(None, description="the user's messages, where there is more than one")
    tools: str | None = Field(None, description="functions that the model may call")


class Shots(Section):
    """Worked examples before the question."""

    count: int = Field(0, ge=0, description="how many, unless --shots says otherwise")
    files: tuple[str, ...] = Field((), description="where they come from; the items' own files if empty")
    rows: tuple[dict[str, Any], ...] = Field((), description="the examples themselves, in place of files")
    where: str = Field("", description="a Jinja expression: rows for which it is false are left out")
    same: str | None = Field(None, description="a field in which an example must equal the item")
    pick: Literal["first", "random"] = Field("first", description="the first rows, or others for each item by the seed")
    target: str | None = Field(None, description="an example's answer, if it differs from the prompt's target")
    between: str = Field("\n\n", description="stands after each example")
    answers: tuple[int, ...] = Field(
        (), description="where the examples' right choices stand, in turn: each trades places with the choice there"
    )


class Sampling(Section):
    """How answers are generated."""

    max_tokens: int = Field(256, ge=1)
    stop: tuple[str, ...] = ()
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    samples: int = Field(1, ge=1, description="answers to each item")


class Judge(Section):
    """How an answer is judged."""

    verifier: str = Field(description="a verifier's name, or module:function")
    options: dict[str, Any] = Field(default_factory=dict)
    reference: str = Field("", description="a Jinja expression: what the answer is compared with")
    prefix: str = Field("", description="a Jinja template: what stands before the answer when it is judged")
    metrics: dict[str, str] = Field(
        default_factory=dict,
        description="metrics as Jinja expressions over passed, score and the verdict's details; none: not of this item",
    )
    combine: Literal["mean", "majority", "pass@k"] = Field("mean", description="how several answers make one result")
    k: tuple[int, ...] = Field((1,), description="of pass@k")


class TaskFile(Section):
    """A task file."""

    title: str
    about: str = Field(description="what it measures, and its paper")
    license: str = ""
    kind: KINDS
    chat: bool = Field(False, description="whether a model with a chat template is asked in a chat")
    metrics: tuple[str, ...] = Field(
        (), description="of a choice: acc, acc_norm, acc_bytes, mc2, or one of them by another name, as acc=mc2"
    )
    group: str | None = Field(None, description="a field; results are reported for each of its values, too")
    cluster: str | None = Field(None, description="a field; items that share it are drawn together for the interval")
    items: Items
    prompt: Prompt = Prompt()
    shots: Shots = Shots()
    sampling: Sampling = Sampling()
    judge: dict[str, Judge] = Field(default_factory=dict)
    contaminated: str = Field(
        "", description="a Jinja expression: an item's text whose n-grams are sought in training data"
    )
    variants: dict[str, dict[str, dict[str, Any]]] = Field(
        default_factory=dict, description="for robustness, by what they vary and by name: keys of this file, changed"
    )

    @model_validator(mode="after")
    def _whole(self) -> TaskFile:
        prompt = self.prompt
        if self.kind == "choice" and (prompt.choices is None) == (prompt.contexts is None):
            raise ValueError("prompt: a choice needs either choices or contexts")
        if self.kind == "choice" and (prompt.answer is None) == (prompt.labels is None):
            raise ValueError("prompt: a choice needs either answer or labels")
        for metric in self.metrics:
            if metric.rpartition("=")[2] not in CHOICE_METRICS:
                raise ValueError(f"metrics: {metric} is not one of {', '.join(CHOICE_METRICS)}")
        for key, given in (("items.order", self.items.order), ("shots.answers", self.shots.answers)):
            if given and not (self.items.choices and self.items.answer):
                raise ValueError(f"{key}: needs items.choices and items.answer, which name the fields to reorder")
        if self.kind == "continuation" and not prompt.target:
            raise ValueError("prompt.target: a continuation needs one")
        if self.kind == "answer" and not self.judge:
            raise ValueError("judge: an answer needs at least one")
        return self


class Task:
    """A task by its name."""

    def __init__(self, name: str, config: TaskFile) -> None:
        self.name, self.config = name, config

    @cached_property
    def digest(self) -> str:
        """A hash of all that the file says of how items are asked and judged."""
        said = self.config.model_dump(mode="json", exclude={"variants", "contaminated"})
        text = json.dumps(said, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def task_names() -> list[str]:
    """The names of the built-in tasks."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in package_files("herdlm.evaluate").joinpath("tasks").iterdir()
        if entry.name.endswith(".toml")
    )


def load_task(name: str) -> Task:
    """A built-in task, or the one in a file ``PATH.toml``.

    Raises:
        InputError: there is no such task, or its file has an unknown or a wrong key.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{name} does not exist", "Check the path of the task file")
    elif name in task_names():
        path = Path(str(package_files("herdlm.evaluate").joinpath("tasks", f"{name}.toml")))
    else:
        raise InputError(
            f"there is no task {name!r}", f"Use one of {', '.join(task_names())}, or a task file of your own, NAME.toml"
        )
    return Task(path.stem, parse(TaskFile, read_toml(path), str(path)))
