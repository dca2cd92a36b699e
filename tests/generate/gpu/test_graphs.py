"""What recorded steps read, and how batches are filled up; nothing of it needs a GPU."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from herdlm.generate.gpu.graphs import DecodeGraphs, Work, batch_sizes, graph_bytes
from herdlm.generate.paged_attention import PagedCache
from herdlm.model.config import ModelConfig

CONFIG = ModelConfig(vocab_size=11, dim=8, layers=1, heads=2, kv_heads=1, ffn_dim=8, max_seq_len=64)


@given(most=st.integers(1, 3000))
def test_sizes_are_few_and_near_every_batch(most):
    sizes = batch_sizes(most)
    assert sizes[0] == 1 and sizes[-1] == most and len(sizes) <= 2 * most.bit_length()
    assert all(a < b for a, b in pairwise(sizes))
    for before, size in pairwise(sizes):
        padding = size - (before + 1)
        assert padding < max(size * (1 / 3 if size > 16 else 1 / 2), 1)


def test_the_sizes_of_a_server():
    assert batch_sizes(256) == [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    assert batch_sizes(6) == [1, 2, 4, 6]


def test_room_for_graphs_grows_with_batch_and_vocabulary():
    least = graph_bytes(CONFIG, 1, torch.bfloat16)
    assert graph_bytes(CONFIG, 256, torch.bfloat16) > least
    wide = CONFIG.model_copy(update={"vocab_size": 128_256})
    logits = 256 * 128_256 * 4
    assert logits < graph_bytes(wide, 256, torch.bfloat16) < 4 * logits


class Spy:
    """A model that notes what it is fed; its logits tell the token and the position."""

    def __init__(self) -> None:
        self.config, self.fed = CONFIG, list[dict[str, Any]]()

    def __call__(self, tokens: Tensor, positions: Tensor, attend: Any) -> Tensor:
        plan = attend.plan
        self.fed.append(
            {
                "tokens": tokens[0].tolist(),
                "slots": plan.slots.tolist(),
                "decoding": plan.decoding.tolist(),
                "width": plan.width.item(),
                "tables": plan.tables.clone(),
                "prompts": len(plan.prompts),
            }
        )
        return torch.stack((tokens, positions), dim=-1).float()

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ torch.eye(2, CONFIG.vocab_size)


def batch(lengths: list[int], page_size: int = 4) -> Any:
    """A step in which sequences of ``lengths`` tokens feed their last."""
    positions = np.array(lengths) - 1
    pages = -(-np.array(lengths) // page_size)
    tables = np.zeros((len(lengths), pages.max()), dtype=np.int64)
    for row, count in enumerate(pages):
        tables[row, :count] = 10 * row + np.arange(1, count + 1)
    slots = tables[np.arange(len(lengths)), positions // page_size] * page_size + positions % page_size
    return SimpleNamespace(
        tokens=np.arange(len(lengths), dtype=np.int32) + 3,
        positions=positions,
        slots=slots,
        begins=positions,
        counts=np.ones(len(lengths), np.int64),
        tables=tables,
        scoring=np.zeros(0, np.int64),
    )


@pytest.fixture
def graphs() -> DecodeGraphs:
    cache = PagedCache(CONFIG, 60, 4, torch.device("cpu"), torch.float32)
    return DecodeGraphs(Spy(), cache, 6, 64)  # type: ignore[arg-type]


def test_a_step_reads_its_batch_and_padding_that_does_no_harm(graphs):
    given = batch([5, 13, 1])
    logits = graphs.run(given)
    (fed,) = graphs.model.fed
    assert fed["tokens"] == [3, 4, 5, 0]
    assert fed["slots"] == [*given.slots, 0]  # the padding page
    assert fed["decoding"] == [[0, 0, 5], [1, 1, 13], [2, 2, 1], [3, 3, 0]]  # no keys
    assert fed["width"] == 4 and fed["prompts"] == 0
    assert fed["tables"][: 3 * 4].view(3, 4).tolist() == given.tables.tolist()
    assert logits.shape == (3, CONFIG.vocab_size)
    assert logits[:, :2].tolist() == [[3, 4], [4, 12], [5, 0]]


def test_nothing_of_a_larger_batch_is_left_in_a_smaller_one(graphs):
    graphs.run(batch([9, 8, 7, 6, 5, 40]))
    graphs.run(batch([2, 3]))
    graphs.run(batch([3, 17, 3, 3, 3]))
    first, second, third = graphs.model.fed
    assert len(first["tokens"]) == 6 and first["width"] == 10
    assert second["tokens"] == [3, 4] and second["decoding"] == [[0, 0, 2], [1, 1, 3]] and second["width"] == 1
    assert third["tokens"][5:] == [0] and third["slots"][5:] == [0] and third["decoding"][5] == [5, 5, 0]


def test_a_size_is_recorded_once_and_reads_what_is_new(graphs):
    recorded: list[Work] = []

    def record(work: Work) -> Work:
        recorded.append(work)
        return work

    graphs.record = record
    assert graphs.run(batch([4, 9, 2])).tolist() != graphs.run(batch([5, 10, 3])).tolist()
    graphs.run(batch([5, 10, 3, 7]))
    assert len(recorded) == 1 and len(graphs.model.fed) == 3
    graphs.run(batch([5]))
    assert len(recorded) == 2


def test_only_steps_that_do_nothing_but_decode_are_taken(graphs):
    given = batch([4, 9])
    assert graphs.takes(given)
    given.scoring = np.array([0])
    assert not graphs.takes(given)
    longer = batch([4, 9])
    longer.tokens, longer.counts = np.zeros(3, np.int32), np.array([1, 2])
    assert not graphs.takes(longer)
