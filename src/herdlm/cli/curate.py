"""Commands that curate a corpus, look at it and grade it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, SeedOption, SetOption
from herdlm.cli.output import say, say_json

app = typer.Typer()


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
    from herdlm.curate.config import PACE, CurateConfig
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
    settings = config.model_dump(mode="json", exclude=set(PACE))
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
def index(
    corpus: Annotated[Path, typer.Argument(help="A curated corpus.", show_default=False)],
    folder: Annotated[Path, typer.Option("--index", help="The index; begun where there is none.")],
    name: Annotated[str, typer.Option(help="What the index calls this corpus.")],
    recipe: Annotated[Path | None, typer.Option(help="Take its `curate.near_duplicates`.")] = None,
    json_: JsonOption = False,
) -> None:
    """Add a corpus to an index, against which `curate.index` de-duplicates later crawls."""
    from herdlm.curate.config import NearDuplicatesConfig
    from herdlm.curate.duplicates.add import add_to_index
    from herdlm.recipe import read_recipe

    config = read_recipe(recipe).curate.near_duplicates if recipe else NearDuplicatesConfig()
    told = add_to_index(corpus, folder, name, config)
    if json_:
        say_json(told)
    else:
        say(f"{told['added']:,} documents added; {folder} now knows {told['documents']:,}")


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
    from herdlm.curate.config import LabelConfig
    from herdlm.curate.grade.ask import Asker
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
    from herdlm.curate.grade import contamination_report
    from herdlm.curate.grade.contamination import Contamination, read_config

    config = read_config(benchmark, field, ngram_words, min_overlap)
    counts = contamination_report.scan(corpus, Contamination.load(config.benchmarks), quiet=quiet or json_)
    told = counts.report()
    if json_:
        say_json(told)
    else:
        for line in contamination_report.report_lines(told):
            say(line)


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
    from herdlm.curate.config import GradeConfig
    from herdlm.curate.grade.publish import READABLE, train_model

    config = parse(GradeConfig, apply_overrides({}, set_ or ()), "--set")
    told = train_model(kind, labels, corpus, out, config, seed=seed)
    if json_:
        say_json(told)
    else:
        say((out / READABLE).read_text(encoding="utf-8").rstrip())
