"""Compares a model with a changed version of it, and writes the result as numbers and as a page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.base.artifact import InputEntry, write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.json_lines import write_json_lines
from herdlm.base.progress import Progress
from herdlm.base.standalone import input_folder, standalone
from herdlm.compare.data import ComparisonData, read_prompts, read_texts
from herdlm.compare.measure import AnswerSampling, Pair, Reward, compare_answers, compare_benchmarks, compare_text
from herdlm.evaluate.choices import read_choices
from herdlm.evaluate.perplexity import validation_batches
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.load import is_fp8, shape_of
from herdlm.generate.load import load_model, pick_device
from herdlm.model.folders import model_folder, model_name
from herdlm.model.weights import open_weights
from herdlm.plan.memory import Node, fit_table
from herdlm.report import format
from herdlm.report.comparison_page import PAGE, render_comparison_page
from herdlm.tokens.batch import Batch
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.shards import ShardWriter
from herdlm.tokens.tokenizer import Tokenizer

COMPARISON = "comparison.json"
ANSWERS = "answers.jsonl"
CONTEXT, CONCURRENCY = 8192, 16  # of the table of what fits a node


def compare(
    original: Path,
    changed: Path,
    out: Path,
    data: ComparisonData,
    *,
    sampling: AnswerSampling | None = None,
    prompts: int = 256,
    rows: int = 256,
    seq_len: int = 1024,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Publish a comparison of ``changed`` with ``original`` as the artifact ``out``.

    Args:
        original, changed: model folders, or runs, which mean their flagships. If ``original`` is a run, it supplies
            what is missing in ``data``.
        prompts: use the first of them, at most this many.
        rows: use this many rows of text at most, drawn at random.
        seq_len: tokens in a row of text; the model's context if that is shorter.

    Returns:
        The content of ``comparison.json``.

    Raises:
        InputError: ``out`` exists, there is nothing to compare on, or the models have different shapes or tokenizers.
        DamagedError: a file is damaged.
    """
    data, sampling = data.or_from_run(original), sampling or AnswerSampling()
    if not (data.text or data.prompts or data.benchmarks):
        raise InputError("there is nothing to compare on", "Give --text, --prompts or --benchmarks")
    if data.reward and not data.prompts:
        raise InputError("a reward model scores answers, and there are no prompts", "Give --prompts as well")
    folders = {"original": model_folder(original), "changed": model_folder(changed)}
    inputs: dict[str, InputEntry] = {role: input_folder(folder) for role, folder in folders.items()}
    given = {"text": data.text, "prompts": data.prompts, "reward": data.reward, "benchmarks": data.benchmarks}
    inputs |= {role: input_folder(path) for role, path in given.items() if path}
    settings = {**asdict(sampling), "prompts": prompts, "rows": rows, "seq_len": seq_len}
    with standalone(out, kind="comparison", name="compare", settings=settings, inputs=inputs, seed=sampling.seed) as (
        made,
        work,
        counts,
    ):
        result = write_comparison(
            made,
            work,
            folders["original"],
            folders["changed"],
            data,
            sampling=sampling,
            prompts=prompts,
            rows=rows,
            seq_len=seq_len,
            device=pick_device(device).type,
            quiet=quiet,
        )
        counts.update(headline(result))
    return result


def write_comparison(
    out: Path,
    work: Path,
    original: Path,
    changed: Path,
    data: ComparisonData,
    *,
    sampling: AnswerSampling,
    prompts: int,
    rows: int,
    seq_len: int,
    device: str,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure, and write comparison.json, comparison.html and, if there are prompts, answers.jsonl to ``out``."""
    _check_same(original, changed)
    with Progress("load", 2, "models", quiet=quiet) as progress:
        pair = Pair.load(original, changed, device=device)
        progress.advance(2)
    result: dict[str, Any] = {
        "original": _about(original),
        "changed": _about(changed),
        "text": None,
        "answers": None,
        "benchmarks": None,
        "fit": fit_table(
            [(model_name(original), shape_of(original))],
            Node(),
            context=CONTEXT,
            concurrency=CONCURRENCY,
            config=Fp8Config(),
        ),
    }
    if data.text:
        length = min(seq_len, pair.original.config.max_seq_len)
        batches = _batches(data.text, work, pair.format.tokenizer, length, rows)
        result["text"] = compare_text(pair, batches)
    if data.benchmarks:
        result["benchmarks"] = compare_benchmarks(pair, read_choices(data.benchmarks))
    if data.prompts:
        questions = read_prompts(data.prompts)[:prompts]
        reward = _reward(data.reward, device) if data.reward else None
        result["answers"], each = compare_answers(pair, questions, sampling, reward)
        write_json_lines(out / ANSWERS, each)
    write_text_durably(out / COMPARISON, json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    (out / PAGE).write_text(render_comparison_page(result), encoding="utf-8")
    return result


def headline(result: dict[str, Any]) -> dict[str, Any]:
    """The main figures, for the manifest and the log."""
    text, answers = result["text"], result["answers"]
    figures: dict[str, Any] = {
        "bytes_before": result["original"]["weight_bytes"],
        "bytes_after": result["changed"]["weight_bytes"],
    }
    if text:
        figures |= {
            "kl": text["kl"],
            "kl_p99": text["kl_p99"],
            "top1_agreement": text["top1_agreement"],
            "tokens": text["tokens"],
        }
    if (benchmarks := result["benchmarks"]) and (whole := benchmarks["tasks"].get("all")):
        figures["benchmark_difference"] = whole["difference"]
    if answers:
        figures |= {"prompts": answers["prompts"], "same_answers": answers["same_answers"]}
        if answers["reward"] and answers["reward"]["difference"]:
            figures["reward_difference"] = answers["reward"]["difference"]
    return figures


def lines(result: dict[str, Any]) -> list[str]:
    """A summary for the terminal."""
    before, after = (result[side]["weight_bytes"] for side in ("original", "changed"))
    out = [f"weights {format.size(after)} instead of {format.size(before)}"]
    if text := result["text"]:
        perplexity = text["perplexity"]
        out.append(
            f"text: KL {text['kl']:.2e} nats per token (p50 {text['kl_p50']:.1e}, p99 {text['kl_p99']:.1e}, max "
            f"{text['kl_max']:.1e}), same next token {text['top1_agreement']:.2%}, perplexity "
            f"{perplexity['original']:.4f} -> {perplexity['changed']:.4f}, {text['tokens']:,} tokens"
        )
    if benchmarks := result["benchmarks"]:
        out.append("benchmarks:" if benchmarks["tasks"] else "benchmarks: no question fits the model")
        out += [_pass_rates(name, task) for name, task in benchmarks["tasks"].items()]
    if answers := result["answers"]:
        out.append(f"answers: {answers['same_answers']:.1%} of {answers['prompts']:,} are the same")
        out += [_pass_rates(name, task) for name, task in answers["tasks"].items()]
        if (reward := answers["reward"]) and reward["difference"]:
            d = reward["difference"]
            out.append(f"reward: {d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f}) a prompt")
    return out


def _pass_rates(name: str, task: dict[str, Any]) -> str:
    d = task["difference"]
    return (
        f"  {name}: right {task['original']['value']:.1%} -> {task['changed']['value']:.1%}, difference "
        f"{100 * d['value']:+.1f} points ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})"
    )


def _batches(text: Path, work: Path, tokenizer: Tokenizer, seq_len: int, rows: int) -> list[Batch]:
    """Rows of a token shard, ``rows`` at most, drawn at random. Text is first made a shard in ``work``."""
    shard = text
    if not (text / "index.json").is_file():
        shard = work / "text"
        writer = ShardWriter(shard, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.content())
        begin, end = tokenizer.begin, tokenizer.end
        for content in read_texts(text):
            writer.add([*begin, *tokenizer.encode(content), end], text_bytes=len(content.encode()))
        writer.close()
    batches = validation_batches(shard, seq_len, tokenizer.pad, rows_per_batch=8, rows=rows)
    if not any(bool((batch.weights > 0).any()) for batch in batches):
        raise InputError(f"{text} holds no token to predict", "Give a longer text")
    return batches


def _check_same(original: Path, changed: Path) -> None:
    shapes = [shape_of(folder).model_dump(include={"vocab_size", "head"}) for folder in (original, changed)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{changed} has vocabulary and head {shapes[1]}, {original} {shapes[0]}",
            "Give two versions of the same model",
        )
    if shapes[0]["head"] != "lm":
        raise InputError(f"{original} is a reward model, which writes nothing", "Give language models")
    contents = [Tokenizer.load(folder).content() for folder in (original, changed)]
    if contents[0] != contents[1]:
        raise InputError(f"{original} and {changed} have different tokenizers", "Give models that share one")


def _about(folder: Path) -> dict[str, Any]:
    stored = open_weights(folder).values()
    return {
        "name": model_name(folder),
        "fp8": is_fp8(folder),
        "parameters": shape_of(folder).parameters,
        "weight_bytes": sum(tensor.count * tensor.dtype.itemsize for tensor in stored),
        "fp8_parameters": sum(tensor.count for tensor in stored if tensor.dtype.itemsize == 1),
    }


def _reward(folder: Path, device: str) -> Reward:
    if shape_of(folder).head != "score":
        raise InputError(
            f"{folder} is not a reward model", "Give a model whose head is score, as a stage round-N-reward makes"
        )
    return Reward(load_model(folder, device, "float32"), ChatFormat.load(folder))
