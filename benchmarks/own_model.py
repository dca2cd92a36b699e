"""Measure what fine-tuning a real model on files of one's own changes, and what it must not make the model forget.

    python benchmarks/own_model.py MODEL --choices FOLDER [--work runs/own] [--share 1.0] [--out benchmarks/results]

Runs the commands of docs/own-model.md on the files of sample/own: supervised fine-tuning on short instructions and
worked problems, a reward model, DPO, quantization to FP8. Then it measures every model on rows that no training read:
word problems by greedy answers, pairs by the log-probability of chosen over rejected, and the multiple-choice items of
ARC-easy and PIQA by the likelihood of each choice. Differences from the first model are over the same rows, with 95%
intervals.

MODEL is an imported folder, such as SmolLM2-135M-Instruct. ``--choices`` holds ``arc-easy.jsonl`` and ``piqa.jsonl``
with the keys ``query``, ``choices`` and ``gold``; without it these two are not measured. ``--share`` below 1 shortens
everything, to try the script.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from versions import version

ROOT = Path(__file__).parents[1]
DATA = ROOT / "sample" / "own"
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
MOST_CHOICES = 500


def run(name: str, *arguments: str) -> float:
    """Run one command, as a user would; returns its seconds."""
    command = [sys.executable, "-m", "herdlm.cli", *arguments]
    print("$ herdlm", *arguments, flush=True)
    started = time.monotonic()
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"{name} failed with exit code {done.returncode}")
    return time.monotonic() - started


def train_all(model: Path, work: Path, share: float, threads: int) -> dict[str, float]:
    """The commands of docs/own-model.md; seconds of each."""
    common = ("--threads", str(threads), "--quiet")
    problems, chats, pairs = (str(DATA / n) for n in ("word-problems.csv", "instructions.json", "preferences.json"))
    held = {"sft": "instructions-held-out.json", "pairs": "preferences-held-out.json"}
    if share < 1:
        problems, chats, pairs = (f"{path}:{share}" for path in (problems, chats, pairs))
    steps = {
        "sft": (
            *("sft", str(model), "--data", problems, "--data", chats, "--held-out", str(DATA / held["sft"])),
            *("--epochs", "1", "--seq-len", "512"),
        ),
        "reward": ("reward", str(work / "sft"), "--data", pairs, "--held-out", str(DATA / held["pairs"])),
        "dpo": ("dpo", str(work / "sft"), "--data", pairs, "--held-out", str(DATA / held["pairs"])),
        "fp8": ("quantize", str(work / "dpo")),
    }
    seconds = {}
    for name, arguments in steps.items():
        if not (work / name).exists():
            options = ("--quiet",) if name == "fp8" else common
            seconds[name] = run(name, *arguments, "--out", str(work / name), *options)
    return seconds


def word_problems(folder: Path, share: float) -> list[bool]:
    """Whether the greedy answer to each held-out problem ends in the right number."""
    from herdlm.data.read import read_prompts
    from herdlm.data.source import parse_source
    from herdlm.generate import Engine, SamplingParams
    from herdlm.tokens.chat_format import ChatFormat

    format = ChatFormat.load(folder)
    rows, _ = read_prompts([parse_source(str(DATA / "word-problems-held-out.csv"))])
    rows = rows[: max(int(len(rows) * share), 8)]
    engine = Engine.load(folder, device="cpu")
    params = SamplingParams(max_tokens=128, temperature=0, stop_tokens=format.stop_tokens)
    answers = engine.generate([format.prompt(row["prompt"]) for row in rows], params)
    return [_is(row["answer"], answer.text) for row, (answer,) in zip(rows, answers, strict=True)]


def _is(answer: str, text: str) -> bool:
    numbers = NUMBER.findall(text)
    return bool(numbers) and abs(float(numbers[-1].replace(",", "")) - float(answer)) < 1e-4 * max(
        1, abs(float(answer))
    )


def preferences(folder: Path) -> list[bool]:
    """Whether the chosen answer of each held-out pair has the higher log-probability per token."""
    from herdlm.data.read import read_preferences
    from herdlm.data.source import parse_source
    from herdlm.evaluate.forward import token_logprobs
    from herdlm.generate.load import load_model
    from herdlm.tokens.chat_format import ChatFormat
    from herdlm.tokens.preferences import PreferenceBatches

    format, model = ChatFormat.load(folder), load_model(folder, "cpu", "float32")
    pairs, _ = read_preferences([parse_source(str(DATA / "preferences-held-out.json"))])
    batches = PreferenceBatches(format, pairs, seq_len=512, pairs_per_step=8, epochs=1, seed=0, mask_formatting=False)
    better = []
    for first in range(0, len(pairs), 8):
        batch = batches.batch(range(first, min(first + 8, len(pairs))))
        (logprobs,) = token_logprobs(model, [batch])
        documents = batch.documents.numpy().ravel()
        weights = batch.weights.numpy().ravel()
        sums = np.bincount(documents, logprobs.numpy().ravel() * (weights > 0))
        means = sums / np.maximum(np.bincount(documents, weights > 0), 1)
        better += (means[batch.columns["chosen"].numpy()] > means[batch.columns["rejected"].numpy()]).tolist()
    return better


def multiple_choice(folder: Path, path: Path, most: int) -> list[bool]:
    """Whether each question's right choice is the likeliest per byte, as lm-eval's ``acc_norm``."""
    from herdlm.evaluate.choices import ChoiceQuestion, choice_logprobs
    from herdlm.generate.load import load_model
    from herdlm.tokens.tokenizer import Tokenizer

    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][:most]
    questions = [
        ChoiceQuestion(path.stem, f"{row['query'].rstrip()}\nAnswer:", tuple(row["choices"]), row["gold"])
        for row in rows
    ]
    scores = choice_logprobs(load_model(folder, "cpu", "auto"), Tokenizer.load(folder), questions)
    right = []
    for question, values in zip(questions, scores, strict=True):
        assert values is not None, "a question exceeds the context"
        sizes = np.array([len(choice.encode()) for choice in question.choices])
        right.append(int((values / sizes).argmax()) == question.answer)
    return right


def measure(
    models: dict[str, Path], choices: Path | None, share: float, kept: Path
) -> dict[str, dict[str, list[bool]]]:
    """Every measure of every model, row by row. A model that the folder ``kept`` has rows of is not measured again."""
    found: dict[str, dict[str, list[bool]]] = {}
    for name, folder in models.items():
        started, file = time.monotonic(), kept / f"{name}.json"
        if file.is_file():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
            continue
        found[name] = {"word problems": word_problems(folder, share)}
        if name != "fp8":  # whose products this measure does not need
            found[name]["preferences"] = preferences(folder)
        for path in sorted(choices.glob("*.jsonl")) if choices else []:
            if path.stem in ("arc-easy", "piqa"):
                found[name][path.stem] = multiple_choice(folder, path, max(int(MOST_CHOICES * share), 20))
        kept.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found[name]), encoding="utf-8")
        shares = {key: round(sum(rows) / len(rows), 4) for key, rows in found[name].items()}
        print(f"{name}: {shares} in {time.monotonic() - started:.0f} s", flush=True)
    return found


def summary(rows: dict[str, dict[str, list[bool]]], first: str) -> dict[str, Any]:
    """Rates with intervals, and differences from the model ``first`` over the same rows."""
    from herdlm.evaluate.intervals import paired_difference, pass_rate

    table: dict[str, Any] = {}
    for name, measures in rows.items():
        for key, right in measures.items():
            entry = table.setdefault(key, {"rows": len(right)})
            entry[name] = asdict(pass_rate(right))
            if name != first:
                before = rows[first][key][: len(right)]
                entry[name]["difference"] = asdict(paired_difference(before, right))
    return table


def lines(table: dict[str, Any]) -> list[str]:
    """The summary as text."""
    shown = []
    for key, entry in table.items():
        shown.append(f"{key} ({entry['rows']} rows)")
        for name, value in entry.items():
            if name == "rows":
                continue
            line = f"  {name:7} {100 * value['value']:5.1f}% [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
            if "difference" in value:
                d = value["difference"]
                line += f", {100 * d['value']:+.1f} points [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
            shown.append(line)
    return shown


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--choices", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/own"))
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    seconds = train_all(options.model, options.work, options.share, options.threads)
    models = {"before": options.model} | {name: options.work / name for name in ("sft", "dpo", "fp8")}
    table = summary(measure(models, options.choices, options.share, options.work / "measures"), "before")
    print("\n".join(lines(table)))
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine(),
        "threads": options.threads,
        "versions": {name: version(name) for name in ("herdlm", "torch")},
        "model": options.model.name,
        "share": options.share,
        "seconds": {**seconds, "all": time.monotonic() - started},
        "measures": table,
    }
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"own-model-{datetime.now(UTC):%Y-%m-%d}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
