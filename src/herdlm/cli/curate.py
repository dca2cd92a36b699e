"""Commands that curate a corpus, show its documents and grade them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, QuietOption, SeedOption, SetOption, example
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command(**example('herdlm curate "crawl/*.warc.gz" --out corpus --set curate.workers=8'))
def curate(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Paths, globs or URLs of WARC, Parquet, JSONL or text; warc.paths lists; folders of source code."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the documents. Run again to resume.")],
    recipe: Annotated[Path | None, typer.Option(help="Use the section `curate` of this recipe.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Run on a Ray cluster: auto, ray://HOST:PORT or the address of its head.")
    ] = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Curate raw pages into clean, unique documents.

    Keys are those of the recipe's section `curate`: --set curate.KEY=VALUE.
    """
    from herdlm.base.artifact import InputEntry
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
        raise InputError(f"--set {unknown[0]} is not a key of curate", "Write --set curate.KEY=VALUE")
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
        say(f"Kept {funnel['output']['documents']:,} documents of {funnel['input']['documents']:,} pages: {out}")
        say(f"See what was dropped, and why: {out / PAGE}, or herdlm inspect {out} --dropped")


@app.command(**example("herdlm inspect corpus --dropped --language de --limit 5"))
def inspect(
    corpus: Annotated[
        Path, typer.Argument(help="A curated corpus, a run, or what herdlm data clean made.", show_default=False)
    ],
    dropped: Annotated[bool, typer.Option("--dropped", help="Show documents that were dropped.")] = False,
    reason: Annotated[str | None, typer.Option(help="Show only documents dropped for this reason.")] = None,
    step: Annotated[str | None, typer.Option(help="Show only documents dropped by this step.")] = None,
    language: Annotated[str | None, typer.Option(help="Show only documents in this language.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Of cleaned data: follow the example with this key, or those of this prompt.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many documents.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Show a corpus's documents, or cleaned dialogs; with --dropped, what was dropped, with step and reason."""
    from herdlm.align.quality import inspect as quality
    from herdlm.curate import inspect as inspection

    if quality.is_cleaned(corpus):
        examples = quality.find_examples(
            corpus, quality.Wanted(step, reason, language, key), dropped=dropped, limit=limit
        )
        if json_:
            say_json(examples)
        else:
            for line in quality.as_lines(examples):
                say(line)
        return
    if key is not None:
        raise InputError(f"{corpus} is not cleaned data: --key has no meaning", "Leave it out")
    wanted = inspection.Wanted(step, reason, language)
    found = inspection.find_documents(corpus, wanted, dropped=dropped, limit=limit)
    if json_:
        say_json(found)
    else:
        for line in inspection.as_lines(found):
            say(line)


@app.command(**example("herdlm index corpus --index seen --name january"))
def index(
    corpus: Annotated[Path, typer.Argument(help="A curated corpus.", show_default=False)],
    folder: Annotated[Path, typer.Option("--index", help="The index; a new one is created if missing.")],
    name: Annotated[str, typer.Option(help="The name of this corpus in the index.")],
    recipe: Annotated[Path | None, typer.Option(help="Use `curate.near_duplicates` of this recipe.")] = None,
    json_: JsonOption = False,
) -> None:
    """Add a corpus to an index, so that `curate.index` de-duplicates later crawls against it."""
    from herdlm.curate.duplicates.add import add_to_index
    from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig
    from herdlm.recipe import read_recipe

    config = read_recipe(recipe).curate.near_duplicates if recipe else NearDuplicatesConfig()
    result = add_to_index(corpus, folder, name, config)
    if json_:
        say_json(result)
    else:
        say(f"{result['added']:,} documents added; {folder} now holds {result['documents']:,}")


@app.command(
    **example(
        "herdlm label corpus --rubric quality --model judge --out labels.jsonl", "--address http://127.0.0.1:8000/v1"
    )
)
def label(
    corpus: Annotated[Path, typer.Argument(help="A curated corpus, or a Parquet or JSONL file.", show_default=False)],
    rubric: Annotated[str, typer.Option(help="A Markdown file, or a built-in rubric: quality or domains.")],
    address: Annotated[str, typer.Option(help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option(help="The model's name on that server.")],
    out: Annotated[Path, typer.Option(help="A JSONL file. Labels already in it are kept.")],
    seed: SeedOption = 0,
    set_: SetOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Have a language model label documents by a rubric.

    The API key is read from HERDLM_API_KEY or OPENAI_API_KEY.
    """
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


@app.command(**example("herdlm contamination corpus --benchmark gsm8k=gsm8k.jsonl --field question"))
def contamination(
    corpus: Annotated[Path, typer.Argument(help="A curated corpus, or a Parquet or JSONL file.", show_default=False)],
    benchmark: Annotated[list[str], typer.Option(help="A benchmark in JSONL or Parquet: NAME=FILE. May be repeated.")],
    field: Annotated[list[str], typer.Option(help="A field of each example to search for. May be repeated.")],
    ngram_words: Annotated[int, typer.Option(min=2, help="Words in an n-gram.")] = 8,
    min_overlap: Annotated[
        float, typer.Option(help="An example counts as leaked if at least this share of its words is found.")
    ] = 0.5,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Report which benchmark examples appear in a corpus, without changing it."""
    from herdlm.curate.steps.contamination import report as contamination_report
    from herdlm.curate.steps.contamination.benchmarks import Contamination, read_config

    config = read_config(benchmark, field, ngram_words, min_overlap)
    counts = contamination_report.scan(corpus, Contamination.load(config.benchmarks), quiet=quiet or json_)
    result = counts.report()
    if json_:
        say_json(result)
    else:
        for line in contamination_report.report_lines(result):
            say(line)


grade = typer.Typer(no_args_is_help=True, help="Train classifiers of documents: quality and kinds of knowledge.")
app.add_typer(grade, name="grade")
LabelsOption = Annotated[
    Path, typer.Option(help="JSONL or Parquet with id or text, and label or score, as `herdlm label` writes it.")
]
CorpusOption = Annotated[Path | None, typer.Option(help="The corpus that the labels' ids refer to.")]


@grade.command("train", **example("herdlm grade train --labels labels.jsonl --corpus corpus --out grader"))
def grade_train(
    labels: LabelsOption,
    out: Annotated[Path, typer.Option(help="A new folder for the grader and its report.")],
    corpus: CorpusOption = None,
    seed: SeedOption = 0,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a quality grader, calibrate it by language and test it on held-out labels."""
    _train_grading("grader", labels, corpus, out, seed, set_, json_)


@grade.command(
    "train-domains", **example("herdlm grade train-domains --labels labels.jsonl --corpus corpus --out kinds")
)
def grade_train_domains(
    labels: LabelsOption,
    out: Annotated[Path, typer.Option(help="A new folder for the classifier and its report.")],
    corpus: CorpusOption = None,
    seed: SeedOption = 0,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a classifier of kinds of knowledge and test it on held-out labels."""
    _train_grading("domain classifier", labels, corpus, out, seed, set_, json_)


def _train_grading(
    kind: str, labels: Path, corpus: Path | None, out: Path, seed: int, set_: list[str] | None, json_: bool
) -> None:
    from herdlm.base.recipe import apply_overrides, parse
    from herdlm.curate.grade.config import GradeConfig
    from herdlm.curate.grade.publish import READABLE, train_model

    config = parse(GradeConfig, apply_overrides({}, set_ or ()), "--set")
    result = train_model(kind, labels, corpus, out, config, seed=seed)
    if json_:
        say_json(result)
    else:
        say((out / READABLE).read_text(encoding="utf-8").rstrip())
