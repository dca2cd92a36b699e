"""Decode steps as CUDA graphs: what a step launches is recorded once and started as one.

A step in which every sequence feeds one token is the same few hundred launches each time; launching them one by one
takes a processor longer than a GPU takes to run them at a small batch. A graph is recorded for each of a few sizes of
batch; a batch is filled up to the next with rows that have no keys and write to the padding page. What differs from
step to step stands in buffers the graph reads: tokens, positions, slots, lengths and block tables, brought over in one
transfer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from herdlm.generate.gpu.attention import PlannedAttention
from herdlm.generate.gpu.plan import ALIGNED, AttentionPlan, aligned
from herdlm.generate.paged_attention import PagedCache
from herdlm.generate.scheduler import Batch
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer

GRAPH_BYTES = 2**24  # that CUDA keeps for one recorded graph; a guess on the safe side
WORKSPACE_BYTES = 2**26  # of the products' library, once more for the stream that is recorded

Work = Callable[[], None]
Recorder = Callable[[Work], Work]


def batch_sizes(most: int) -> list[int]:
    """Sizes of batch that are recorded, up to ``most``: at most a third of a batch from 16 rows on is padding."""
    sizes = {most} | {1 << i for i in range(most.bit_length())} | {3 << i for i in range(3, most.bit_length())}
    return sorted(size for size in sizes if size <= most)


def graph_bytes(config: ModelConfig, max_batch: int, dtype: torch.dtype) -> int:
    """A bound to the memory that the graphs take beside weights and cache."""
    logits = config.vocab_size * (4 + dtype.itemsize)
    heads = (config.heads + 2 * config.kv_heads) * config.head_size
    activations = (4 * config.dim + 3 * config.ffn_dim + 2 * heads) * dtype.itemsize + 8 * 4 * heads
    return max_batch * (logits + activations) + len(batch_sizes(max_batch)) * GRAPH_BYTES + WORKSPACE_BYTES


class CudaRecorder:
    """Records work as CUDA graphs that share one pool of memory: of one at a time, as they run on one stream."""

    def __init__(self, device: torch.device) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, work: Work) -> Work:
        """Run ``work`` and record it; what is returned runs it again. Errors of either are raised."""
        # Once as it is: kernels are compiled and libraries set up, which cannot be recorded.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            work()
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


def recorder(device: torch.device) -> Recorder:
    """On a CPU nothing is recorded: the work itself is called again."""
    return CudaRecorder(device) if device.type == "cuda" else lambda work: work


class DecodeGraphs:
    """Decode steps of ``model``, recorded as each size of batch first comes.

    Args:
        model: whose layers take :class:`herdlm.generate.gpu.attention.PlannedAttention`.
        max_batch, max_seq_len: bounds to batches and to the tokens of a sequence.
    """

    def __init__(self, model: Transformer, cache: PagedCache, max_batch: int, max_seq_len: int) -> None:
        self.model, self.cache, self.max_seq_len = model, cache, max_seq_len
        self.sizes, self.steps = batch_sizes(max_batch), dict[int, Work]()
        device, cuda = cache.device, cache.device.type == "cuda"
        self.record = recorder(device)
        room = aligned(max_batch)
        pages = -(-max_seq_len // cache.page_size)
        self.lengths = [room, room, room, 3 * room, ALIGNED, max_batch * pages]
        self.here = torch.zeros(sum(self.lengths), dtype=torch.int32, pin_memory=cuda)
        self.there = torch.zeros_like(self.here, device=device, pin_memory=False)
        numbers = [part.numpy() for part in torch.split(self.here, self.lengths)]
        self.tokens, self.positions, self.slots, decoding, self.width, self.tables = numbers
        self.decoding = decoding.reshape(-1, 3)
        self.decoding[:, :2] = np.arange(room)[:, None]  # the query and the table of each row
        self.logits = torch.zeros(max_batch, model.config.vocab_size, device=device)
        self.brought = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]

    def takes(self, batch: Batch) -> bool:
        """Whether the step decodes and does nothing else."""
        return len(batch.tokens) == len(batch.counts) and not len(batch.scoring)

    def run(self, batch: Batch) -> Tensor:
        """Logits [S, V] float32 after each of the step's tokens; they are overwritten by the next step."""
        count = len(batch.tokens)
        size = next(size for size in self.sizes if size >= count)
        with torch.cuda.device_of(self.logits):  # type: ignore[no-untyped-call]
            self._bring(batch, count, size)
            if size not in self.steps:
                self.steps[size] = self.record(self._step(size))
            self.steps[size]()
        return self.logits[:count]

    def _bring(self, batch: Batch, count: int, size: int) -> None:
        if self.brought is not None:
            self.brought.synchronize()  # the last transfer may still read what is about to be overwritten
        for numbers, values in (
            (self.tokens, batch.tokens),
            (self.positions, batch.positions),
            (self.slots, batch.slots),
            (self.decoding[:, 2], batch.begins + 1),
        ):
            numbers[:count] = values
            numbers[count:size] = 0
        self.width[0] = batch.tables.shape[1]
        self.tables[: batch.tables.size] = batch.tables.ravel()
        used = sum(self.lengths[:-1]) + batch.tables.size
        self.there[:used].copy_(self.here[:used], non_blocking=True)
        if self.brought is not None:
            self.brought.record()

    def _step(self, size: int) -> Work:
        tokens, positions, slots, decoding, width, tables = torch.split(self.there, self.lengths)
        none = decoding.new_empty(0, 4)
        rows = decoding.view(-1, 3)[:size]
        plan = AttentionPlan(slots[:size], tables, width[:1], self.max_seq_len, rows, none)
        attend = PlannedAttention(self.cache, plan)

        def step() -> None:
            hidden = self.model(tokens[None, :size], positions[None, :size], attend)[0]
            self.logits[:size].copy_(self.model.logits(hidden))

        return step
