"""The commands that prepare a guard's training data, and measure a guard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import DeviceOption, DtypeOption, JsonOption, QuietOption, example
from herdlm.cli.output import remark, say, say_json

if TYPE_CHECKING:
    from herdlm.align.safety.measure import Measured

app = typer.Typer()
guard_app = typer.Typer(no_args_is_help=True, help="Prepare data that trains a guard, and measure a guard.")
app.add_typer(guard_app, name="guard")

CategoryOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=CODE", help="Codes of a category's name in the files, as theft=S2. May be repeated."),
]


@guard_app.command(**example("herdlm guard prepare labeled.jsonl xstest-prompts.csv --out guard.jsonl"))
def prepare(
    files: Annotated[list[Path], typer.Argument(help="Files of labeled prompts and answers.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The new file of dialogs for herdlm sft.")],
    held_out: Annotated[
        Path | None, typer.Option(help="A new file of labeled rows that are kept from training, for guard evaluate.")
    ] = None,
    held_out_share: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the conversations for --held-out.")
    ] = 0.2,
    category: CategoryOption = None,
    copies: Annotated[int, typer.Option(min=1, help="Dialogs of each row, with different lists of categories.")] = 1,
    shuffle: Annotated[float, typer.Option(help="Share of dialogs whose categories are renumbered.")] = 0.5,
    drop: Annotated[float, typer.Option(help="Share of dialogs in which categories are missing.")] = 0.5,
    wording: Annotated[
        Path | None, typer.Option(help="The guard's own wording, as in its guard_prompt.txt. See docs/guard.md.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order, and of what is changed.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Turn labeled prompts and answers into dialogs that train a guard; of these only the verdicts are learned."""
    from herdlm.align.safety.categories import CategoryNames, parse_categories
    from herdlm.align.safety.dialogs import Augmentation
    from herdlm.align.safety.prepare import prepare as run

    augmentation = Augmentation(copies, shuffle, drop)
    names = CategoryNames(parse_categories(category or ()))
    share = held_out_share if held_out is not None else 0.0
    made = run(files, out, names, augmentation, held_out=held_out, share=share, wording=wording, seed=seed)
    if json_:
        say_json(made.to_json())
        return
    for line in made.lines():
        say(line)
    for line in made.warnings:
        remark(line)
    say(f"Next: herdlm sft MODEL --data {out} --out GUARD")


@guard_app.command(**example("herdlm guard evaluate models/guard --data held-out.jsonl --out guard.json"))
def evaluate(
    model: Annotated[Path, typer.Argument(help="The guard's folder.", show_default=False)],
    data: Annotated[list[Path], typer.Option(help="A file of labeled prompts and answers. May be repeated.")],
    threshold: Annotated[float, typer.Option(help="Scores from this one on are flagged.")] = 0.5,
    most_false_positives: Annotated[
        float | None, typer.Option(min=0, max=1, help="Name the threshold that flags at most this share of the safe.")
    ] = None,
    category: CategoryOption = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures and the threshold curve to a new file.")] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure a guard, asked as the server asks it: precision, recall, F1, area and threshold curve, with intervals."""
    import json

    from herdlm.align.safety.categories import CategoryNames, parse_categories
    from herdlm.align.safety.labels import read_labeled
    from herdlm.align.safety.measure import judge_rows, measured
    from herdlm.base.artifact import write_text_durably
    from herdlm.base.progress import Progress
    from herdlm.serve.guard.guard import Guard

    if out is not None and out.exists():
        raise InputError(f"{out} exists", "Choose a new file")
    rows, _ = read_labeled(data, CategoryNames(parse_categories(category or ())))
    guard = Guard.load(model, threshold, device=device, dtype=dtype)
    with Progress(f"guard {model.name}", len(rows), "turns", quiet=quiet or json_) as progress:
        found = measured(judge_rows(guard, rows, progress.advance), threshold)
    if out is not None:
        write_text_durably(out, json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n")
    if json_:
        say_json(found.to_json())
    else:
        _say_measured(found, model, most_false_positives)


def _say_measured(found: Measured, model: Path, most_false_positives: float | None) -> None:
    from herdlm.evaluate.comparing import aligned

    def cells(figures: dict[str, object]) -> list[str]:
        return [_shown(figures.get(name)) for name in names]

    names = ("precision", "recall", "f1", "auc", "false_positive_rate")
    rows = [("", *names), ("all", *cells(dict(found.figures)))]
    for axis, parts in found.by.items():
        rows += [(f"{axis} {name}", *cells(dict(each))) for name, each in parts.items() if len(parts) > 1]
    say(f"{found.n:,} turns, {found.unsafe:,} of them unsafe; threshold {found.threshold:g}")
    for line in aligned(rows):
        say(line)
    if found.without_verdict:
        say(f"Without a verdict, which counts as flagged: {found.without_verdict:,}")
    if found.codes is not None:
        say(f"Categories named exactly, of flagged turns whose categories are known: {found.codes:.1%}")
    wanted = (
        "the best F1" if most_false_positives is None else f"at most {most_false_positives:.1%} of the safe flagged"
    )
    if (chosen := found.best(most_false_positives)) is None:
        raise InputError(f"no threshold gives {wanted}", "Allow more, or train the guard further")
    say(
        f"Threshold {chosen.threshold:.4g} gives {wanted} on these turns: recall {chosen.recall:.1%}, "
        f"false positives {chosen.false_positive_rate:.1%}, F1 {chosen.f1:.3f}"
    )
    say(f"Next: herdlm serve MODEL --guard {model} --guard-threshold {chosen.threshold:.4g}")


def _shown(found: object) -> str:
    from herdlm.evaluate.intervals import Estimate

    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" if isinstance(found, Estimate) else ""
