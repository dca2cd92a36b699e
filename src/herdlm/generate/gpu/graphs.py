"""Decode steps as CUDA graphs: a step's launches are recorded once and replayed as one.

A decode step is the same few hundred launches each time. At a small batch, a processor takes longer to launch them one
by one than a GPU takes to run them. A few batch sizes have a graph each; smaller batches are padded to the next size
with rows that have no keys and write to the padding page. The graph reads what changes from step to step from buffers
(tokens, positions, slots, lengths and block tables), which one transfer fills.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from herdlm.generate.gpu.attention import PlannedAttention
from herdlm.generate.gpu.plan import ALIGNED, AttentionPlan, aligned
from herdlm.generate.paged_attention import PagedCache
from herdlm.generate.sequences import Batch
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer

GRAPH_BYTES = 2**24  # that CUDA keeps for each graph: a generous guess
WORKSPACE_BYTES = 2**26  # of cuBLAS for the stream that records

Work = Callable[[], None]
Recorder = Callable[[Work], Work]


def batch_sizes(most: int) -> list[int]:
    """The batch sizes to record, up to ``most``: from 16 rows on, at most a third of a batch is padding."""
    sizes = {most} | {1 << i for i in range(most.bit_length())} | {3 << i for i in range(3, most.bit_length())}
    return sorted(size for size in sizes if size <= most)


def graph_bytes(config: ModelConfig, max_batch: int, dtype: torch.dtype) -> int:
    """An upper bound on the memory of the graphs, beside weights and cache."""
    logits = config.vocab_size * (4 + dtype.itemsize)
    heads = (config.heads + 2 * config.kv_heads) * config.head_size
    activations = (4 * config.dim + 3 * config.ffn_dim + 2 * heads) * dtype.itemsize + 8 * 4 * heads
    return max_batch * (logits + activations) + len(batch_sizes(max_batch)) * GRAPH_BYTES + WORKSPACE_BYTES


class CudaRecorder:
    """Records work as CUDA graphs. They share one memory pool, since one stream runs them one after the other."""

    def __init__(self, device: torch.device) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, work: Work) -> Work:
        """Run ``work`` and record it; returns a function that replays it. Raises the errors of either."""
        # The first run compiles kernels and sets up libraries, which cannot be recorded.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            work()
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


def recorder(device: torch.device) -> Recorder:
    """A recorder for the device; on a CPU the work itself is called again."""
    return CudaRecorder(device) if device.type == "cuda" else lambda work: work


class DecodeGraphs:
    """Decode steps of ``model``, each batch size recorded on its first use.

    Args:
        model: its layers take :class:`herdlm.generate.gpu.attention.PlannedAttention`.
        max_batch, max_seq_len: the most sequences in a batch, and tokens in a sequence.
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
        self.transferred = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]

    def takes(self, batch: Batch) -> bool:
        """Whether the step only decodes."""
        return len(batch.tokens) == len(batch.counts) and not len(batch.scoring)

    def run(self, batch: Batch) -> Tensor:
        """Logits [S, V] float32 after each of the step's tokens; the next step overwrites them."""
        count = len(batch.tokens)
        size = next(size for size in self.sizes if size >= count)
        with torch.cuda.device_of(self.logits):  # type: ignore[no-untyped-call]
            self._transfer(batch, count, size)
            if size not in self.steps:
                self.steps[size] = self.record(self._step(size))
            self.steps[size]()
        return self.logits[:count]

    def _transfer(self, batch: Batch, count: int, size: int) -> None:
        if self.transferred is not None:
            self.transferred.synchronize()  # the last transfer may still be reading the buffer
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
        if self.transferred is not None:
            self.transferred.record()

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
