"""A small model in float64, in which no rounding decides what is drawn, and files of prompts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from herdlm.model.hf import save_folder
from tests.conftest import small_model

Write = Callable[[list[dict[str, Any]]], Path]


@pytest.fixture(scope="session")
def exact(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A model folder."""
    folder = tmp_path_factory.mktemp("models") / "exact"
    save_folder(small_model(seed=5).double(), folder, dtype=torch.float64)
    tokenizer.save(folder)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes prompts into a file."""

    def written(lines: list[dict[str, Any]]) -> Path:
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    return written


def mixed(count: int) -> list[dict[str, Any]]:
    """Prompts of every kind."""
    kinds: list[dict[str, Any]] = [
        {"prompt": "the cow says"},
        {"messages": [{"role": "system", "content": "moo"}, {"role": "user", "content": "how are you"}], "n": 2},
        {"prompt": "é🐄", "max_tokens": 5, "logprobs": True, "top_logprobs": 2, "prompt_logprobs": True},
        {"prompt": "a", "grammar": {"regex": "[a-f]{3,9}"}, "temperature": 1.5},
        {"prompt": "b", "n": 1, "best_of": 3, "stop": "e", "min_tokens": 2, "seed": 7},
        {"prompt": "c", "repetition_penalty": 1.2, "logit_bias": {"70": 3.0}, "stop_tokens": [80], "temperature": 0.0},
    ]
    return [{**kinds[i % len(kinds)], "id": f"p{i}"} for i in range(count)]
