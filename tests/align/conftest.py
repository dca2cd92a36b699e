"""A small chat model, and small files of dialogs and pairs."""

import json
import random
from pathlib import Path

import pytest

from herdlm.model.hf import save_folder
from herdlm.tokens.chat_format import generation_settings
from tests.conftest import small_model

WORDS = ["package", "file", "server", "disk", "log", "user", "archive", "space"]
SMALL = ("--seq-len", "128", "--set", "train.precision=float32", "--set", "track.tensorboard='off'", "--threads", "1")


def words(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


def write_lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def dialogs(seed, count):
    """Dialogs of which some have two answers, a weight, or a system prompt."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        said = [
            {"role": "user", "content": f"{words(rng, 3)} {seed} {number}"},
            {"role": "assistant", "content": words(rng, 4)},
        ]
        if number % 3 == 0:
            said += [
                {"role": "user", "content": "again"},
                {"role": "assistant", "content": words(rng, 2), "weight": 0.5},
            ]
        if number % 4 == 0:
            said.insert(0, {"role": "system", "content": words(rng, 2)})
        rows.append({"messages": said})
    return rows


def pairs(seed, count):
    """Pairs whose chosen answer says please."""
    rng = random.Random(seed)
    return [
        {
            "prompt": f"{words(rng, 2)} {seed} {number}",
            "chosen": f"please {words(rng, 2)}",
            "rejected": words(rng, 1 + number % 4),
            "rating": "better" if number % 2 else "much better",
        }
        for number in range(count)
    ]


def prompts(seed, count, letters="ae"):
    """Prompts that an answer with a letter satisfies: a model of random weights finds some."""
    rng = random.Random(seed)
    verifier = "tests.align.checkable:has"
    return [
        {"prompt": f"{words(rng, 2)} {seed} {number}", "answer": rng.choice(letters), "verifier": verifier}
        for number in range(count)
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tokenizer):
    """Models and files: base, teacher (deeper); chats.jsonl, pairs.jsonl and prompts.jsonl, each with a test file."""
    folder = tmp_path_factory.mktemp("align")
    for name, model in (("base", small_model()), ("teacher", small_model(7, layers=3))):
        (folder / name).mkdir()
        tokenizer.save(folder / name)
        save_folder(model, folder / name, generation=generation_settings(folder / name))
    write_lines(folder / "chats.jsonl", dialogs(0, 40))
    write_lines(folder / "test-chats.jsonl", dialogs(1, 12))
    write_lines(folder / "pairs.jsonl", pairs(0, 24))
    write_lines(folder / "test-pairs.jsonl", pairs(1, 12))
    write_lines(folder / "prompts.jsonl", prompts(0, 40))
    write_lines(folder / "test-prompts.jsonl", prompts(1, 20))
    return folder
