"""`herdlm compare`, and the stage of a run that does the same: a damage report as numbers and as a page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from herdlm.align.bank.tasks import Question
from herdlm.base.artefact import InputEntry, require_file, write_text_durably
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.progress import Progress
from herdlm.base.standalone import input_folder, standalone
from herdlm.compare.measure import AnswerSampling, Pair, Reward, compare_answers, compare_benchmarks, compare_text
from herdlm.evaluate.choices import read_choices
from herdlm.evaluate.perplexity import validation_batches
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.linear import is_fp8, shape_of
from herdlm.generate.load import load_model, pick_device
from herdlm.model.folders import model_folder, model_name
from herdlm.model.weights import open_weights
from herdlm.plan.memory import Node, fit_table
from herdlm.report import format
from herdlm.report.comparison_page import PAGE, render_comparison_page
from herdlm.tokens.batch import Batch
from herdlm.tokens.dialogs import write_jsonl
from herdlm.tokens.documents import read_documents
from herdlm.tokens.shards import ShardWriter
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, PAD, Tokenizer

COMPARISON = "comparison.json"
ANSWERS = "answers.jsonl"
CONTEXT, CONCURRENCY = 8192, 16  # of the will-it-fit table


@dataclass(frozen=True, slots=True)
class ComparisonData:
    """What models are compared on, any of which may lack.

    A token shard or a file of text, prompts, a reward model's folder, a file of benchmark questions.
    """

    text: Path | None = None
    prompts: Path | None = None
    reward: Path | None = None
    benchmarks: Path | None = None

    def or_of_run(self, run: Path) -> ComparisonData:
        """What a run has, where nothing was given: its validation text, held-out questions, last reward model."""
        if not (run / "recipe.json").is_file():
            return self
        stages = run / "stages"
        rewards = sorted(stages.glob("round-*-reward"), key=lambda path: int(path.name.split("-")[1]))
        text, prompts = stages / "tokens" / "web-validation", stages / "bank" / "held_out.jsonl"
        return ComparisonData(
            self.text or (text if text.is_dir() else None),
            self.prompts or (prompts if prompts.is_file() else None),
            self.reward or (rewards[-1] if rewards else None),
            self.benchmarks,
        )


def compare(
    original: Path,
    changed: Path,
    out: Path,
    material: ComparisonData,
    *,
    sampling: AnswerSampling | None = None,
    prompts: int = 256,
    rows: int = 256,
    seq_len: int = 1024,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Publish a damage report of ``changed`` against ``original`` as the artefact ``out``; returns what it tells.

    Args:
        original, changed: model folders, or runs whose flagships are meant. Where ``original`` is a run, it gives the
            material that is not given.
        prompts: at most so many of them, the first.
        rows: at most so many rows of text, drawn at random.
        seq_len: tokens of a row of text; the model's context where that is shorter.

    Raises:
        InputError: ``out`` exists, there is nothing to compare on, or models do not belong together.
        DamagedError: a file is damaged.
    """
    material, sampling = material.or_of_run(original), sampling or AnswerSampling()
    if not (material.text or material.prompts or material.benchmarks):
        raise InputError("there is nothing to compare on", "Give --text, --prompts or --benchmarks")
    if material.reward and not material.prompts:
        raise InputError("a reward model scores answers, and there are no prompts", "Give --prompts too")
    folders = {"original": model_folder(original), "changed": model_folder(changed)}
    inputs: dict[str, InputEntry] = {role: input_folder(folder) for role, folder in folders.items()}
    given = {
        "text": material.text,
        "prompts": material.prompts,
        "reward": material.reward,
        "benchmarks": material.benchmarks,
    }
    inputs |= {role: input_folder(path) for role, path in given.items() if path}
    settings = {**asdict(sampling), "prompts": prompts, "rows": rows, "seq_len": seq_len}
    with standalone(out, kind="comparison", name="compare", settings=settings, inputs=inputs, seed=sampling.seed) as (
        made,
        work,
        counts,
    ):
        told = write_comparison(
            made,
            work,
            folders["original"],
            folders["changed"],
            material,
            sampling=sampling,
            prompts=prompts,
            rows=rows,
            seq_len=seq_len,
            device=pick_device(device).type,
            quiet=quiet,
        )
        counts.update(headline(told))
    return told


def write_comparison(
    out: Path,
    work: Path,
    original: Path,
    changed: Path,
    material: ComparisonData,
    *,
    sampling: AnswerSampling,
    prompts: int,
    rows: int,
    seq_len: int,
    device: str,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure and write comparison.json, comparison.html and, where there are prompts, answers.jsonl into ``out``."""
    _check_same(original, changed)
    with Progress("load", 2, "models", quiet=quiet) as progress:
        pair = Pair.load(original, changed, device=device)
        progress.advance(2)
    told: dict[str, Any] = {
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
    if material.text:
        length = min(seq_len, pair.original.config.max_seq_len)
        batches = _batches(material.text, work, pair.tokenizer, length, rows)
        told["text"] = compare_text(pair, batches)
    if material.benchmarks:
        told["benchmarks"] = compare_benchmarks(pair, read_choices(material.benchmarks))
    if material.prompts:
        questions = read_prompts(material.prompts)[:prompts]
        reward = _reward(material.reward, device) if material.reward else None
        told["answers"], each = compare_answers(pair, questions, sampling, reward)
        write_jsonl(out / ANSWERS, each)
    write_text_durably(out / COMPARISON, json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    (out / PAGE).write_text(render_comparison_page(told), encoding="utf-8")
    return told


def headline(told: dict[str, Any]) -> dict[str, Any]:
    """The few figures that a manifest and a log tell."""
    text, answers = told["text"], told["answers"]
    found: dict[str, Any] = {
        "bytes_before": told["original"]["weight_bytes"],
        "bytes_after": told["changed"]["weight_bytes"],
    }
    if text:
        found |= {
            "kl": text["kl"],
            "kl_p99": text["kl_p99"],
            "top1_agreement": text["top1_agreement"],
            "tokens": text["tokens"],
        }
    if (benchmarks := told["benchmarks"]) and (whole := benchmarks["tasks"].get("all")):
        found["benchmark_difference"] = whole["difference"]
    if answers:
        found |= {"prompts": answers["prompts"], "same_answers": answers["same_answers"]}
        if answers["reward"] and answers["reward"]["difference"]:
            found["reward_difference"] = answers["reward"]["difference"]
    return found


def lines(told: dict[str, Any]) -> list[str]:
    """The report in short, for people at a terminal."""
    before, after = (told[side]["weight_bytes"] for side in ("original", "changed"))
    out = [f"weights {format.size(after)} instead of {format.size(before)}"]
    if text := told["text"]:
        perplexity = text["perplexity"]
        out.append(
            f"text: KL {text['kl']:.2e} nats per token (p50 {text['kl_p50']:.1e}, p99 {text['kl_p99']:.1e}, max "
            f"{text['kl_max']:.1e}), same next token {text['top1_agreement']:.2%}, perplexity "
            f"{perplexity['original']:.4f} -> {perplexity['changed']:.4f}, {text['tokens']:,} tokens"
        )
    if benchmarks := told["benchmarks"]:
        out.append("benchmarks:" if benchmarks["tasks"] else "benchmarks: no question fits the model")
        out += [_right(name, task) for name, task in benchmarks["tasks"].items()]
    if answers := told["answers"]:
        out.append(f"answers: {answers['same_answers']:.1%} of {answers['prompts']:,} are the same")
        out += [_right(name, task) for name, task in answers["tasks"].items()]
        if (reward := answers["reward"]) and reward["difference"]:
            d = reward["difference"]
            out.append(f"reward: {d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f}) a prompt")
    return out


def _right(name: str, task: dict[str, Any]) -> str:
    d = task["difference"]
    return (
        f"  {name}: right {task['original']['value']:.1%} -> {task['changed']['value']:.1%}, difference "
        f"{100 * d['value']:+.1f} points ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})"
    )


def read_prompts(path: Path) -> list[Question]:
    """Prompts from JSON Lines: ``prompt``, and where answers are to be checked ``answer`` and ``task``.

    Raises:
        InputError: the file is missing or empty.
        DamagedError: a line is not such a row.
    """
    found = []
    for number, line in enumerate(require_file(path, "file of prompts").read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DamagedError(f"{path}, line {number} is not JSON: {error}", "Mend that line") from error
        values = {key: row.get(key, "") for key in ("task", "prompt", "answer")} if isinstance(row, dict) else {}
        if not values.get("prompt") or not all(isinstance(value, str) for value in values.values()):
            raise DamagedError(f"{path}, line {number} has no prompt", 'Write {"prompt": "..."} on each line')
        found.append(Question(values["task"] or "prompts", values["prompt"], values["answer"]))
    if not found:
        raise InputError(f"{path} holds no prompts", "Give one or more")
    return found


def read_texts(path: Path) -> list[str]:
    """Texts of a Parquet file or folder of documents, of JSON Lines with ``text``, or one whole plain file.

    Raises:
        InputError: there is no text.
        DamagedError: a file is not what its name says.
    """
    if path.is_dir() or path.suffix == ".parquet":
        texts = [document.text for document in read_documents(path)]
    elif require_file(path, "file of text").suffix == ".jsonl":
        texts = [_text_of(path, number, line) for number, line in enumerate(path.open(encoding="utf-8"), 1)]
    else:
        try:
            texts = [path.read_text(encoding="utf-8")]
        except UnicodeDecodeError as error:
            raise DamagedError(f"{path} is not UTF-8 text: {error}", "Convert it") from error
    if not any(text.strip() for text in texts):
        raise InputError(f"{path} holds no text", "Give a file with text")
    return texts


def _text_of(path: Path, number: int, line: str) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}, line {number} has no text ({error!r})", 'Write {"text": "..."}') from error


def _batches(text: Path, work: Path, tokenizer: Tokenizer, seq_len: int, rows: int) -> list[Batch]:
    """Rows of text, at most ``rows`` drawn at random: from a token shard, or from text that is made one."""
    shard = text
    if not (text / "index.json").is_file():
        shard = work / "text"
        writer = ShardWriter(shard, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.content())
        begin, end = tokenizer.special(BEGIN_OF_TEXT), tokenizer.special(END_OF_TEXT)
        for content in read_texts(text):
            writer.add([begin, *tokenizer.encode(content), end], text_bytes=len(content.encode()))
        writer.close()
    batches = validation_batches(shard, seq_len, tokenizer.special(PAD), rows_per_batch=8, rows=rows)
    if not any(bool((batch.weights > 0).any()) for batch in batches):
        raise InputError(f"{text} holds no token to predict", "Give more text")
    return batches


def _check_same(original: Path, changed: Path) -> None:
    shapes = [shape_of(folder).model_dump(include={"vocab_size", "head"}) for folder in (original, changed)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{changed} has vocabulary and head {shapes[1]}, {original} {shapes[0]}",
            "Compare a model with one made from it",
        )
    if shapes[0]["head"] != "lm":
        raise InputError(f"{original} is a reward model, which writes nothing", "Compare language models")
    contents = [Tokenizer.load(folder).content() for folder in (original, changed)]
    if contents[0] != contents[1]:
        raise InputError(f"{original} and {changed} have different tokenizers", "Compare models that share one")


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
        raise InputError(f"{folder} is no reward model", "Give a model with a score for a head")
    return Reward(load_model(folder, device, "float32"), Tokenizer.load(folder))
