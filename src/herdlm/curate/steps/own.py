"""The user's own steps, which a recipe names as ``module:attribute``: loaded, identified, and checked as they run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from herdlm.base.errors import HerdError, InputError
from herdlm.base.own_parts import Reference, code_hash, describe_error, load_part
from herdlm.base.recipe import Section, parse
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep

PageStepName = Literal[
    "read",
    "robots",
    "url",
    "extract",
    "repair",
    "language",
    "domains",
    "heuristics",
    "repetitive_lines",
    "pii",
    "dirty_words",
    "quality",
]
NAME = re.compile(r"[a-z][a-z0-9_]*")
COLUMNS = {"text": str, "language": str, "domain": str, "language_score": float, "quality": float}  # a step may set


class OwnStepConfig(Section):
    """A step of the user's own."""

    step: Reference = Field(description="MODULE:ATTRIBUTE, a subclass of herdlm.curate.step.PageStep")
    after: PageStepName = Field("heuristics", description="the built-in step that it follows")
    settings: dict[str, Any] = Field({}, description="the step's own keys")


class OwnStep(PageStep):
    """A step of the user's own under its ``name`` in the recipe. Checks what it returns.

    Raises:
        InputError: The step cannot be loaded, its settings are wrong, it raises, or it returns a wrong outcome.
    """

    def __init__(self, name: str, own: OwnStepConfig) -> None:
        key = f"curate.steps.{name}"
        step, self.where = _load(name, own), f"{key} ({own.step})"
        super().__init__(parse(step.Settings, own.settings, f"{key}.settings"))
        self.name, self.prose_only, self.filters = name, step.prose_only, step.filters
        try:
            self._step = step(self.settings)
        except Exception as error:
            raise self._raised(error) from error

    def check(self) -> None:
        try:
            self._step.check()
        except Exception as error:
            raise self._raised(error) from error

    def run(self, batch: Batch) -> Outcome:
        try:
            outcome = self._step.run(batch)
        except Exception as error:
            raise self._raised(error) from error
        if fault := next(_faults(outcome, pages=len(batch["row"]), filters=self.filters), None):
            raise InputError(f"{self.where}: run {fault}", "Return Outcome(reasons, columns): see docs/own-parts.md")
        return outcome

    def _raised(self, error: Exception) -> HerdError:
        if isinstance(error, HerdError):
            return error
        return InputError(f"{self.where} raised {describe_error(error)}", "Fix the step")


def identify(name: str, own: OwnStepConfig) -> dict[str, Any]:
    """Return what determines the outcome of a step: its keys, its version, and the hash of its source file.

    Raises:
        InputError: The step cannot be loaded, or its settings are wrong.
    """
    step = _load(name, own)
    settings = parse(step.Settings, own.settings, f"curate.steps.{name}.settings").model_dump(mode="json")
    return own.model_dump() | {"settings": settings, "version": step.version, "source": code_hash(step)}


def _load(name: str, own: OwnStepConfig) -> type[PageStep]:
    key = f"curate.steps.{name}.step"
    step = load_part(own.step, key)
    if not (isinstance(step, type) and issubclass(step, PageStep)):
        raise InputError(f"{key} = {own.step!r} is not a step", "Name a subclass of herdlm.curate.step.PageStep")
    if inspect.isabstract(step):
        raise InputError(f"{key} = {own.step!r} does not define run", "Define run(self, batch) -> Outcome")
    settings: Any = step.Settings
    if not (isinstance(settings, type) and issubclass(settings, Section)):
        remedy = "Make it a subclass of herdlm.base.recipe.Section"
        raise InputError(f"{key} = {own.step!r}: its Settings is not a section", remedy)
    return step


def _faults(outcome: Any, *, pages: int, filters: bool) -> Iterator[str]:
    """Yield what is wrong with the outcome of a step for a number of pages."""
    if not isinstance(outcome, Outcome):
        yield f"returned {type(outcome).__name__}, not Outcome"
        return
    if len(outcome.reasons) != pages:
        yield f"returned {len(outcome.reasons)} reasons for {pages} pages"
    for reason in outcome.reasons:
        if reason is not None and not (isinstance(reason, str) and reason):
            yield f"returned the reason {reason!r}, which is neither a name nor None"
        if reason is not None and not filters:
            yield f"returned the reason {reason!r}, but the step has filters = False"
    for column, values in outcome.columns.items():
        if column not in COLUMNS:
            yield f"set the column {column}, but a step can only set {', '.join(COLUMNS)}"
        elif len(values) != pages:
            yield f"returned {len(values)} values of {column} for {pages} pages"
        elif wrong := [value for value in values if not isinstance(value, COLUMNS[column])]:
            yield f"set {column} to {wrong[0]!r}, which is not {COLUMNS[column].__name__}"
