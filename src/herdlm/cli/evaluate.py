"""The command that measures models by benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    PipelineParallelOption,
    QuietOption,
    TensorParallelOption,
    api_key,
    example,
)
from herdlm.cli.output import remark, say

if TYPE_CHECKING:
    from herdlm.evaluate.run import TaskResult

app = typer.Typer()


@app.command(**example("herdlm evaluate model --tasks arc_easy --data files --out evaluation"))
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Model folders, runs, which mean their flagship, or addresses of servers, URL or URL#MODEL.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[str, typer.Option(help="Names of tasks, or task files NAME.toml, with commas between.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="The folder of results; what it holds is not computed again.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="A folder of benchmark files, or a file of items. May be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first items of each task only.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Worked examples before each question.")] = None,
    chat: Annotated[
        bool | None, typer.Option("--chat/--plain", help="Ask in a chat or as plain text; by default as tasks say.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Answers to each item of generation tasks.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of an answer.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Temperature of answers; several answers to an item need one above 0.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of examples and of what is drawn.")] = 1234,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Ask the tasks' variants, too, and report how far figures spread.")
    ] = False,
    contamination: Annotated[
        list[Path] | None,
        typer.Option(help="Training data: documents or token shards. Reports figures on items that it holds."),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    tensor_parallel: TensorParallelOption = 1,
    pipeline_parallel: PipelineParallelOption = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Engines, each in a process of its own, that share the items.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Run the engines on a Ray cluster: auto or ray://HOST:PORT.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Pending requests to a server at a time; 16 by default.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the servers' API key; by default HERDLM_API_KEY or OPENAI_API_KEY.")
    ] = None,
    key_over_http: Annotated[
        bool, typer.Option("--key-over-http", help="Send the API key unencrypted to other machines, too.")
    ] = False,
    judge: Annotated[
        str | None, typer.Option(help="The model, given as models are, that rates answers where a task asks for one.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in tasks.")] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure models by benchmarks, with 95% intervals, and compare them item by item."""
    from herdlm.evaluate.task import load_task, task_names

    if list_:
        for name in task_names():
            config = load_task(name).config
            say(f"{name}: {config.title}. {config.about}")
        return
    if not models or not tasks or out is None:
        raise InputError("evaluate needs models, --tasks and --out", "herdlm evaluate --list names the tasks")
    from herdlm.evaluate.asking import Settings
    from herdlm.evaluate.engines import EngineOptions
    from herdlm.evaluate.publish import evaluate_models
    from herdlm.evaluate.remote import CONCURRENCY, RemoteOptions, is_address
    from herdlm.evaluate.run import dump, summary_of

    settings = Settings(shots, chat, limit, seed, samples, max_tokens, temperature)
    options = EngineOptions(device, dtype, tensor_parallel, pipeline_parallel, workers, cluster)
    remote = RemoteOptions(concurrency or CONCURRENCY, api_key(api_key_file), key_over_http)
    kinds = {is_address(each) for each in (*models, *([judge] if judge else []))}
    if (workers or cluster) and False not in kinds:
        raise InputError("--workers and --cluster run model folders, and there is none", "Remove them")
    if (concurrency or api_key_file or key_over_http) and True not in kinds:
        raise InputError("--concurrency and API keys are for servers, and no model is one", "Remove them")
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    found = evaluate_models(
        models,
        names,
        data or (),
        out,
        settings=settings,
        options=options,
        robustness=robustness,
        training_data=contamination or (),
        remote=remote,
        judge=judge,
        quiet=quiet or json_,
    )
    if json_:
        for name, results in found.items():
            say(dump(summary_of(name, results)))
        return
    _say_all(found)
    remark(f"Items: {out}")


def _say_all(found: dict[str, list[TaskResult]]) -> None:
    from herdlm.evaluate.comparing import compare, contamination_table, group_table, robustness_table, table

    for lines in (table(found), group_table(found), robustness_table(found), contamination_table(found)):
        for line in lines:
            say(line)
    first, *others = found
    for name in others:
        for comparison in compare(found[first], found[name], (first, name)):
            say(comparison.sentence)
