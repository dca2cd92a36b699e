"""The command that selects from samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, example
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command(
    **example("herdlm select round-1.jsonl round-2.jsonl --kept kept.jsonl", "--pairs pairs.jsonl --keep-per-task 500")
)
def select(
    samples: Annotated[
        list[Path], typer.Argument(help="Files of samples, best judged: herdlm sample, judge.", show_default=False)
    ],
    kept: Annotated[Path | None, typer.Option(help="Write the answers to fine-tune on to a new file.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Write preference pairs to a new file.")] = None,
    keep_per_prompt: Annotated[int, typer.Option(min=0, help="Keep at most this many answers of a prompt.")] = 1,
    keep_per_task: Annotated[int | None, typer.Option(min=1, help="Keep at most this many answers of a task.")] = None,
    share_unverified: Annotated[
        float, typer.Option(help="Of prompts without a verdict, keep answers to this share, the best of each task.")
    ] = 0.5,
    min_reward_quantile: Annotated[
        float, typer.Option(help="Keep no answer whose reward is below this quantile of its task's.")
    ] = 0.0,
    pairs_per_prompt: Annotated[int, typer.Option(min=0, help="Make at most this many pairs of a prompt.")] = 1,
    edited: Annotated[
        Path | None, typer.Option(help="A file of dialogs that end with people's own or corrected answers.")
    ] = None,
    diverse: Annotated[bool, typer.Option("--diverse", help="Of a prompt's answers, keep those that differ.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A further key of align.select: cut=rejected, systems=drop. May be repeated."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Select from samples: the best answers to fine-tune on, and graded pairs. Nothing is computed by a model."""
    from herdlm.align.samples.select_config import SelectConfig
    from herdlm.align.samples.select_files import select_files, table
    from herdlm.base.recipe import apply_overrides, parse

    if kept is None and pairs is None:
        raise InputError("neither --kept nor --pairs is given", "Name the files to write")
    keys = {
        "keep_per_prompt": keep_per_prompt,
        "keep_per_task": keep_per_task,
        "share_unverified": share_unverified,
        "min_reward_quantile": min_reward_quantile,
        "pairs_per_prompt": pairs_per_prompt,
        "diverse": diverse,
    }
    config = parse(SelectConfig, apply_overrides(keys, set_ or ()), "herdlm select")
    selected = select_files(samples, config, kept=kept, pairs=pairs, edited=edited)
    if json_:
        say_json(selected.counts)
        return
    for line in table(selected.counts):
        say(line)
    for name, path in (("Kept", kept), ("Pairs", pairs)):
        if path is not None:
            say(f"{name}: {path}")
