"""The command that judges a file of answers by rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from herdlm.base.errors import InputError
from herdlm.cli.options import JsonOption, example
from herdlm.cli.output import say, say_json

app = typer.Typer()


@app.command(**example("herdlm judge answers.jsonl --verifier number", "--options tolerance=0.01 --out judged.jsonl"))
def judge(
    file: Annotated[Path, typer.Argument(help="A JSON Lines file of answers with references.", show_default=False)],
    verifier: Annotated[
        str,
        typer.Option(
            help="What judges: number, choice, exact, text, regex, json, ifeval, code, call, language, length, "
            "refusal, or a function of yours, module:function. See docs/verifiers.md."
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Option("--options", help="Options of the verifier: a JSON object, or KEY=VALUE. May be repeated."),
    ] = None,
    answer_key: Annotated[str, typer.Option(help="The key of the answer.")] = "answer",
    reference_key: Annotated[
        str | None,
        typer.Option(help="The key of the reference; by default reference, or the keys of the verifier's data sets."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write each row with its verdict to a new JSON Lines file.")] = None,
    json_: JsonOption = False,
) -> None:
    """Judge answers by rules: how many pass, with a 95% interval, and why not."""
    from dataclasses import asdict

    from herdlm.data.write import write_records
    from herdlm.evaluate.judge import judge_file, summarize, verdict_json
    from herdlm.verifiers.load import load_verifier

    if out is not None and out.exists():
        raise InputError(f"{out} exists", "Choose a new file")
    with load_verifier(verifier, _options(options or [])) as judging:
        judged = list(judge_file(file, judging, answer_key=answer_key, reference_key=reference_key))
    summary = summarize([verdict for _, verdict in judged])
    if out is not None:
        write_records(out, ({**row, "verdict": verdict_json(verdict)} for row, verdict in judged))
    if json_:
        say_json(asdict(summary))
        return
    rate = summary.rate
    say(f"answers     {summary.n:,}")
    say(f"pass rate   {rate.value:.1%}  (95% interval {rate.low:.1%} to {rate.high:.1%})")
    say(f"mean score  {summary.score:.3f}")
    width = max(map(len, summary.reasons))
    for reason, count in summary.reasons.items():
        say(f"  {reason:{width}}  {count:>7,}  {count / summary.n:>6.1%}")


def _options(given: list[str]) -> dict[str, Any]:
    """The verifier's options. A value is JSON if it can be read so, and else a text."""
    options: dict[str, Any] = {}
    for text in given:
        if text.lstrip().startswith("{"):
            try:
                options.update(json.loads(text))
            except ValueError as error:
                raise InputError(f"--options {text} is not JSON: {error}", "Correct it") from error
            continue
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--options {text} is not of the form KEY=VALUE", "Write, for example, tolerance=0.01")
        try:
            options[key.strip()] = json.loads(value)
        except ValueError:
            options[key.strip()] = value
    return options
