"""Attention of rows cut over ranks, with what the ranks send each other put together here: no process is started."""

import pytest
import torch

from herdlm.model.attention import DocumentAttention
from herdlm.parallel import context
from herdlm.parallel.context import ContextAttention, places_of

LENGTH, HEADS, KV_HEADS, SIZE = 24, 4, 2, 8


class Group:
    """What the attention asks of a process group."""

    def __init__(self, rank, ranks):
        self.rank, self.size = lambda: rank, lambda: ranks


@pytest.mark.parametrize("mask_below", [0, 512], ids=["by documents", "by a mask"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_ranks_attention_is_that_of_the_whole_rows(ranks, mask_below, monkeypatch):
    random = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(3, LENGTH, heads, SIZE, generator=random, dtype=torch.float64)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    ends = ([], [5, 11, 12], [4, 8, 16, 20])  # documents that end inside chunks, at their borders, and nowhere
    documents = torch.stack([torch.bucketize(torch.arange(LENGTH), torch.tensor(cuts), right=True) for cuts in ends])
    whole = DocumentAttention(documents)(0, q, k, v)
    held = [places_of(rank, ranks, LENGTH) for rank in range(ranks)]
    sent = torch.cat([torch.cat((k, v), dim=2)[:, places] for places in held], dim=1)
    monkeypatch.setattr(context, "MASK_BELOW", mask_below)
    monkeypatch.setattr(context, "autograd_all_gather", lambda part, group: sent)
    for rank, places in enumerate(held):
        attend = ContextAttention(documents, Group(rank, ranks), q.device)
        assert bool(attend.masks) == (mask_below > 0)
        torch.testing.assert_close(attend(0, q[:, places], k[:, places], v[:, places]), whole[:, places])
