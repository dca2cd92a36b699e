"""Benchmarks of multiple choice: likelihoods against logits by hand, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from herdlm.base.errors import DamagedError, InputError
from herdlm.evaluate.choices import ChoiceQuestion, choice_logprobs, read_choices
from herdlm.model.attention import DocumentAttention
from herdlm.model.transformer import Transformer
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT, Tokenizer
from tests.conftest import TEXT, small_model

QUESTIONS = [
    ChoiceQuestion("files", "The package manager installs", ("a package", "some disk space from the log", "it"), 0),
    ChoiceQuestion("files", TEXT * 2, ("a package", "a file"), 1),
    ChoiceQuestion("disks", "When the disk is full", ("the service stops", "we sleep"), 0),
    *(ChoiceQuestion("many", f"Question {i}:", ("yes", "no"), i % 2) for i in range(40)),
]


@torch.no_grad()
def by_hand(model: Transformer, tokenizer: Tokenizer, question: ChoiceQuestion, choice: str) -> float:
    before = [tokenizer.special(BEGIN_OF_TEXT), *tokenizer.encode(question.question)]
    tokens = torch.tensor([[*before, *tokenizer.encode(f" {choice}")]])
    hidden = model(tokens, torch.arange(tokens.shape[1])[None], DocumentAttention(torch.zeros_like(tokens)))
    logprobs = F.log_softmax(model.logits(hidden[0, :-1]).double(), -1)
    return float(logprobs.gather(1, tokens[0, 1:, None])[len(before) - 1 :].sum())


def test_likelihoods_are_those_of_each_choice_alone(tokenizer: Tokenizer) -> None:
    model = small_model(max_seq_len=128)
    found = choice_logprobs(model, tokenizer, QUESTIONS)
    assert found[1] is None  # too long for the model
    for question, values in zip(QUESTIONS, found, strict=True):
        if values is not None:
            expected = [by_hand(model, tokenizer, question, choice) for choice in question.choices]
            assert values.tolist() == pytest.approx(expected, abs=1e-4)
    assert choice_logprobs(model, tokenizer, QUESTIONS[1:2]) == [None]


def test_questions_are_read_from_lines(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    row = {"question": "Which?", "choices": ["this", "that"], "answer": 1}
    path.write_text(json.dumps(row) + "\n\n" + json.dumps(row | {"task": "arc"}) + "\n")
    assert [(q.task, q.choices, q.answer) for q in read_choices(path)] == [
        ("benchmark", ("this", "that"), 1),
        ("arc", ("this", "that"), 1),
    ]
    with pytest.raises(InputError, match="missing"):
        read_choices(tmp_path / "missing")
    for wrong in (
        {"answer": 2},
        {"answer": -1},
        {"answer": True},
        {"answer": "1"},
        {"choices": ["this"]},
        {"choices": ["this", ""]},
        {"choices": "this"},
        {"question": 3},
        {"task": ""},
    ):
        path.write_text(json.dumps(row) + "\n" + json.dumps(row | wrong) + "\n")
        with pytest.raises(DamagedError, match="line 2 is not a question with choices"):
            read_choices(path)
    for line in ("[1]", "{", "{}"):
        path.write_text(line + "\n")
        with pytest.raises(DamagedError, match="line 1"):
            read_choices(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no questions"):
        read_choices(path)
