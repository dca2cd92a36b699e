"""Commands that fine-tune a model on files: dialogs, preferences, and pairs for a reward model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import (
    DeviceOption,
    JsonOption,
    MapOption,
    ModelArgument,
    ProcessesOption,
    QuietOption,
    SeedOption,
    TemplateOption,
    example,
    without_option,
)
from herdlm.cli.output import say, say_json
from herdlm.cli.templates import template_text

if TYPE_CHECKING:
    from herdlm.align.defaults import Method
    from herdlm.align.job import FinetuneJob

app = typer.Typer()

DataOption = Annotated[
    list[str],
    typer.Option(
        metavar="FILE[:WEIGHT]",
        help="A file to train on; a weight of 2 uses its rows twice, 0.5 a random half. May be repeated.",
        show_default=False,
    ),
]
OutOption = Annotated[Path, typer.Option(help="A new folder for the result. Run again to resume.")]
HeldOutFiles = Annotated[
    list[Path] | None, typer.Option(help="A file of rows to measure on, before and after. May be repeated.")
]
RecipeOption = Annotated[
    Path | None, typer.Option(help="A recipe, of which the method's section, parallel and track are taken.")
]
SetKeyOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set any key of the section, parallel.KEY or track.KEY: key=value. May be repeated."),
]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Optimizer steps, in place of epochs.")]
SeqLenOption = Annotated[int | None, typer.Option(min=2, help="Tokens in a row; longer rows of data are left out.")]
MicroBatchOption = Annotated[
    int | None, typer.Option(min=1, help="Most rows that a process computes at once; it saves memory.")
]
RateOption = Annotated[float | None, typer.Option(help="Learning rate after the warm-up; by default by size.")]
LoraOption = Annotated[int | None, typer.Option(min=1, help="Train LoRA adapters of this rank, not all weights.")]
MergeOption = Annotated[
    bool, typer.Option("--merge/--no-merge", help="Merge the adapters into a whole model, or write them alone.")
]
SaveDtypeOption = Annotated[
    Literal["float32", "bfloat16"] | None, typer.Option(help="Precision of the saved weights; by default float32.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of each process; by default as many as there are cores.")
]
PairsPerStepOption = Annotated[int | None, typer.Option(min=1, help="Pairs in a step; by default by size.")]
PairEpochsOption = Annotated[int | None, typer.Option(min=1, help="How often the data is read.")]


@app.command(
    **example("herdlm sft models/chat --data chats.jsonl --data more.csv:0.5", "--held-out test.jsonl --out tuned")
)
def sft(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    held_out: HeldOutFiles = None,
    epochs: Annotated[float | None, typer.Option(help="How often the data is read; by default 2.")] = None,
    steps: StepsOption = None,
    seq_len: SeqLenOption = None,
    rows_per_step: Annotated[int | None, typer.Option(min=1, help="Rows in a step; by default by size.")] = None,
    micro_batch_rows: MicroBatchOption = None,
    peak_lr: RateOption = None,
    lora: LoraOption = None,
    merge: MergeOption = True,
    teacher: Annotated[
        Path | None,
        typer.Option(help="A model with the same tokenizer whose distribution of each target is learned, too."),
    ] = None,
    distill: Annotated[
        float | None, typer.Option(help="With --teacher: its share of the loss, up to 1; by default 0.5.")
    ] = None,
    chat_template: TemplateOption = None,
    map_: MapOption = None,
    recipe: RecipeOption = None,
    set_: SetKeyOption = None,
    save_dtype: SaveDtypeOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    processes: ProcessesOption = 1,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Fine-tune a model on dialogs, packed into rows; what the assistant says is learned.

    With --teacher, the teacher reads the dialogs once before the training; distill.KEY=VALUE sets top_k, temperature.
    Under torchrun, or with --processes, training uses the layout that parallel.KEY=VALUE sets.
    """
    keys: dict[str, Any] = {"seq_len": seq_len, "rows_per_step": rows_per_step, "epochs": epochs}
    if teacher is not None or distill is not None:
        keys["distill"] = {"weight": distill}
    finetune("sft", keys, locals())


@app.command(**example("herdlm reward tuned --data pairs.jsonl --held-out test.jsonl", "--out judge"))
def reward(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    held_out: HeldOutFiles = None,
    epochs: PairEpochsOption = None,
    steps: StepsOption = None,
    seq_len: SeqLenOption = None,
    pairs_per_step: PairsPerStepOption = None,
    micro_batch_rows: MicroBatchOption = None,
    peak_lr: RateOption = None,
    lora: LoraOption = None,
    merge: MergeOption = True,
    chat_template: TemplateOption = None,
    map_: MapOption = None,
    recipe: RecipeOption = None,
    set_: SetKeyOption = None,
    save_dtype: SaveDtypeOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    processes: ProcessesOption = 1,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Train a reward model on pairs of a chosen and a rejected answer.

    Under torchrun, or with --processes, training uses the layout that parallel.KEY=VALUE sets.
    """
    keys = {"seq_len": seq_len, "pairs_per_step": pairs_per_step, "epochs": epochs}
    finetune("reward", keys, locals())


@app.command(
    **example("herdlm dpo tuned --data pairs.jsonl --held-out test.jsonl", "--loss norm --beta 5 --out aligned")
)
def dpo(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    held_out: HeldOutFiles = None,
    loss: Annotated[
        Literal["sigmoid", "norm", "simpo", "apo", "kto"] | None,
        typer.Option(help="Loss on pairs, or kto on thumbs; by default sigmoid."),
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Strength of the loss; by default the loss's own.")] = None,
    epochs: PairEpochsOption = None,
    steps: StepsOption = None,
    seq_len: SeqLenOption = None,
    pairs_per_step: PairsPerStepOption = None,
    micro_batch_rows: MicroBatchOption = None,
    peak_lr: RateOption = None,
    lora: LoraOption = None,
    merge: MergeOption = True,
    chat_template: TemplateOption = None,
    map_: MapOption = None,
    recipe: RecipeOption = None,
    set_: SetKeyOption = None,
    save_dtype: SaveDtypeOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    processes: ProcessesOption = 1,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Optimize a model on preferences: pairs of a chosen and a rejected answer, or thumbs with the loss kto.

    Under torchrun, or with --processes, training uses the layout that parallel.KEY=VALUE sets.
    """
    keys = {"seq_len": seq_len, "pairs_per_step": pairs_per_step, "epochs": epochs, "loss": loss, "beta": beta}
    finetune("dpo", keys, locals())


def finetune(method: Method, keys: dict[str, Any], options: dict[str, Any]) -> None:
    """Run a training command.

    Args:
        keys: of the method's section, by this command's own options.
        options: all options of the command by name.
    """
    from herdlm.parallel.launcher import launch

    if options["processes"] > 1:
        threads = options["threads"] or max(1, (os.cpu_count() or 1) // options["processes"])
        launch(options["processes"], without_option(sys.argv[1:], "--processes"), threads)
        return
    from herdlm.align import defaults
    from herdlm.align.dpo_training import dpo as run_dpo
    from herdlm.align.grpo.training import grpo as run_grpo
    from herdlm.align.reward_training import reward as run_reward
    from herdlm.align.sft import sft as run_sft
    from herdlm.model.start import open_start

    keys["train"] = {"peak_lr": options["peak_lr"], "save_dtype": options["save_dtype"]}
    section, job = _job(method, _given(keys), options)
    config = defaults.settings(
        defaults.SECTIONS[method],
        method,
        open_start(job.model).shape,
        section,
        lora=job.lora is not None,
        source=str(options["recipe"] or "the options"),
    )
    commands: dict[Method, Any] = {"sft": run_sft, "reward": run_reward, "dpo": run_dpo, "grpo": run_grpo}
    counts = commands[method](job, config)
    if counts is None:
        return  # the first process prints the result
    if options["json_"]:
        say_json(counts)
        return
    if not job.merge:
        say(f"Adapter: {job.out}\nNext: herdlm export-hf {job.out} --out MODEL")
    elif method == "reward":
        say(f"Reward model: {job.out}\nNext: herdlm score {job.out} --data FILE --out SCORES.jsonl")
    else:
        say(f"Model: {job.out}\nNext: herdlm chat {job.out}")


def _job(method: Method, keys: dict[str, Any], options: dict[str, Any]) -> tuple[dict[str, Any], FinetuneJob]:
    """The keys of the method's section that are given, and the job."""
    from herdlm.align.job import FinetuneJob, say_nothing
    from herdlm.base.recipe import apply_overrides, merge, parse, read_toml
    from herdlm.data.read import parse_rename
    from herdlm.data.source import Source, parse_source
    from herdlm.parallel.config import ParallelConfig
    from herdlm.train.config import TrackConfig

    recipe: Path | None = options["recipe"]
    section: dict[str, Any] = {}
    if recipe is not None:
        tables = read_toml(recipe)
        found = tables.get("align")
        found = found.get(method) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise InputError(f"recipe {recipe} has no section [align.{method}]", "Add it, or drop --recipe")
        section = found | {key: tables[key] for key in ("parallel", "track") if key in tables}
    section = merge(merge(section, apply_overrides({}, options["set_"] or ())), keys)
    source = str(recipe or "the options")
    job = FinetuneJob(
        model=options["model"],
        out=options["out"],
        data=tuple(map(parse_source, options["data"])),
        held_out=tuple(Source(path) for path in options["held_out"] or ()),
        teacher=options.get("teacher"),
        template=template_text(options["chat_template"]),
        lora=options["lora"],
        merge=options["merge"],
        steps=options["steps"],
        micro_batch_rows=options["micro_batch_rows"],
        rename=parse_rename(options["map_"] or ()),
        parallel=parse(ParallelConfig, section.pop("parallel", {}), source),
        track=parse(TrackConfig, section.pop("track", {}), source),
        seed=options["seed"],
        device=options["device"],
        threads=options["threads"],
        quiet=options["quiet"] or options["json_"],
        say=say_nothing if options["quiet"] or options["json_"] else say,
    )
    return section, job


def _given(keys: dict[str, Any]) -> dict[str, Any]:
    """The keys with a value, also inside of tables."""
    inner = {key: _given(value) if isinstance(value, dict) else value for key, value in keys.items()}
    return {key: value for key, value in inner.items() if value is not None}
