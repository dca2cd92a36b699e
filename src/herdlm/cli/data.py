"""Commands for files of chats, pairs, thumbs, prompts and documents: look through them, turn documents into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import (
    DeviceOption,
    JsonOption,
    MapOption,
    QuietOption,
    SeedOption,
    SetOption,
    TokenizerOption,
    example,
)
from herdlm.cli.output import remark, say, say_json

if TYPE_CHECKING:
    from herdlm.data.formats.form import Kind
    from herdlm.tokens.chat_format import ChatFormat

app = typer.Typer()
data = typer.Typer(no_args_is_help=True, help="Look through files of chats, pairs, thumbs and prompts.")
app.add_typer(data, name="data")
Kinds = Literal["dialogs", "preferences", "thumbs", "prompts"]


@data.command(
    **example("herdlm data check chats.jsonl more.parquet", "--model models/llama-1b --seq-len 2048 --show 2")
)
def check(
    files: Annotated[
        list[Path], typer.Argument(help="JSON, JSON Lines, CSV or Parquet files, also gzipped.", show_default=False)
    ],
    model: Annotated[
        Path | None, typer.Option(help="A model folder: lengths are in its tokens, and examples in its chat template.")
    ] = None,
    seq_len: Annotated[int | None, typer.Option(min=2, help="Count rows with more tokens as too long.")] = None,
    kind: Annotated[
        Kinds | None, typer.Option(help="What to make of the rows; by default what their form is for.")
    ] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="Find rows that this file has, too. May be repeated.")
    ] = None,
    map_: MapOption = None,
    show: Annotated[int, typer.Option(min=0, help="Show this many rows, with what is trained in brackets.")] = 0,
    write: Annotated[
        Path | None, typer.Option(help="Write the rows of use to a new file, as canonical JSON Lines.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check files of rows: form, contents, lengths, duplicates, what teaches nothing, what cannot be read."""
    from herdlm.data import check as checking
    from herdlm.data.read import parse_rename
    from herdlm.data.write import write_records

    chat_format = _chat_format(model) if model else None
    reports, kept = checking.check(
        files,
        kind=kind,
        chat_format=chat_format,
        seq_len=seq_len,
        held_out=held_out or (),
        rename=parse_rename(map_ or ()),
        keep=None if write else show,
    )
    unreadable = sum(report.unreadable for report in reports)
    if json_:
        say_json({"files": [report.as_json() for report in reports], "unreadable": unreadable})
    else:
        for report in reports:
            for line in report.lines("tokens" if chat_format else "characters"):
                say(line)
        _show(kept[:show], chat_format)
    if unreadable:
        errors = [error for report in reports for error in report.errors][: checking.UNREADABLE]
        for error in errors:
            remark(error)
        raise InputError(
            f"{unreadable:,} rows cannot be read; the first {len(errors)} are above", "Correct or delete them"
        )
    if write:
        kinds = sorted({name for name, _ in kept})
        if len(kinds) != 1:
            what = " and ".join(kinds) or "nothing of use"
            raise InputError(f"--write needs rows of one kind, and the files hold {what}", "Choose one with --kind")
        write_records(write, (record for _, record in kept))
        if not json_:
            say(f"Rows: {write}, {len(kept):,} {kinds[0]}")


@data.command(
    **example(
        "herdlm data clean kept.jsonl --out clean --model models/llama-1b",
        "--against svamp.jsonl --set semantic.max_cosine=0.9",
    )
)
def clean(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files of dialogs or prompts, such as herdlm select writes.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for what stays and what is dropped. Run again to resume.")],
    model: Annotated[
        Path | None, typer.Option(help="A model folder for embeddings; without, steps that need them are passed over.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="A file of evaluation items that must not be in it. May be repeated.")
    ] = None,
    seeds: Annotated[
        list[Path] | None,
        typer.Option(help="A file of prompts with task, for topics of rows without. May be repeated."),
    ] = None,
    license_: Annotated[
        list[str] | None, typer.Option("--license", help="A file's license: FILE=NAME. May be repeated.")
    ] = None,
    kind: Annotated[Literal["dialogs", "prompts"] | None, typer.Option(help="What to make of the rows.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML file with the steps' keys.")] = None,
    map_: MapOption = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Drop what harms training, with a reason for each drop: rules, duplicates, evaluation items, caps; a data card.

    Keys are STEP.KEY, as in --set semantic.max_cosine=0.9; --set near=false turns a step off.
    """
    from herdlm.align.quality.clean import READABLE
    from herdlm.align.quality.clean import clean as clean_files
    from herdlm.align.quality.config import QualityConfig
    from herdlm.base.recipe import apply_overrides, parse, read_toml
    from herdlm.data.read import parse_rename
    from herdlm.generate.load import pick_device

    tables = apply_overrides(read_toml(recipe) if recipe else {}, set_ or ())
    funnel = clean_files(
        files,
        out,
        parse(QualityConfig, tables, str(recipe or "--set")),
        model=model,
        against=against or (),
        seeds=seeds or (),
        licenses=_licenses(license_ or (), files),
        kind=kind,
        rename=parse_rename(map_ or ()),
        device=str(pick_device(device)),
        seed=seed,
        quiet=quiet or json_,
    )
    if json_:
        say_json(funnel)
        return
    for step in funnel["steps"]:
        why = step.get("skipped") or ", ".join(f"{reason}: {count:,}" for reason, count in step["reasons"].items())
        say(f"{step['step']:14} {step['given']:>9,} {-step['dropped']:>9,}  {why}".rstrip())
    say(f"Kept {funnel['kept']:,} of {funnel['given']:,}: {out / READABLE}")
    say(f"See what was dropped, and why: herdlm inspect {out} --dropped")


def _licenses(given: Sequence[str], files: Sequence[Path]) -> dict[str, str]:
    found = {}
    for text in given:
        file, equals, name = text.rpartition("=")
        if not equals or not name or Path(file) not in files:
            raise InputError(f"--license {text} is not FILE=NAME with one of the files", "Write chats.jsonl=Apache-2.0")
        found[file] = name
    return found


@app.command(**example("herdlm tokenize corpus --tokenizer models/llama-1b --out tokens"))
def tokenize(
    corpora: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS...",
            help="A curated corpus, or files or folders of JSON Lines, Parquet or text. NAME=PATH names a source.",
            show_default=False,
        ),
    ],
    tokenizer: TokenizerOption,
    out: Annotated[Path, typer.Option(help="A new folder for the token shards.")],
    text_key: Annotated[str, typer.Option(help="The key or column that holds a row's text.")] = "text",
    validation_percent: Annotated[
        float, typer.Option(min=0.0, max=50.0, help="Percentage of documents that are held out of training.")
    ] = 5.0,
    anneal_percent: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Percentage of documents, the best by quality, for annealing.")
    ] = 30.0,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Turn documents into token shards, which herdlm train reads."""
    from herdlm.data.documents import parse_corpus
    from herdlm.data.tokenize import tokenize as make_tokens

    counts = make_tokens(
        [parse_corpus(corpus) for corpus in corpora],
        tokenizer=tokenizer,
        out=out,
        text_key=text_key,
        validation_percent=validation_percent,
        anneal_percent=anneal_percent,
        seed=seed,
        quiet=quiet or json_,
    )
    if json_:
        say_json(counts)
    else:
        for name, shard in counts.items():
            say(f"{name}: {shard['documents']:,} documents, {shard['tokens']:,} tokens")
        say(f"Tokens: {out}")


def _chat_format(model: Path) -> ChatFormat:
    from herdlm.model.folders import model_folder
    from herdlm.tokens.chat_format import ChatFormat

    return ChatFormat.load(model_folder(model))


def _show(kept: list[tuple[Kind, dict[str, Any]]], chat_format: ChatFormat | None) -> None:
    from rich.console import Console

    from herdlm.data.show import plain, rendered

    console = Console(highlight=False, soft_wrap=True)
    for number, (kind, record) in enumerate(kept, 1):
        console.rule(f"row {number}", align="left")
        for text in rendered(kind, record, chat_format) if chat_format else plain(kind, record):
            console.print(text)
