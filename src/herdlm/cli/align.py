"""Commands beside fine-tuning: score rows, average models, promote a model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from herdlm.base.errors import HerdError, InputError
from herdlm.cli.options import DeviceOption, JsonOption, MapOption, ModelArgument, QuietOption, TemplateOption, example
from herdlm.cli.output import say, say_json
from herdlm.cli.templates import template_text

if TYPE_CHECKING:
    from herdlm.evaluate.promote import Rule

app = typer.Typer()


@app.command(**example("herdlm score judge --data pairs.jsonl --out scores.jsonl"))
def score(
    model: ModelArgument,
    data: Annotated[list[Path], typer.Option(help="A file of pairs, thumbs or dialogs. May be repeated.")],
    out: Annotated[Path | None, typer.Option(help="A new file for the scores, as JSON Lines.")] = None,
    chat_template: TemplateOption = None,
    map_: MapOption = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Score rows with a reward model: a score for each dialog or thumb, and for each side of a pair."""
    from herdlm.align import reward_figures
    from herdlm.align.score import score as score_files
    from herdlm.data.read import parse_rename

    found = score_files(
        model,
        data,
        out,
        template=template_text(chat_template),
        rename=parse_rename(map_ or ()),
        device=device,  # type: ignore[arg-type]
        quiet=quiet or json_,
    )
    if json_:
        say_json(found)
        return
    if "pairs" in found:
        for line in reward_figures.lines(found["pairs"]):
            say(line)
    if thumbs := found.get("thumbs"):
        say(f"AUC of {thumbs['up']:,} thumbs up against {thumbs['down']:,} down: {thumbs['auc']['value']:.3f}")
    if out:
        say(f"Scores: {out}, {found['data']['used']:,} rows")


@app.command(**example("herdlm average tuned-1 tuned-2 tuned-3 --out averaged"))
def average(
    models: Annotated[list[Path], typer.Argument(help="Model folders of one shape and tokenizer.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new folder for the model.")],
    weights: Annotated[
        str | None, typer.Option(help="A weight for each model, as 2,1,1; by default all equal.")
    ] = None,
    save_dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Precision of the saved weights.")
    ] = "float32",
    json_: JsonOption = False,
) -> None:
    """Average the weights of models that were trained from the same one."""
    from herdlm.model.average import average_folders
    from herdlm.model.folders import model_folder

    counts = average_folders(
        [model_folder(model) for model in models], out, weights=_numbers(weights), dtype=save_dtype
    )
    if json_:
        say_json(counts)
    else:
        say(f"Model: {out}\nNext: herdlm chat {out}")


@app.command(**example("herdlm promote tuned --over place.json --higher svamp --lower loss=0.02"))
def promote(
    candidate: Annotated[Path, typer.Argument(help="The candidate's folder.", show_default=False)],
    over: Annotated[Path, typer.Option(help="The file that names the model in use; written if it does not exist.")],
    figures: Annotated[
        list[Path] | None,
        typer.Option(
            help="The candidate's figures, or an evaluation's results.json; by default figures.json in its folder. "
            "May be repeated."
        ),
    ] = None,
    higher: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=DROP]", help="A figure that is better if higher, and how far it may drop."),
    ] = None,
    lower: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=RISE]", help="A figure that is better if lower, and how far it may rise."),
    ] = None,
    at_least: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="The least value that a figure must have.")
    ] = None,
    at_most: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="The most that a figure may have.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Let a model take the place of another if a held-out figure improves beyond its interval and none gets worse.

    Figures of an evaluation are named TASK_METRIC, and TASK_METRIC/GROUP of a group.

    Exits with 1 if the candidate is refused.
    """
    from dataclasses import asdict

    from herdlm.evaluate import promote as gate

    rules = _rules((("higher", higher), ("lower", lower)), (("higher", at_least), ("lower", at_most)))
    measured: dict[str, gate.Figure] = {}
    for path in figures or [candidate / "figures.json"]:
        measured |= gate.read_figures(path, candidate.name)
    verdict = gate.promote(candidate, measured, rules, over)
    if json_:
        say_json(asdict(verdict))
    elif verdict.promoted:
        say(f"{candidate} is in {over}: {verdict.reason}")
    if not verdict.promoted:
        raise HerdError(f"{candidate} is not promoted: {verdict.reason}", "Improve it, or allow the drop")


Given = tuple[tuple[Literal["higher", "lower"], list[str] | None], ...]


def _rules(changes: Given, limits: Given) -> dict[str, Rule]:
    """The gate's rules, from figures with how much worse they may get, and from figures with their limits."""
    from herdlm.evaluate.promote import Rule

    rules: dict[str, Rule] = {}
    for better, given in changes:
        for item in given or ():
            name, _, allowed = item.partition("=")
            if name in rules:
                raise InputError(f"{name} is named twice", "Name each figure as --higher or --lower once")
            rules[name] = Rule(_number(allowed, item) if allowed else 0.0, better)
    for better, given in limits:
        for item in given or ():
            name, _, value = item.partition("=")
            rule = rules.get(name, Rule(math.inf, better))
            if rule.better != better or rule.limit is not None:
                raise InputError(f"{item} contradicts another option about {name}", "Give one limit, on the worse side")
            rules[name] = replace(rule, limit=_number(value, item))
    return rules


def _numbers(text: str | None) -> list[float] | None:
    return [_number(part, text) for part in text.split(",")] if text else None


def _number(text: str, given: Any) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{given}: {text!r} is not a number", "Write a number such as 0.02") from None
