"""The command line: thin over the library, with errors on one line."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from herdlm import __version__
from herdlm.base.errors import HerdError, InputError

app = typer.Typer(
    name="herdlm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raises a herd of Llama-class language models: raw web pages in, a served chat model out.",
)

keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
app.add_typer(keys_app, name="keys")
mix = typer.Typer(no_args_is_help=True, help="Choose the data mix.")
app.add_typer(mix, name="mix")

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe, such as recipes/tiny.toml.", show_default=False)]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key=value laid over the recipe; may be repeated.")]
SeedOption = Annotated[int, typer.Option(help="Same seed, same result.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ModelArgument = Annotated[Path, typer.Argument(help="A model folder, or a run (its flagship).", show_default=False)]

KeyFileOption = Annotated[Path, typer.Option("--file", help="The file of API keys.", show_default=False)]


def say(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")


def tell(text: str) -> None:
    """A line to the person at the terminal, beside what a program may read."""
    sys.stderr.write(f"herdlm: {' '.join(text.split())}\n")


def say_json(value: Any) -> None:
    """Print a result as JSON."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options of every command."""
    if version:
        say(__version__)
        raise typer.Exit


@app.command()
def run(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME where not given.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage; make only what it needs.")] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", help="Make this stage and what depends on it anew.")
    ] = None,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Raise a herd: run every stage of a recipe that is not already there."""
    from herdlm.recipe import read_recipe
    from herdlm.run.execute import run as run_recipe

    read = read_recipe(recipe, set_ or ())
    root = out or Path("runs") / read.name
    result = run_recipe(read, root, until=until, start_from=start_from, quiet=quiet or json_)
    if json_:
        say_json({**asdict(result), "root": str(root)})
    elif not result.made:
        say(f"Nothing to do: all {len(result.kept)} stages are there. See {root}")
    else:
        say(f"Made {len(result.made)} stages, {len(result.kept)} were there, in {result.seconds:.0f} s. See {root}")
        if until is None:
            say(f"Report: {root / 'report.html'}. Talk to the flagship: herdlm chat {root}")


@app.command()
def stages(run: Annotated[Path, typer.Argument(help="A run's folder.")], json_: JsonOption = False) -> None:
    """Show which stages of a run are finished, under way, out of date or still to come."""
    from herdlm.run.status import status

    rows = status(run)
    if json_:
        say_json([asdict(row) for row in rows])
    else:
        for row in rows:
            seconds = f"{row.seconds:8.1f} s" if row.seconds is not None else " " * 10
            say(f"{row.state:12} {seconds}  {row.name}")


@app.command()
def trace(path: Annotated[Path, typer.Argument(help="An artefact of a run.")], json_: JsonOption = False) -> None:
    """Print what an artefact was made from, back to the crawl's hash."""
    from herdlm.run import lineage

    origin = lineage.trace(path)
    if json_:
        say_json(lineage.as_json(origin))
    else:
        for line in lineage.lines(origin):
            say(line)


@app.command()
def curate(
    sources: Annotated[
        list[str],
        typer.Argument(help="WARC, Parquet, JSONL, text: paths, globs, addresses, warc.paths; folders of source code."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the documents; a run cut off goes on beside it.")],
    recipe: Annotated[Path | None, typer.Option(help="Take its section `curate`.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Run on a Ray cluster: auto, ray://HOST:PORT or the head's address.")
    ] = None,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Curate raw pages into clean, unique documents, without the rest of a recipe.

    --set lays curate.KEY=VALUE over the recipe.
    """
    from herdlm.base.artefact import InputEntry
    from herdlm.base.recipe import apply_overrides, parse
    from herdlm.base.standalone import standalone
    from herdlm.curate.config import CurateConfig
    from herdlm.curate.pipeline import curate as curate_into
    from herdlm.curate.sources.hashes import source_content
    from herdlm.recipe import read_recipe
    from herdlm.report.corpus_page import PAGE, write_corpus_page

    tables = {"curate": read_recipe(recipe).curate.model_dump(exclude_unset=True)} if recipe else {"curate": {}}
    tables = apply_overrides(tables, set_ or ())
    if unknown := sorted(set(tables) - {"curate"}):
        raise InputError(f"--set {unknown[0]} is no key of curate", "Write --set curate.KEY=VALUE")
    config = parse(CurateConfig, tables["curate"], str(recipe or "--set"))
    if cluster is not None:
        config = config.model_copy(update={"cluster": cluster})
    out.parent.mkdir(parents=True, exist_ok=True)
    inputs = {
        f"source-{number}": InputEntry(path=source, content=source_content(source, config, out.parent))
        for number, source in enumerate(sources, 1)
    }
    settings = config.fingerprint()
    with standalone(out, kind="documents", name="curate", settings=settings, inputs=inputs, seed=0) as (
        made,
        work,
        funnel,
    ):
        funnel.update(curate_into(sources, made, config, work=work / "curate", quiet=quiet or json_))
        write_corpus_page(made)
    if json_:
        say_json(funnel)
    else:
        say(f"{funnel['output']['documents']:,} documents of {funnel['input']['documents']:,} pages: {out}")
        say(f"What was dropped and why: {out / PAGE}, or herdlm inspect {out} --dropped")


@app.command()
def inspect(
    corpus: Annotated[Path, typer.Argument(help="A folder that curate made, or a run.", show_default=False)],
    dropped: Annotated[bool, typer.Option("--dropped", help="Show what was dropped.")] = False,
    reason: Annotated[str | None, typer.Option(help="Only documents dropped for this reason.")] = None,
    step: Annotated[str | None, typer.Option(help="Only documents dropped by this step.")] = None,
    language: Annotated[str | None, typer.Option(help="Only documents of this language.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Show documents of a corpus: those kept or, with --dropped, those dropped with step and reason."""
    from herdlm.curate import inspect as inspection

    wanted = inspection.Wanted(step, reason, language)
    found = inspection.find_documents(corpus, wanted, dropped=dropped, limit=limit)
    if json_:
        say_json(found)
    else:
        for line in inspection.as_lines(found):
            say(line)


@app.command()
def train(
    recipe: RecipeArgument,
    tokens: Annotated[Path, typer.Option(help="A folder of token shards, as the tokens stage makes.")],
    tokenizer: Annotated[Path, typer.Option(help="The tokenizer's folder.")],
    model: Annotated[str, typer.Option(help="Which of the recipe's models.")],
    out: Annotated[Path, typer.Option(help="A new folder for the model; a run cut off goes on beside it.")],
    teacher: Annotated[
        Path | None, typer.Option(help="The folder of the model that teaches, where the recipe has its distill key.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Start this many processes here and train on all.")] = 1,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Pre-train one model of a recipe: tokens in, model out, without the rest of the pipeline.

    Under torchrun, or with --processes, it is trained in the recipe's parallel layout.
    """
    from herdlm.parallel.processes import relaunch
    from herdlm.pretrain.pretrain import pretrain
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    if processes > 1:
        relaunch(processes, _without_option(sys.argv[1:], "--processes"), read.compute.threads_per_stage)
    counts = pretrain(read, model, tokens=tokens, tokenizer=tokenizer, out=out, teacher=teacher)
    if not counts:
        return  # another process tells
    if json_:
        say_json(counts)
    else:
        say(f"Model: {out}, {counts['validation_bits_per_byte']:.3f} bits per byte on held-out text")


@app.command()
def describe(
    recipe: RecipeArgument,
    processes: Annotated[
        int | None, typer.Option(min=1, help="That train the flagship, where its layout leaves dp_shard open.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="A folder of token shards: tells how often the run reads each source.")
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Print what a recipe's models cost: parameters, FLOPs, tokens, bytes of state. Allocates nothing."""
    from herdlm.plan import cost as description
    from herdlm.recipe import read_recipe

    told = description.describe(read_recipe(recipe, set_ or ()), processes, tokens)
    if json_:
        say_json(told)
    else:
        for line in description.lines(told):
            say(line)


@app.command("anneal-probe")
def anneal_probe(
    recipe: RecipeArgument,
    new: Annotated[Path, typer.Option(help="The token shard of the new data set.")],
    tokens: Annotated[Path, typer.Option(help="The recipe's token shards, as the tokens stage makes.")],
    tokenizer: Annotated[Path, typer.Option(help="The tokenizer's folder.")],
    out: Annotated[Path, typer.Option(help="A new folder for the result and both models.")],
    model: Annotated[str | None, typer.Option(help="Which of the recipe's models; the small one if not said.")] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER: a further shard to compare on; may be repeated.")
    ] = None,
    half_trained: Annotated[
        Path | None, typer.Option(help="A half-trained model's folder; where not given, it is trained first.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Of the annealing; the recipe's if not said.")] = None,
    new_share: Annotated[float, typer.Option(help="Of the rows, for the new set.")] = 0.3,
    processes: Annotated[int, typer.Option(min=1, help="Start this many processes here and train on all.")] = 1,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure what a small data set is worth: anneal a half-trained model with it and without.

    Under torchrun, or with --processes, models are trained and measured in the recipe's parallel layout.
    """
    from herdlm.parallel.processes import relaunch
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    sets = _named_folders(held_out)
    if processes > 1:
        relaunch(processes, _without_option(sys.argv[1:], "--processes"), read.compute.threads_per_stage)
    from herdlm.scaling import anneal_probe as probe

    told = probe.anneal_probe(
        read,
        model or read.herd.small,
        tokens=tokens,
        tokenizer=tokenizer,
        new=new,
        out=out,
        steps=steps,
        held_out=sets,
        half_trained=half_trained,
        new_share=new_share,
    )
    if not told:
        return  # another process tells
    if json_:
        say_json(told)
    else:
        for line in probe.lines(told):
            say(line)


@mix.command("search")
def mix_search(
    recipe: RecipeArgument,
    tokens: Annotated[Path, typer.Option(help="The recipe's token shards, as the tokens stage makes.")],
    tokenizer: Annotated[Path, typer.Option(help="The tokenizer's folder.")],
    candidates: Annotated[Path, typer.Option(help="A TOML file with [candidates.NAME], [draw] and [weights].")],
    out: Annotated[Path, typer.Option(help="A new folder for the result; a search cut off goes on.")],
    models: Annotated[str | None, typer.Option(help="Models a,b,c to forecast from; the ladder if not said.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each training; the recipe's if not said.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each model on each mix.")] = 1,
    confirm: Annotated[
        str | None, typer.Option(help="A larger model to train the winner and the default mix on.")
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER: a further shard to measure on; may be repeated.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Where trained models are kept, for other searches too; OUT-models if not said.")
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Train small models on candidate mixes and forecast the flagship's loss on each, by domain."""
    from herdlm.recipe import read_recipe
    from herdlm.scaling import mix_report
    from herdlm.scaling import mix_search as searching

    told = searching.mix_search(
        read_recipe(recipe, set_ or ()),
        tokens=tokens,
        tokenizer=tokenizer,
        candidates=candidates,
        out=out,
        models=tuple(models.split(",")) if models else (),
        steps=steps,
        seeds=seeds,
        confirm=confirm,
        held_out=_named_folders(held_out),
        runs=runs,
    )
    if json_:
        say_json(told)
    else:
        for line in mix_report.lines(told):
            say(line)


@app.command()
def launch(
    recipe: RecipeArgument,
    tokens: Annotated[str, typer.Option(help="The folder of token shards, as the nodes find it.")],
    tokenizer: Annotated[str, typer.Option(help="The tokenizer's folder, as the nodes find it.")],
    out: Annotated[str, typer.Option(help="A new folder for the model, as the nodes find it.")],
    slurm: Annotated[bool, typer.Option("--slurm", help="Write an sbatch file.")] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="Write a Kubernetes manifest.")] = False,
    model: Annotated[str | None, typer.Option(help="Which of the recipe's models; the flagship if not said.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1)] = 8,
    nodes: Annotated[int | None, typer.Option(min=1, help="Where the layout leaves dp_shard open.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The teacher's folder, as the nodes find it.")] = None,
    recipe_on_nodes: Annotated[str | None, typer.Option(help="The recipe, as the nodes find it.")] = None,
    sbatch: Annotated[list[str] | None, typer.Option(help="A further sbatch option, such as --partition=gpu.")] = None,
    image: Annotated[str | None, typer.Option(help="Kubernetes: the container image with herdlm.")] = None,
    claim: Annotated[str | None, typer.Option(help="Kubernetes: the volume claim with recipe and data.")] = None,
    mount: Annotated[str, typer.Option(help="Kubernetes: where pods see the volume.")] = "/data",
    set_: SetOption = None,
) -> None:
    """Print the file that trains a model of a recipe on a cluster, in the recipe's layout."""
    from herdlm.plan import launch as launching
    from herdlm.recipe import read_recipe

    read = read_recipe(recipe, set_ or ())
    if slurm == kubernetes:
        raise InputError("say for which cluster the file is to be", "Give either --slurm or --kubernetes")
    job = launching.plan_job(
        read,
        model or read.herd.flagship,
        path=recipe_on_nodes or str(recipe),
        tokens=tokens,
        tokenizer=tokenizer,
        out=out,
        overrides=set_ or (),
        gpus_per_node=gpus_per_node,
        nodes=nodes,
        teacher=teacher,
    )
    if slurm:
        if image or claim:
            raise InputError("--image and --claim are for Kubernetes", "Leave them out with --slurm")
        text = launching.slurm(job, options=sbatch or ())
    else:
        if sbatch:
            raise InputError("--sbatch is for Slurm", "Leave it out with --kubernetes")
        if not (image and claim):
            raise InputError("a Kubernetes manifest needs an image and a volume", "Give --image and --claim")
        text = launching.kubernetes(job, image=image, claim=claim, mount=mount)
    sys.stdout.write(text)


@app.command()
def chat(
    model: Annotated[
        str | None,
        typer.Argument(help="A model folder, or a run (its flagship); with --url a model's name.", show_default=False),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Talk to a server, as in http://127.0.0.1:8000/v1.")] = None,
    key: Annotated[str | None, typer.Option(envvar="HERDLM_API_KEY", help="The server's API key.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: SeedOption = 0,
) -> None:
    """Talk to a model in the terminal: /help there shows more."""
    from herdlm.serve.terminal.terminal import chat as talk

    talk(model, url=url, key=key, system=system, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)


@app.command()
def generate(
    model: ModelArgument,
    prompt: Annotated[str | None, typer.Option(help="The text to continue, or the user's message with --chat.")] = None,
    batch: Annotated[Path | None, typer.Option(help="A JSONL file of prompts instead; see docs/generate.md.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --batch: the JSONL file of answers.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --batch: engines at once.")] = None,
    cluster: Annotated[str | None, typer.Option(help="With --batch: a Ray cluster, auto or ray://HOST:PORT.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the chat format.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1)] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    n: Annotated[int, typer.Option("--n", min=1, help="Answers to give.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Processes that share each layer.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option(min=1, help="Stages of layers, in processes of their own.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Generate text from a prompt, or from each prompt of a file."""
    if (prompt is None) == (batch is None):
        raise InputError("generate takes a prompt or a file of them", "Give either --prompt or --batch")
    if batch is not None:
        from herdlm.serve.batch.prompts import Options
        from herdlm.serve.batch.run import generate_batch

        if out is None:
            raise InputError("--batch needs a place for the answers", "Give --out FILE.jsonl")
        summary = generate_batch(
            model,
            batch,
            out,
            options=Options(max_tokens=max_tokens, temperature=temperature, top_p=top_p, n=n),
            chat=chat,
            seed=seed,
            workers=workers,
            cluster=cluster,
            device=device,
            dtype=dtype,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            quiet=json_,
        )
        if json_:
            say_json(asdict(summary))
        else:
            say(f"Answers: {out} ({summary.prompts:,} prompts, {summary.failed:,} that could not be answered)")
        return
    if out or workers or cluster:
        raise InputError("--out, --workers and --cluster are for files of prompts", "Give --batch, or leave them out")
    from herdlm.serve.terminal.once import generate_once

    assert prompt is not None
    found = generate_once(
        model,
        prompt,
        chat=chat,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        n=n,
        seed=seed,
        device=device,
        dtype=dtype,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
    )
    if json_:
        say_json([asdict(completion) for completion in found])
    else:
        for completion in found:
            say(completion.text)
            if not completion.text.strip():
                tell("the model ended its text at once; give more of a prompt" + ("" if chat else ", or --chat"))


@app.command()
def serve(
    models: Annotated[list[str], typer.Argument(help="Model folders or runs, or NAME=FOLDER.", metavar="MODEL...")],
    host: Annotated[str, typer.Option(help="Loopback unless you say otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Processes that share each layer of a model.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option(min=1, help="Stages of layers, in processes of their own.")] = 1,
    cache_tokens: Annotated[int | None, typer.Option(min=16, help="Tokens that each model's cache holds.")] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0, help="Unload models beyond this much memory.")] = None,
    keys: Annotated[Path | None, typer.Option(help="The file of API keys; see herdlm keys.")] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Let everyone in who can reach the host.")] = False,
    max_body_mib: Annotated[float, typer.Option(min=0.001, help="Of one request.")] = 8,
    max_answers: Annotated[int, typer.Option(min=1, help="Under way or waiting; then 429.")] = 2048,
    request_seconds: Annotated[float, typer.Option(min=0.1, help="A request may take.")] = 600,
    drain_seconds: Annotated[float, typer.Option(min=0, help="For answers under way after SIGTERM.")] = 30,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Put prompts into the access log.")] = False,
    guard: Annotated[Path | None, typer.Option(help="A guard model that judges prompts and answers.")] = None,
    guard_threshold: Annotated[float, typer.Option(help="Scores from here on are refused.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of requests without a seed of their own.")] = 0,
) -> None:
    """Serve models over OpenAI's protocol."""
    from herdlm.serve.server import serve as serve_models

    from herdlm.serve.access.limits import ServerLimits  # isort: skip - run tells first what is not installed

    limits = ServerLimits(
        body_bytes=int(max_body_mib * 2**20),
        samples=max_answers,
        request_seconds=request_seconds,
        drain_seconds=drain_seconds,
    )
    serve_models(
        models,
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        cache_tokens=cache_tokens,
        memory_gib=memory_gib,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        keys=keys,
        no_keys=no_keys,
        limits=limits,
        log_texts=log_texts,
        seed=seed,
        guard=guard,
        guard_threshold=guard_threshold,
    )


@keys_app.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(help="Whose it is; in the access log.")],
    file: KeyFileOption,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Of prompts and answers.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
) -> None:
    """Make an API key. It is printed this once; the file keeps its hash alone."""
    from herdlm.serve.access.keys import KeyFile

    say(
        KeyFile(file).add(
            name, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrent=concurrent
        )
    )


@keys_app.command("list")
def keys_list(file: KeyFileOption, json_: JsonOption = False) -> None:
    """Show the names and limits of all keys."""
    from herdlm.serve.access.keys import KeyFile

    found = [key.model_dump(exclude={"sha256"}) for key in KeyFile(file).entries()]
    if json_:
        say_json(found)
        return
    for key in found:
        limits = ", ".join(
            f"{name} {value}" for name, value in key.items() if value and name not in ("name", "created")
        )
        say(f"{key['name']}: {limits or 'no limits'}")


@keys_app.command("revoke")
def keys_revoke(name: Annotated[str, typer.Argument()], file: KeyFileOption) -> None:
    """Take a key away; a running server refuses it from its next request on."""
    from herdlm.serve.access.keys import KeyFile

    KeyFile(file).revoke(name)


@app.command("import-hf")
def import_hf(
    folder: Annotated[Path, typer.Argument(help="A Llama-architecture folder of safetensors.")],
    out: Annotated[Path, typer.Option(help="A new folder for the model.")],
) -> None:
    """Bring in a Hugging Face model: check every tensor and normalise the folder."""
    from herdlm.model import hf

    hf.import_hf(folder, out)
    say(f"Model: {out}")


@app.command("export-hf")
def export_hf(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
) -> None:
    """Write a model, or a checkpoint kept of its training, as a Hugging Face folder of the given precision."""
    from herdlm.model import hf
    from herdlm.model.folders import model_folder
    from herdlm.train.milestones import export_checkpoint, is_checkpoint

    if is_checkpoint(model):
        export_checkpoint(model, out, dtype)
    else:
        hf.export_hf(model_folder(model), out, dtype)
    say(f"Hugging Face folder: {out}")


@app.command()
def quantize(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="A new folder for the FP8 model.")],
    recipe: Annotated[Path | None, typer.Option(help="Take its section `quantize`; options go before it.")] = None,
    activation_cap: Annotated[
        float | None, typer.Option(help="Upper bound of the magnitude that scales a token: 1200; inf for none.")
    ] = None,
    matrices: Annotated[str | None, typer.Option(help="Of the feed-forward: gate_up,down, either, or none.")] = None,
    attention: Annotated[
        bool | None, typer.Option("--attention/--no-attention", help="Attention's matrices too.", show_default="no")
    ] = None,
    skip_first_layers: Annotated[int | None, typer.Option(help="Left alone at the input: 1.")] = None,
    skip_last_layers: Annotated[int | None, typer.Option(help="Left alone at the output: 1.")] = None,
    granularity: Annotated[str | None, typer.Option(help="A scale per row, or per tensor: row.")] = None,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Write a model in FP8, for transformers, vLLM and our engine. Memory does not grow with the model."""
    from herdlm.base.recipe import parse
    from herdlm.generate.fp8.config import Fp8Config
    from herdlm.generate.fp8.quantize import quantize as quantize_model
    from herdlm.model.folders import model_folder
    from herdlm.recipe import read_recipe
    from herdlm.report.format import percent, size

    given = {
        "activation_cap": activation_cap,
        "attention": attention,
        "skip_first_layers": skip_first_layers,
        "skip_last_layers": skip_last_layers,
        "granularity": granularity,
        "matrices": None if matrices is None else [part for part in matrices.split(",") if part != "none"],
    }
    below = read_recipe(recipe).quantize.model_dump() if recipe else {}
    config = parse(Fp8Config, below | {key: value for key, value in given.items() if value is not None}, "quantize")
    counts = quantize_model(model_folder(model), out, config, quiet=quiet or json_)
    if json_:
        say_json(counts)
    else:
        say(
            f"FP8 model: {out}, {percent(counts['share_fp8'])} of its parameters in FP8, weights of "
            f"{size(counts['bytes_after'])} instead of {size(counts['bytes_before'])}"
        )


@app.command()
def compare(
    original: Annotated[Path, typer.Argument(help="A model folder, or a run (its flagship).", show_default=False)],
    changed: Annotated[Path, typer.Argument(help="A model made from it: in FP8, say.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new folder for the report.")],
    text: Annotated[
        Path | None, typer.Option(help="Held-out text: a token shard, documents, JSONL or a text file.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSONL with prompt, and answer and task where answers are to be checked.")
    ] = None,
    reward: Annotated[Path | None, typer.Option(help="A reward model that scores the answers.")] = None,
    benchmarks: Annotated[
        Path | None, typer.Option(help="JSONL of multiple choice: task, question, choices, answer (0 is the first).")
    ] = None,
    max_prompts: Annotated[int, typer.Option(min=1, help="Ask at most so many.")] = 256,
    max_rows: Annotated[int, typer.Option(min=1, help="Read at most so many rows of text.")] = 256,
    seq_len: Annotated[int, typer.Option(min=2, help="Tokens of a row of text.")] = 1024,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt; more than one need a temperature.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: SeedOption = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Report what FP8, or another change, did to a model: divergence, perplexity, answers, rewards, worst prompts.

    Where the original is a run, its validation text, held-out questions and last reward model are used unless given.
    """
    from herdlm.compare import compare as comparing
    from herdlm.compare.measure import Asking
    from herdlm.report.damage_page import PAGE

    told = comparing.compare(
        original,
        changed,
        out,
        comparing.Material(text, prompts, reward, benchmarks),
        prompts=max_prompts,
        rows=max_rows,
        asking=Asking(samples, temperature, max_tokens, seed),
        seq_len=seq_len,
        device=device,
        quiet=quiet or json_,
    )
    if json_:
        say_json(told)
    else:
        for line in comparing.lines(told):
            say(line)
        say(f"Report: {out / PAGE}")


@app.command()
def fit(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model folders, runs, recipes; Llama 3.1's sizes if none is given.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of the node.")] = 8,
    gigabytes: Annotated[float, typer.Option(help="Memory of a GPU in GB.")] = 80.0,
    reserve: Annotated[float, typer.Option(help="Share of it kept free for activations and runtime.")] = 0.1,
    context: Annotated[int, typer.Option(help="Tokens of a sequence, prompt and answer together.")] = 8192,
    concurrency: Annotated[int, typer.Option(help="Sequences at once.")] = 16,
    json_: JsonOption = False,
) -> None:
    """Tell whether models fit one node in BF16 and FP8: weights, cache, and the most sequences at once."""
    from herdlm.generate.fp8.config import Fp8Config
    from herdlm.plan import memory as fitting

    table = fitting.fit_table(
        fitting.named_models(models or []),
        fitting.Node(gpus, gigabytes, reserve),
        context=context,
        concurrency=concurrency,
        config=Fp8Config(),
    )
    if json_:
        say_json(table)
    else:
        for line in fitting.lines(table):
            say(line)


def _named_folders(held_out: list[str] | None) -> dict[str, Path]:
    if bad := [item for item in held_out or () if not all(item.partition("=")[::2])]:
        raise InputError(f"--held-out {bad[0]} is not of the form NAME=FOLDER", "Say, for one, math=tokens/math")
    return {name: Path(folder) for name, _, folder in (item.partition("=") for item in held_out or ())}


def _without_option(arguments: list[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept


grade = typer.Typer(no_args_is_help=True, help="Train what grades documents: quality and kinds of knowledge.")
app.add_typer(grade, name="grade")

LabelsOption = Annotated[
    Path, typer.Option(help="JSONL or Parquet: id or text, and label or score, as `herdlm label` writes.")
]
CorpusOption = Annotated[Path | None, typer.Option(help="The corpus whose ids the labels name.")]


@grade.command("train")
def grade_train(
    labels: LabelsOption,
    out: Annotated[Path, typer.Option(help="A new folder for the grader and its report.")],
    corpus: CorpusOption = None,
    seed: SeedOption = 0,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a grader of quality, calibrate it by language, and report on labels it never saw."""
    _train_grading("grader", labels, corpus, out, seed, set_, json_)


@grade.command("train-domains")
def grade_train_domains(
    labels: LabelsOption,
    out: Annotated[Path, typer.Option(help="A new folder for the classifier and its report.")],
    corpus: CorpusOption = None,
    seed: SeedOption = 0,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a classifier of kinds of knowledge, and report on labels it never saw."""
    _train_grading("domain classifier", labels, corpus, out, seed, set_, json_)


def _train_grading(
    kind: str, labels: Path, corpus: Path | None, out: Path, seed: int, set_: list[str] | None, json_: bool
) -> None:
    from herdlm.base.recipe import apply_overrides, parse
    from herdlm.curate.grade.config import GradeConfig
    from herdlm.curate.grade.publish import READABLE, train_model

    config = parse(GradeConfig, apply_overrides({}, set_ or ()), "--set")
    told = train_model(kind, labels, corpus, out, config, seed=seed)
    if json_:
        say_json(told)
    else:
        say((out / READABLE).read_text(encoding="utf-8").rstrip())


@app.command()
def label(
    corpus: Annotated[Path, typer.Argument(help="A curated corpus, or a Parquet or JSONL file.", show_default=False)],
    rubric: Annotated[str, typer.Option(help="A Markdown file, or one that ships: quality, domains.")],
    address: Annotated[str, typer.Option(help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option(help="The model's name there.")],
    out: Annotated[Path, typer.Option(help="A JSONL file; labels that are in it are kept and not asked for again.")],
    seed: SeedOption = 0,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Have a language model judge documents by a rubric. A key is taken from HERDLM_API_KEY or OPENAI_API_KEY."""
    from herdlm.base.recipe import apply_overrides, parse
    from herdlm.curate.grade.ask import Asker
    from herdlm.curate.grade.config import LabelConfig
    from herdlm.curate.grade.label import label_corpus
    from herdlm.curate.grade.rubric import load_rubric

    config = parse(LabelConfig, apply_overrides({}, set_ or ()), "--set")
    asker = Asker(address, model, config)
    counts = label_corpus(corpus, load_rubric(rubric), asker, out, config, seed=seed, quiet=quiet or json_)
    if json_:
        say_json(counts)
    else:
        say(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) + f". See {out}")


@app.command()
def index(
    corpus: Annotated[Path, typer.Argument(help="A curated corpus.", show_default=False)],
    folder: Annotated[Path, typer.Option("--index", help="The index; begun where there is none.")],
    name: Annotated[str, typer.Option(help="What the index calls this corpus.")],
    recipe: Annotated[Path | None, typer.Option(help="Take its `curate.near_duplicates`.")] = None,
    json_: JsonOption = False,
) -> None:
    """Add a corpus to an index, against which `curate.index` de-duplicates later crawls."""
    from herdlm.curate.duplicates.add import add_to_index
    from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig
    from herdlm.recipe import read_recipe

    config = read_recipe(recipe).curate.near_duplicates if recipe else NearDuplicatesConfig()
    told = add_to_index(corpus, folder, name, config)
    if json_:
        say_json(told)
    else:
        say(f"{told['added']:,} documents added; {folder} now knows {told['documents']:,}")


@app.command()
def contamination(
    corpus: Annotated[Path, typer.Argument(help="A curated corpus, or a Parquet or JSONL file.", show_default=False)],
    benchmark: Annotated[list[str], typer.Option(help="NAME=FILE: JSONL or Parquet; may be repeated.")],
    field: Annotated[list[str], typer.Option(help="A field whose text is part of an example; may be repeated.")],
    ngram_words: Annotated[int, typer.Option(min=2, help="Words of an n-gram.")] = 8,
    min_overlap: Annotated[float, typer.Option(help="Share of an example's words from which it is leaked.")] = 0.5,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Report which examples of benchmarks stand in a corpus. Changes nothing."""
    from herdlm.curate.steps.contamination import report as contamination_report
    from herdlm.curate.steps.contamination.benchmarks import Contamination, read_config

    config = read_config(benchmark, field, ngram_words, min_overlap)
    counts = contamination_report.scan(corpus, Contamination.load(config.benchmarks), quiet=quiet or json_)
    told = counts.report()
    if json_:
        say_json(told)
    else:
        for line in contamination_report.report_lines(told):
            say(line)


def main() -> None:
    """Run the command line. Exit 2 for bad input, 1 for failure, 130 when interrupted."""
    debug = "--debug" in sys.argv  # wherever it stands
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except HerdError as error:
        _fail(error, str(error), error.exit_code, debug)
    except OSError as error:
        from herdlm.run.worker import storage_error

        told = storage_error(error)
        _fail(error, str(told), told.exit_code, debug)


def _fail(error: BaseException, text: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    tell(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
