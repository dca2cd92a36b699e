"""A tiny model that chats, a tiny reward model, and a file of prompts."""

import json

import pytest

from herdlm.model.hf import save_folder
from tests.conftest import small_model

PROMPTS = [
    {"prompt": f"What is {n} and {n}?", "answer": str(2 * n), "verifier": "number", "task": "sums", "source": "made"}
    for n in range(5)
] + [
    {"prompt": "Say a word without e.", "verifier": "regex", "options": {"pattern": "^[^e]*$"}, "task": "words"},
    {"prompt": [{"role": "system", "content": "Moo."}, {"role": "user", "content": "How is the cow?"}], "note": "kept"},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def models(tmp_path_factory, tokenizer):
    """Folders of models: first, second, and reward."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, changes) in enumerate({"first": {}, "second": {}, "reward": {"head": "score"}}.items()):
        save_folder(small_model(seed=seed, **changes), folder / name)
        tokenizer.save(folder / name)
    return folder


@pytest.fixture(scope="session")
def prompts(tmp_path_factory):
    return write(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", PROMPTS)


def sampled(answers, **row):
    """A row of samples with these answers."""
    return {
        "id": "a",
        "prompt": [{"role": "user", "content": "What is 2 and 2?"}],
        "task": "sums",
        "samples": [
            {"answer": text, "model": "m", "temperature": 1.0, "finish": "stop", "tokens": 3, "logprob": -1.0}
            for text in answers
        ],
        **row,
    }
