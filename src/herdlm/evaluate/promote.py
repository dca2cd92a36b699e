"""A gate on held-out figures: a candidate takes the place of the incumbent only if it is better and nowhere worse.

Figures are a JSON object of names, each with ``value`` and its interval ``low`` to ``high``, or the ``results.json``
of an evaluation. The place is a pointer file, which names the model in it and holds its figures; it is replaced as a
whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.model.weights import read_json


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rule:
    """What the gate asks of a figure.

    Attributes:
        allowed_drop: how much worse than the incumbent's its value may be; infinite: the limit alone counts.
        limit: the worst value that any model may have in the place. It keeps small drops from adding up over rounds.
    """

    allowed_drop: float = 0.0
    better: Literal["higher", "lower"] = "higher"
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate passes the gate, and why: figures that drop too far, and figures that improve."""

    promoted: bool
    drops: tuple[str, ...]
    improvements: tuple[str, ...]

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        if self.drops:
            return f"refused: {'; '.join(self.drops)}"
        if not self.improvements:
            return "refused: no figure improves beyond its interval"
        return f"promoted: {'; '.join(self.improvements)}"


def read_figures(path: Path, model: str | None = None) -> dict[str, Figure]:
    """The figures in a JSON file.

    Those of an evaluation's ``results.json`` are named TASK_METRIC, and TASK_METRIC/GROUP where the task has groups.

    Args:
        model: whose figures to take where an evaluation has several models.

    Raises:
        InputError: there is no such file, an entry is not a figure, or the evaluation has no such model.
    """
    stored = read_json(path)
    return _figures(_of_evaluation(stored, path, model) if "evaluations" in stored else stored, path)


def judge(candidate: Mapping[str, Figure], incumbent: Mapping[str, Figure], rules: Mapping[str, Rule]) -> Verdict:
    """Compare two models on the figures that ``rules`` name.

    A figure drops if its value is worse by more than its rule allows, or than its limit. It improves if the candidate's
    whole interval is better than the incumbent's; one that has only a limit does not count. The candidate is promoted
    if none drops and at least one improves.

    Raises:
        InputError: there are no rules, or one names a figure that was not measured.
    """
    if not rules:
        raise InputError("the gate has no rules", "Name at least one figure")
    for name in rules:
        for figures, title in ((candidate, "candidate"), (incumbent, "incumbent")):
            if name not in figures:
                raise InputError(f"the {title} has no figure {name!r}", f"Measured were: {', '.join(sorted(figures))}")
    drops, improvements = [], []
    for name, rule in rules.items():
        sign = 1.0 if rule.better == "higher" else -1.0
        new, old = candidate[name], incumbent[name]
        shown = (
            f"{name} {old.value:.4g} [{old.low:.4g}, {old.high:.4g}] -> {new.value:.4g} [{new.low:.4g}, {new.high:.4g}]"
        )
        if sign * (new.value - old.value) < -rule.allowed_drop:
            drops.append(f"{shown}, which may {'drop' if sign > 0 else 'rise'} by {rule.allowed_drop:.4g}")
        drops += _beyond(name, new, rule)
        if math.isinf(rule.allowed_drop):
            continue
        worst_new, best_old = (new.low, old.high) if sign > 0 else (-new.high, -old.low)
        if worst_new > best_old:
            improvements.append(shown)
    return Verdict(not drops and bool(improvements), tuple(drops), tuple(improvements))


def promote(model: Path, figures: Mapping[str, Figure], rules: Mapping[str, Rule], pointer: Path) -> Verdict:
    """Let ``model`` take the place that ``pointer`` names, if it passes the gate; the first model takes an empty place.

    Raises:
        InputError: ``model`` is not a folder, ``pointer`` cannot be read, or see :func:`judge`.
    """
    if not model.is_dir():
        raise InputError(f"{model} is not a model's folder", "Check the path")
    if pointer.exists():
        verdict = judge(figures, _incumbent_figures(pointer), rules)
    else:
        judge(figures, figures, rules)  # checks the rules
        beyond = tuple(text for name, rule in rules.items() for text in _beyond(name, figures[name], rule))
        verdict = Verdict(not beyond, beyond, ("the place was empty",))
    if verdict.promoted:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        place = {"model": str(model.resolve()), "figures": {name: asdict(f) for name, f in figures.items()}}
        write_text_durably(pointer, json.dumps(place, indent=2) + "\n")
    return verdict


def promoted_model(pointer: Path) -> Path:
    """The folder of the model in a place.

    Raises:
        InputError: the pointer does not exist or names no folder that exists.
    """
    model = read_json(pointer).get("model")
    if not isinstance(model, str) or not Path(model).is_dir():
        raise InputError(f"{pointer} names {model!r}, which is not a folder", "Promote a model again")
    return Path(model)


def _beyond(name: str, figure: Figure, rule: Rule) -> list[str]:
    """That a figure is beyond its rule's limit, if it is."""
    if rule.limit is None:
        return []
    if rule.better == "higher":
        return [f"{name} {figure.value:.4g} is below {rule.limit:.4g}"] if figure.value < rule.limit else []
    return [f"{name} {figure.value:.4g} is above {rule.limit:.4g}"] if figure.value > rule.limit else []


def _of_evaluation(stored: Mapping[str, Any], path: Path, model: str | None) -> dict[str, Any]:
    """The figures of one model in an evaluation's results; those without an interval are left out."""
    results = {each["model"]: each["tasks"] for each in stored["models"]}
    name = next(iter(results)) if len(results) == 1 else model
    if name not in results:
        raise InputError(f"{path} has no model {name!r}", f"It has {', '.join(results)}: evaluate this one, too")
    found: dict[str, Any] = {}
    for task, result in results[name].items():
        parts = {"": result} | {f"/{group}": each for group, each in result.get("groups", {}).items()}
        for suffix, figures in parts.items():
            found |= {f"{task}_{metric}{suffix}": each for metric, each in figures.items() if _is_whole(each)}
    return found


def _is_whole(entry: Any) -> bool:
    return isinstance(entry, dict) and all(entry.get(key, "") not in (None, "") for key in ("value", "low", "high"))


def _incumbent_figures(pointer: Path) -> dict[str, Figure]:
    stored = read_json(pointer).get("figures")
    if not isinstance(stored, dict):
        raise InputError(f"{pointer} holds no figures", "Delete it, and promote a model again")
    return _figures(stored, pointer)


def _figures(entries: Mapping[str, Any], path: Path) -> dict[str, Figure]:
    found = {}
    for name, entry in entries.items():
        keys = ("value", "low", "high")
        numbers = [entry.get(key) for key in keys] if isinstance(entry, dict) else []
        if len(numbers) != 3 or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise InputError(f"{path}: {name} is {entry!r}, not a figure", "Give value, low and high, all numbers")
        value, low, high = (float(entry[key]) for key in keys)
        if not low <= value <= high:
            raise InputError(f"{path}: {name} has value {value} outside of {low} to {high}", "Correct the figures")
        found[name] = Figure(value, low, high)
    return found
