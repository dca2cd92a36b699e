"""Measure what a small model gains from a larger one that teaches it, at equal steps and from equal weights.

    python benchmarks/herd.py MODEL TEACHER --problems FILE --held-out FILE --questions FILE --heal FILE
        [--work runs/herd] [--layers 15] [--steps 20] [--out benchmarks/results]

MODEL is shrunk to some of its layers and healed: fine-tuned on the dialogs of --heal with MODEL as teacher. The result
is where all arms start. TEACHER is MODEL fine-tuned on worked word problems. The first --originals rows of --problems
are the worked problems that the small model has; of the next --prompts rows only question and number are known, and
TEACHER answers each --samples times. What has the right number is kept, without repeats. Every arm takes --steps steps
of the same size:

- alone: on the worked problems
- answers: on the worked problems and the teacher's kept answers
- logits: on the worked problems, half of the loss being the teacher's distribution
- both: on the data of "answers", with the loss of "logits"

Measured are the loss on the worked problems of --held-out and greedy answers to --questions, which no training read.
Differences from "alone" are over the same rows, with 95% intervals. A step that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from train import hardware

SEQ_LEN, ROWS, MAX_TOKENS = 512, 4, 64
ARMS = {
    "alone": (("originals",), False),
    "answers": (("originals", "kept"), False),
    "logits": (("originals",), True),
    "both": (("originals", "kept"), True),
}


class Steps:
    """The steps of a run in a folder: each is taken once, and its result and CPU time are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.cpu: dict[str, float] = {}

    def take(self, name: str, act: Callable[[], Any]) -> Any:
        """The result of the step ``name``, which ``act`` computes if there is none yet."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            before = cpu_seconds()
            made = {"result": act(), "cpu_seconds": 0.0}
            made["cpu_seconds"] = round(cpu_seconds() - before, 1)
            path.write_text(json.dumps(made), encoding="utf-8")
        stored = json.loads(path.read_text(encoding="utf-8"))
        self.cpu[name] = stored["cpu_seconds"]
        print(f"{name}: {stored['cpu_seconds']} CPU-seconds", flush=True)
        return stored["result"]


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def herdlm(*arguments: object) -> dict[str, Any]:
    """Run a command, as a user would; returns what it prints as JSON."""
    command = [sys.executable, "-m", "herdlm.cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def tune(
    model: Path, out: Path, data: list[Path], steps: int, given: argparse.Namespace, *more: object
) -> dict[str, Any]:
    """Fine-tune ``model`` for so many steps."""
    files = [part for path in data for part in ("--data", path)]
    size = ("--seq-len", SEQ_LEN, "--rows-per-step", ROWS, "--steps", steps, "--threads", given.threads)
    return herdlm("sft", model, *files, "--out", out, *size, "--seed", given.seed, *more)


def write_rows(path: Path, rows: list[Any]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def ask(folder: Path, prompts: list[Any], *, samples: int, temperature: float, seed: int) -> list[list[str]]:
    """A model's answers to each prompt."""
    from herdlm.evaluate.engines import EngineOptions
    from herdlm.evaluate.local import LocalModel
    from herdlm.evaluate.requests import AnswerRequest, Question

    model = LocalModel(folder, EngineOptions(page=16))
    requests = [
        AnswerRequest(
            Question(messages=tuple(prompt["prompt"])),
            MAX_TOKENS,
            temperature=temperature,
            samples=samples,
            seed=seed + i,
        )
        for i, prompt in enumerate(prompts)
    ]
    found = dict(model.answer(requests))
    return [[answer.text for answer in found[i]] for i in range(len(prompts))]


def kept_answers(prompts: list[Any], answers: list[list[str]], most: int) -> list[dict[str, Any]]:
    """Dialogs of the answers with the right number, at most so many different ones to a prompt."""
    from herdlm.verifiers.load import load_verifier

    verify = load_verifier("number")
    kept = []
    for prompt, given in zip(prompts, answers, strict=True):
        right = dict.fromkeys(text for text in given if verify(text, prompt["answer"]).passed)
        kept += [
            {"messages": [*prompt["prompt"], {"role": "assistant", "content": text}]} for text in list(right)[:most]
        ]
    return kept


def right_answers(folder: Path, prompts: list[Any], seed: int) -> list[bool]:
    """Whether a model's greedy answer to each prompt has the right number."""
    from herdlm.verifiers.load import load_verifier

    verify, answers = load_verifier("number"), ask(folder, prompts, samples=1, temperature=0.0, seed=seed)
    return [verify(given[0], prompt["answer"]).passed for prompt, given in zip(prompts, answers, strict=True)]


def held_out_losses(folder: Path, dialogs: list[Any]) -> dict[str, list[float]]:
    """Nats and targets by dialog."""
    from herdlm.align.dialog_loss import dialog_losses
    from herdlm.model.hf import load_for_training
    from herdlm.tokens.chat_format import ChatFormat
    from herdlm.tokens.dialogs import dialog_piece

    format, model = ChatFormat.load(folder), load_for_training(folder)
    pieces = [dialog_piece(format, dialog) for dialog in dialogs]
    losses = dialog_losses(model, pieces, seq_len=SEQ_LEN, pad=format.pad, rows_at_once=8, precision="bfloat16")
    return asdict(losses)


def figures(losses: dict[str, Any], right: dict[str, list[bool]], against: str) -> dict[str, Any]:
    """Each model's loss and share of right answers, and the arms' differences from the arm ``against``."""
    from herdlm.align.dialog_loss import DialogLosses, loss_change, mean_loss
    from herdlm.evaluate.intervals import paired_difference, pass_rate

    read = {name: DialogLosses(**each) for name, each in losses.items()}
    made: dict[str, Any] = {}
    for name in losses:
        made[name] = {"loss": asdict(mean_loss(read[name]))}
        if name in right:
            made[name]["right"] = asdict(pass_rate(right[name]))
        if name in ARMS and name != against:
            made[name]["loss_difference"] = asdict(loss_change(read[against], read[name]))
            made[name]["right_difference"] = asdict(paired_difference(right[against], right[name]))
    return made


def measure(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Take all steps; returns the figures."""
    from herdlm.data.read import read_dialogs, read_prompts
    from herdlm.data.source import Source

    work, rate = given.work, ("--peak-lr", given.peak_lr)
    dialogs, prompts = (read([Source(given.problems)])[0] for read in (read_dialogs, read_prompts))
    numbers = {prompt["prompt"][0]["content"]: prompt for prompt in prompts}
    others = dialogs[given.originals : given.originals + given.prompts]
    asked = [numbers[dialog["messages"][0]["content"]] for dialog in others]
    held_out = read_dialogs([Source(given.held_out)])[0][: given.most_held_out]
    questions = read_prompts([Source(given.questions)])[0][: given.most_questions]
    data = {name: work / f"{name}.jsonl" for name in ("originals", "kept")}
    write_rows(data["originals"], dialogs[: given.originals])

    how = ["--data", given.influence] if given.influence else []
    shrunk = steps.take(
        "shrink", lambda: herdlm("shrink", given.model, "--layers", given.layers, "--out", work / "shrunk", *how)
    )
    healing = ("--teacher", given.model, "--distill", given.heal_weight, "--peak-lr", given.heal_lr)
    steps.take("heal", lambda: tune(work / "shrunk", work / "healed", given.heal, given.heal_steps, given, *healing))
    answers = steps.take(
        "samples",
        lambda: ask(given.teacher, asked, samples=given.samples, temperature=given.temperature, seed=given.seed),
    )
    kept = kept_answers(asked, answers, given.most)
    write_rows(data["kept"], kept)
    trained = {}
    for arm, (parts, taught) in ARMS.items():
        teacher = ("--teacher", given.teacher, "--distill", given.weight) if taught else ()
        files = [data[part] for part in parts]
        trained[arm] = steps.take(
            arm, lambda a=arm, f=files, t=teacher: tune(work / "healed", work / a, f, given.steps, given, *rate, *t)
        )
    folders = {"teacher": given.teacher, "shrunk": work / "shrunk", "healed": work / "healed"}
    folders |= {arm: work / arm for arm in ARMS}
    losses, right = {}, {}
    for name, folder in folders.items():
        losses[name] = steps.take(f"loss-{name}", lambda f=folder: held_out_losses(f, held_out))
    for name, folder in folders.items():
        if name != "shrunk":  # which writes no words
            right[name] = steps.take(f"right-{name}", lambda f=folder: right_answers(f, questions, given.seed))
    return {
        "layers": shrunk["layers"],
        "parameters": {"model": shrunk["parameters_before"], "small": shrunk["parameters"]},
        "data": {
            "worked problems": given.originals,
            "prompts": len(asked),
            "prompts with a right answer": len({row["messages"][0]["content"] for row in kept}),
            "kept answers": len(kept),
            "held-out problems": len(held_out),
            "questions": len(questions),
        },
        "models": figures(losses, right, "alone"),
        "last_training_loss": {arm: each["last_loss"] for arm, each in trained.items()},
        "cpu_seconds": steps.cpu,
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("teacher", type=Path)
    for name in ("problems", "held-out", "questions"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="word problems with equations or answers")
    parser.add_argument("--heal", type=Path, nargs="+", required=True, help="dialogs")
    parser.add_argument("--influence", type=Path, help="text by which to choose layers; default: spread evenly")
    parser.add_argument("--work", type=Path, default=Path("runs/herd"))
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--heal-steps", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20, help="of each arm, of four rows of 512 tokens")
    parser.add_argument("--originals", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=250)
    parser.add_argument("--most-questions", type=int, default=200)
    parser.add_argument("--most-held-out", type=int, default=150)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--most", type=int, default=2, help="kept answers to a prompt")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--weight", type=float, default=0.5, help="the teacher's share of the loss")
    parser.add_argument("--peak-lr", type=float, default=5e-4)
    parser.add_argument("--heal-weight", type=float, default=0.8)
    parser.add_argument("--heal-lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the comparison and write its results."""
    given = parse()
    import torch

    torch.set_num_threads(given.threads)
    steps = Steps(given.work)
    result = measure(given, steps)
    names = {
        name: [Path(each).name for each in value] if isinstance(value, list) else value
        for name, value in vars(given).items()
    }
    options = {name: value.name if isinstance(value, Path) else value for name, value in names.items() if name != "out"}
    day = datetime.now(UTC).date().isoformat()
    result = {"date": day, "hardware": hardware(given.threads), "options": options, **result}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"herd-cpu-{day}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, each in result["models"].items():
        print(name, *(f"{figure} {value['value']:.4f}" for figure, value in each.items()))
    print(f"{sum(steps.cpu.values()):.0f} CPU-seconds")


if __name__ == "__main__":
    main()
