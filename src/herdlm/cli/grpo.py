"""The command that trains a model by policy gradient on prompts with checkable answers."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from herdlm.cli.finetune import (
    HeldOutFiles,
    LoraOption,
    MergeOption,
    MicroBatchOption,
    OutOption,
    RateOption,
    RecipeOption,
    SaveDtypeOption,
    SeqLenOption,
    SetKeyOption,
    StepsOption,
    ThreadsOption,
    finetune,
)
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
)

app = typer.Typer()


@app.command(
    **example(
        "herdlm grpo tuned --prompts problems.jsonl --held-out test.jsonl", "--samples 8 --steps 100 --out better"
    )
)
def grpo(
    model: ModelArgument,
    prompts: Annotated[
        list[str],
        typer.Option(
            metavar="FILE[:WEIGHT]",
            help="A file of prompts whose answers can be checked; a weight of 2 uses them twice. May be repeated.",
            show_default=False,
        ),
    ],
    out: OutOption,
    held_out: HeldOutFiles = None,
    samples: Annotated[int | None, typer.Option(min=2, help="Answers to each prompt; by default 8.")] = None,
    prompts_per_step: Annotated[
        int | None, typer.Option(min=1, help="Prompts in a batch of samples; by default by size.")
    ] = None,
    max_answer_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer; by default 512.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature; by default 1.")] = None,
    mean: Annotated[
        Literal["tokens", "answers", "constant"] | None,
        typer.Option(help="What the loss is a mean over; by default tokens."),
    ] = None,
    kl_weight: Annotated[
        float | None, typer.Option(help="Weight of the divergence from the start; by default 0.")
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(help="A function of yours, module:function, that prompts may name. May be repeated."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="How often the prompts are read; by default 1.")] = None,
    steps: StepsOption = None,
    seq_len: SeqLenOption = None,
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
    """Train a model on prompts with checkable answers: what does better than its group becomes more likely.

    Under torchrun, or with --processes, training uses the layout that parallel.KEY=VALUE sets.
    """
    options = locals()
    names = (
        "samples",
        "prompts_per_step",
        "max_answer_tokens",
        "temperature",
        "mean",
        "kl_weight",
        "epochs",
        "seq_len",
    )
    keys = {name: options[name] for name in names} | {"own_verifiers": tuple(own) if own else None}
    finetune("grpo", keys, options | {"data": prompts})
