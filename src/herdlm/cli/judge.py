"""The command that judges answers: those of a file by a verifier, or samples by several judges."""

from __future__ import annotations

import json
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
    TensorParallelOption,
    api_key,
    example,
)
from herdlm.cli.output import remark, say, say_json

app = typer.Typer()


@app.command(**example("herdlm judge samples.jsonl --by verifier --by reward:reward-model", "--out judged.jsonl"))
def judge(
    file: Annotated[
        Path,
        typer.Argument(
            help="A file of samples, as herdlm sample writes it, or a JSON Lines file of answers with references.",
            show_default=False,
        ),
    ],
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="What judges samples: verifier (of each row), verifier:NAME, reward:FOLDER, model:FOLDER_OR_URL, or "
            "rubric:FILE with --judge. May be repeated."
        ),
    ] = None,
    verifier: Annotated[
        str | None,
        typer.Option(
            help="What judges answers: number, choice, exact, text, regex, json, ifeval, code, call, language, length, "
            "refusal, or a function of yours, module:function. See docs/verifiers.md."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--options", help="Options of the verifier: a JSON object, or KEY=VALUE. May be repeated."),
    ] = None,
    answer_key: Annotated[str, typer.Option(help="The key of the answer, in a file of answers.")] = "answer",
    reference_key: Annotated[
        str | None,
        typer.Option(help="The key of the reference; by default reference, or the keys of the verifier's data sets."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write each row with its verdicts to a new JSON Lines file.")] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(help="A function of yours, module:function, that rows of samples may name. May be repeated."),
    ] = None,
    isolation: Annotated[str, typer.Option(help="How the sandbox isolates programs; see docs/sandbox.md.")] = "auto",
    sandbox_workers: Annotated[
        int | None, typer.Option(min=1, help="Programs that run at the same time; by default one per core.")
    ] = None,
    judge_: Annotated[
        str | None, typer.Option("--judge", help="The model that marks by rubric:FILE: a folder or a server's address.")
    ] = None,
    pairwise: Annotated[
        bool, typer.Option("--pairwise", help="The model compares answers in pairs rather than giving points.")
    ] = False,
    meets: Annotated[int, typer.Option(min=1, help="With --pairwise: answers that follow, to compare with.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of what a model that judges says.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the pairs.")] = 0,
    batch: Annotated[int | None, typer.Option(min=1, help="Requests that an engine answers together.")] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    tensor_parallel: TensorParallelOption = 1,
    pipeline_parallel: PipelineParallelOption = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Engines of the model that judges, each in a process of its own.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Run the engines on a Ray cluster: auto or ray://HOST:PORT.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="A file with the server's API key; by default HERDLM_API_KEY or OPENAI_API_KEY.")
    ] = None,
    key_over_http: Annotated[
        bool, typer.Option("--key-over-http", help="Send the API key unencrypted to other machines, too.")
    ] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Judge answers by verifiers, reward models and models that judge, with 95% intervals."""
    from herdlm.align.samples.judge import JudgeOptions, judge_samples, parse_by
    from herdlm.align.samples.rows import is_samples
    from herdlm.align.samples.verify import VerifyOptions
    from herdlm.evaluate.engines import EngineOptions
    from herdlm.evaluate.remote import RemoteOptions

    if out is not None and out.exists():
        raise InputError(f"{out} exists", "Choose a new file")
    given = _options(options or [])
    if not is_samples(file):
        if by or verifier is None:
            raise InputError(f"{file} is a file of answers, not of samples", "Name what judges them with --verifier")
        _judge_answers(file, verifier, given, answer_key, reference_key, out, json_)
        return
    if verifier is not None:
        if by:
            raise InputError("--verifier and --by name judges", "Write --by verifier:NAME in place of --verifier")
        by = [f"verifier:{verifier}"]
    if reference_key is not None or answer_key != "answer":
        raise InputError(f"{file} is a file of samples, whose keys are known", "Remove --answer-key, --reference-key")
    if out is None:
        raise InputError("samples are judged into a new file", "Give --out")
    summary = judge_samples(
        file,
        parse_by(by or ()),
        out,
        JudgeOptions(
            VerifyOptions(None, given, tuple(own or ()), isolation, None, sandbox_workers),
            judge_,
            pairwise,
            meets,
            max_tokens,
            seed,
            batch,
        ),
        engine=EngineOptions(device, dtype, tensor_parallel, pipeline_parallel, workers, cluster),
        remote=RemoteOptions(key=api_key(key), key_over_http=key_over_http),
        quiet=quiet or json_,
    )
    if json_:
        say_json(summary)
        return
    _say_summary(summary)
    remark(f"Judged samples: {out}")


def _judge_answers(
    file: Path,
    verifier: str,
    options: dict[str, Any],
    answer_key: str,
    reference_key: str | None,
    out: Path | None,
    json_: bool,
) -> None:
    """Judge a file of answers by a verifier."""
    from dataclasses import asdict

    from herdlm.data.write import write_records
    from herdlm.evaluate.judge import judge_file, summarize, verdict_json
    from herdlm.verifiers.load import load_verifier

    with load_verifier(verifier, options) as judging:
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


def _say_summary(summary: dict[str, Any]) -> None:
    """What judged samples come to, a line each."""
    say(f"prompts  {summary['prompts']:,}, {summary['samples']:,} samples")
    titles = (("pass_rate", "pass rate", True), ("reward", "reward", False), ("judge", "share of points", True))
    for key, title, share in titles:
        if (found := summary.get(key)) is None:
            continue
        say(f"{title:24}  {_interval(found, share)}  of {found['samples']:,}")
        for name, part in (*found["by_task"].items(), *found["by_model"].items()):
            say(f"  {name or 'no task':22}  {_interval(part, share)}  of {part['samples']:,}")
    for k, found in summary.get("any_of", {}).items():
        say(f"any of {k:17}  {_interval(found, True)}")
    if left := summary.get("without_verifier"):
        say(f"{left:,} prompts have no verifier and got no verdict")
    if long := summary.get("too_long_for_reward"):
        say(f"{long:,} answers are too long for the reward model and got no reward")
    if asked := summary.get("asked"):
        say(f"{'agreement with itself':24}  {_interval(summary['agreement'], True)}  of {asked['both']:,}")
        unread = asked["asked"] - asked["too_long"] - asked["read"]
        say(f"  {unread:,} without a reply that can be read, {asked['too_long']:,} too long, {asked['tied']:,} ties")


def _interval(found: dict[str, Any], share: bool) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "unknown" if value is None else f"{value:.1%}" if share else f"{value:.3f}"
    form = ".1%" if share else ".3f"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


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
