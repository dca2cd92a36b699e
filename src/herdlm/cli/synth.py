"""The command that makes synthetic training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    PipelineParallelOption,
    QuietOption,
    SetOption,
    TensorParallelOption,
    example,
)
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command(**example("herdlm synth recipes/synth.toml --teacher models/chat --out synthetic"))
def synth(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe with a table for each generator.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the data. Run again to resume.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="The model that is asked, in place of the recipe's: a folder, URL or URL#MODEL.")
    ] = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    tensor_parallel: TensorParallelOption = 1,
    pipeline_parallel: PipelineParallelOption = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Engines of the teacher, each in its own process.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Run the teacher's engines on a Ray cluster: auto or ray://HOST:PORT.")
    ] = None,
    isolation: Annotated[str, typer.Option(help="How the sandbox isolates programs; see docs/sandbox.md.")] = "auto",
    list_: Annotated[bool, typer.Option("--list", help="List the generators with their options.")] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Make training data: prompts that can be checked, and dialogs and pairs that were."""
    from herdlm.align.synth.run import synthesize

    if list_:
        _list()
        return
    if recipe is None or out is None:
        raise InputError("synth needs a recipe and --out", "herdlm synth --list names the generators")
    from herdlm.align.synth.recipe import read_synth_recipe
    from herdlm.base.openai_api import environment_key
    from herdlm.evaluate.engines import WRITING_PAGE, EngineOptions
    from herdlm.evaluate.publish import open_model
    from herdlm.evaluate.remote import RemoteOptions

    config = read_synth_recipe(recipe, set_ or (), teacher=teacher)
    options = EngineOptions(device, dtype, tensor_parallel, pipeline_parallel, workers, cluster, WRITING_PAGE)
    named = config.teacher
    opened = (lambda: open_model(named, options, RemoteOptions(key=environment_key()))) if named else None
    counts = synthesize(config, out, open_teacher=opened, isolation=isolation, quiet=quiet or json_)
    if json_:
        say_json(counts)
        return
    for name, made in counts.items():
        say(f"{name}: " + ", ".join(_kinds(made)))
        for reason, number in made["reasons"].items():
            say(f"  dropped {number:>7,}  {reason}")
    say(f"Data: {out}")


def _kinds(made: dict[str, Any]) -> list[str]:
    return [f"{made[kind]:,} {kind}" for kind in ("dialogs", "prompts", "pairs") if made[kind]] or ["nothing"]


def _list() -> None:
    from herdlm.align.synth.config import SynthConfig, sections
    from herdlm.align.synth.registry import GENERATORS

    for name in GENERATORS:
        section = sections(SynthConfig.model_fields[name].annotation)[0]
        say(f"{name}: {' '.join((section.__doc__ or '').split())}")
        for key, field in section.model_fields.items():
            default = "required" if field.is_required() else f"by default {field.default!r}"
            say(f"  {key}: {field.description}; {default}")
