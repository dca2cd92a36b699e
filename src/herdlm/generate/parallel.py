"""One model over several processes: tensor parallelism inside a stage, a pipeline of stages.

The first process leads: it has the engine, schedules and draws. The others follow: they are told each step's batch as
arrays, run their part and hold their part of the cache, so block tables mean the same on all. A rank holds H / n query
heads, K / n key/value heads, F / n feed-forward channels and V / n rows of the head of its stage's L / m layers; the
stream is whole on every rank of a stage. A step goes through the pipeline in as many micro-batches as there are stages
(Llama 3 report, section 6.1): parts of equal length of the step's tokens, prompts and decoding rows alike. A token may
attend to tokens of an earlier micro-batch, whose keys each stage has written by then, never to those of a later one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from herdlm.base.errors import HerdError, InputError
from herdlm.generate.cpu.compiled import worth_compiling
from herdlm.generate.cpu.fused import FusedLayer, FusedNorm
from herdlm.generate.fp8.linear import Fp8Linear
from herdlm.generate.gpu.attention import KernelAttention, attention_for
from herdlm.generate.gpu.layer import layer_type
from herdlm.generate.matrix import matrix
from herdlm.generate.paged_attention import PagedAttention, PagedCache, StepInput
from herdlm.generate.sequences import Integers
from herdlm.model.attention import Attend, DocumentAttention
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Layer, Transformer
from herdlm.parallel.mesh import Mesh

OPEN, FORWARD, ENCODE, LOGITS, CLOSE = range(5)
HEADER = 6  # numbers: what to do, and sizes


def check_layout(config: ModelConfig, tensor_parallel: int, pipeline_parallel: int) -> None:
    """Raise an InputError where the model cannot be divided so."""
    for name, size in (("tensor_parallel", tensor_parallel), ("pipeline_parallel", pipeline_parallel)):
        if size < 1:
            raise InputError(f"{name} = {size}", "Give a positive number")
    if pipeline_parallel > config.layers:
        raise InputError(
            f"pipeline_parallel = {pipeline_parallel} for {config.layers} layers", "Give each stage a layer at least"
        )
    for name, count in (("heads", config.heads), ("kv_heads", config.kv_heads), ("ffn_dim", config.ffn_dim)):
        if count % tensor_parallel:
            raise InputError(f"{name} = {count} is not a multiple of tensor_parallel = {tensor_parallel}", "Change one")


def part_config(config: ModelConfig, mesh: Mesh) -> ModelConfig:
    """The shape of this rank's part of the layers; dim and vocabulary stay whole."""
    n = mesh.sizes.tp
    return config.model_copy(
        update={
            "heads": config.heads // n,
            "kv_heads": config.kv_heads // n,
            "ffn_dim": config.ffn_dim // n,
            "head_dim": config.head_size,
            "layers": len(_stage_layers(config, mesh)),
        }
    )


def _stage_layers(config: ModelConfig, mesh: Mesh) -> range:
    """Layers of this rank's stage; the first stages have one more where they do not divide evenly."""
    each, more = divmod(config.layers, mesh.sizes.pp)
    rank = mesh.pp_rank
    begin = rank * each + min(rank, more)
    return range(begin, begin + each + (rank < more))


@dataclass(slots=True, eq=False)
class _Sent:
    """Transfers on their way, with the tensors they read."""

    pending: list[tuple[Any, Tensor]]

    def send(self, tensor: Tensor, rank: int) -> None:
        self.pending.append((dist.isend(tensor, rank), tensor))

    def wait(self) -> None:
        for transfer, _ in self.pending:
            transfer.wait()


class ModelShard:
    """This process's part of a model and of the cache.

    Args:
        free_original: as in :class:`herdlm.generate.cpu.fused.FusedTransformer`.

    Raises:
        InputError: the model cannot be divided so.
    """

    def __init__(self, whole: Transformer, compute: torch.dtype, mesh: Mesh, *, free_original: bool = False) -> None:
        config, n, rank = whole.config, mesh.sizes.tp, mesh.tp_rank
        check_layout(config, n, mesh.sizes.pp)
        self.mesh, self.whole_config, self.config, self.compute = mesh, config, part_config(config, mesh), compute
        self.first, self.last = mesh.pp_rank == 0, mesh.pp_rank == mesh.sizes.pp - 1
        self.place = mesh.pp_rank * n + rank  # among all ranks
        self.frequencies = whole.frequencies
        group = mesh.tp.get_group() if n > 1 else None
        compiled = worth_compiling(self.config, whole.frequencies.device, compute)
        self.layers: list[FusedLayer] = []
        kind = layer_type(mesh.device, compute, config.head_size)
        stage = _stage_layers(config, mesh)
        for index, layer in enumerate(whole.model.layers):
            assert isinstance(layer, Layer)
            if index in stage:
                mine = layer if group is None else _cut(layer, self.config, n, rank, group)
                fused = kind(mine, compute, group, compiled=compiled)
                fused.number = len(self.layers)
                self.layers.append(fused)
            if free_original:
                whole.model.layers[index] = nn.Identity()
        self.norm = FusedNorm(whole.model.norm, compute, compiled=compiled)
        self.embedding = whole.model.embed_tokens
        self.head_rows = -(-config.vocab_size // n)
        head = whole.lm_head.weight.detach()[rank * self.head_rows : (rank + 1) * self.head_rows]
        self.head = matrix(head, compute) if self.first else None
        self.cache: PagedCache | None = None

    def open(self, pages: int, page_size: int) -> PagedCache:
        """Make this rank's cache."""
        self.cache = PagedCache(self.config, pages, page_size, self.mesh.device, self.compute)
        return self.cache

    def forward(self, feed: StepInput) -> Tensor | None:
        """Run a step's tokens; hidden states [N, D] on the first process, None on others."""
        assert self.cache is not None
        parts = micro_batches(feed, self.mesh.sizes.pp)
        return self._through([(part.tokens, part.positions, attention_for(self.cache, part)) for part in parts])

    def encode(self, tokens: NDArray[np.int64]) -> Tensor | None:
        """Run one document, beside the cache; its hidden states [N, D] on the first process, None on others."""
        document = torch.zeros(1, len(tokens), dtype=torch.int64, device=self.mesh.device)
        return self._through([(tokens, np.arange(len(tokens)), DocumentAttention(document))])

    def _through(self, parts: Sequence[tuple[NDArray[Any], Integers, Attend]]) -> Tensor | None:
        """Take micro-batches, tokens with positions and attention each, through all stages."""
        n, behind = self.mesh.sizes.tp, self.mesh.sizes.tp * (self.mesh.sizes.pp - 1)
        sent, out = _Sent([]), []
        for tokens, places, attend in parts:
            if self.first:
                x = self.embedding(torch.from_numpy(tokens).to(self.mesh.device)).to(self.compute)
            else:
                x = self._received(len(tokens), self.place - n)
            positions = torch.from_numpy(places).to(self.mesh.device)
            angles = positions.float()[:, None, None] * self.frequencies
            rotation = torch.polar(torch.ones_like(angles), angles)
            for layer in self.layers:
                x = layer(x, rotation, attend)
            if not self.last:
                sent.send(x, self.place + n)
            elif self.first:
                out.append(self.norm(x))
            elif self.mesh.tp_rank == 0:
                sent.send(self.norm(x), 0)
        if self.place == 0 and not self.last:
            out = [self._received(len(tokens), behind) for tokens, _, _ in parts]
        sent.wait()
        return torch.cat(out) if out else None

    def logits(self, hidden: Tensor) -> Tensor | None:
        """Logits [R, V] of hidden states [R, D] on the first process; called by the ranks of its stage."""
        assert self.head is not None
        n, group = self.mesh.sizes.tp, self.mesh.tp.get_group()
        found = self.head(hidden * self.head.scale)
        if n == 1:
            return found
        if found.shape[1] < self.head_rows:  # the last rows of a vocabulary that does not divide evenly
            found = nn.functional.pad(found, (0, self.head_rows - found.shape[1]))
        gathered = [torch.empty_like(found) for _ in range(n)] if self.place == 0 else None
        dist.gather(found, gathered, dst=0, group=group)
        return torch.cat(gathered, dim=1)[:, : self.whole_config.vocab_size] if gathered else None

    def broadcast(self, tensor: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
        """The first process's ``tensor``."""
        dist.broadcast(tensor, 0, group=group)
        return tensor

    def _received(self, rows: int, source: int) -> Tensor:
        x = torch.empty(rows, self.whole_config.dim, dtype=self.compute, device=self.mesh.device)
        dist.recv(x, source)
        return x


class DriverTransformer(Transformer):
    """The model as the first process's engine sees it: whole. :func:`run_worker` runs on the others."""

    def __init__(self, whole: Transformer, compute: torch.dtype, mesh: Mesh, *, free_original: bool = False) -> None:
        nn.Module.__init__(self)
        self.config = whole.config
        self.part = ModelShard(whole, compute, mesh, free_original=free_original)
        self.broken = False

    @property
    def processes(self) -> int:
        """How many processes hold a part, this one included."""
        return self.part.mesh.sizes.tp * self.part.mesh.sizes.pp

    def open(self, pages: int, page_size: int) -> PagedCache:
        """Make the caches of all processes; returns the first's."""
        self._tell(OPEN, pages, page_size)
        return self.part.open(pages, page_size)

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """See :class:`herdlm.model.transformer.Transformer`; ``attend`` is that of a step over the same tokens."""
        if not isinstance(attend, PagedAttention | KernelAttention):
            raise InputError("a model on several processes attends over its pages", "Call encode for a text alone")
        feed = attend.feed
        with self._together():
            self._tell(FORWARD, len(feed.tokens), *feed.tables.shape, feed.copies.shape[1])
            fields = (feed.tokens, feed.positions, feed.slots, feed.begins, feed.counts, feed.tables, feed.copies)
            self._tell_numbers(np.concatenate([field.astype(np.int64).ravel() for field in fields]))
            hidden = self.part.forward(feed)
        assert hidden is not None
        return hidden[None]

    def encode(self, tokens: Sequence[int]) -> Tensor:
        """Hidden states [N, D] of one document of N tokens after the final norm; the cache is left alone."""
        numbers = np.array(tokens, dtype=np.int64)
        with self._together():
            self._tell(ENCODE, len(numbers))
            self._tell_numbers(numbers)
            hidden = self.part.encode(numbers)
        assert hidden is not None
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [R, V] from hidden states [R, D]."""
        if self.part.mesh.sizes.tp > 1:
            self._tell(LOGITS, len(hidden))
            self.part.broadcast(hidden.contiguous(), self.part.mesh.tp.get_group())
        logits = self.part.logits(hidden)
        assert logits is not None
        return logits

    def close(self) -> None:
        """Let the other processes end."""
        if not self.broken:
            self._tell(CLOSE)
            self.broken = True

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What all processes do; where it fails on this one, the others may be anywhere in it."""
        try:
            yield
        except BaseException:
            self.broken = True
            raise

    def _tell_numbers(self, numbers: NDArray[np.int64]) -> None:
        self.part.broadcast(torch.from_numpy(numbers).to(self.part.mesh.device))

    def _tell(self, what: int, *sizes: int) -> None:
        if self.broken:
            raise HerdError("a process of this model has failed or the model was closed", "Load the model anew")
        header = torch.zeros(HEADER, dtype=torch.int64, device=self.part.mesh.device)
        header[: 1 + len(sizes)] = torch.tensor([what, *sizes])
        self.part.broadcast(header)


@torch.inference_mode()
def run_worker(part: ModelShard) -> None:
    """Do what the first process says until it closes the model."""
    mesh = part.mesh
    while True:
        what, *sizes = part.broadcast(torch.zeros(HEADER, dtype=torch.int64, device=mesh.device)).tolist()
        if what == CLOSE:
            return
        if what == OPEN:
            part.open(sizes[0], sizes[1])
        elif what == FORWARD:
            assert part.cache is not None
            feed = _received_feed(part, *sizes[:4])
            part.cache.copy_pages(feed.copies[0], feed.copies[1])
            part.forward(feed)
        elif what == ENCODE:
            part.encode(_received_numbers(part, sizes[0]))
        elif part.first:
            hidden = torch.empty(sizes[0], part.whole_config.dim, dtype=part.compute, device=mesh.device)
            part.logits(part.broadcast(hidden, mesh.tp.get_group()))


def _received_feed(part: ModelShard, tokens: int, segments: int, pages: int, copies: int) -> StepInput:
    lengths = (tokens, tokens, tokens, segments, segments, segments * pages, 2 * copies)
    fields = np.split(_received_numbers(part, sum(lengths)), np.cumsum(lengths)[:-1])
    return StepInput(
        tokens=fields[0].astype(np.int32),
        positions=fields[1],
        slots=fields[2],
        begins=fields[3],
        counts=fields[4],
        tables=fields[5].reshape(segments, pages),
        copies=fields[6].reshape(2, copies),
    )


def _received_numbers(part: ModelShard, count: int) -> NDArray[np.int64]:
    numbers = torch.zeros(count, dtype=torch.int64, device=part.mesh.device)
    return part.broadcast(numbers).cpu().numpy()


def micro_batches(feed: StepInput, count: int) -> list[StepInput]:
    """``feed`` in at most ``count`` parts of equal length, in order; a segment may fall into several."""
    total = len(feed.tokens)
    borders = np.unique(np.linspace(0, total, min(count, total) + 1).astype(np.int64))
    if len(borders) == 2:
        return [feed]
    return [_between(feed, int(begin), int(end)) for begin, end in pairwise(borders)]


def _between(feed: StepInput, begin: int, end: int) -> StepInput:
    firsts: Integers = np.cumsum(feed.counts) - feed.counts
    lows, highs = np.maximum(firsts, begin), np.minimum(firsts + feed.counts, end)
    here = np.flatnonzero(highs > lows)
    return replace(
        feed,
        tokens=feed.tokens[begin:end],
        positions=feed.positions[begin:end],
        slots=feed.slots[begin:end],
        begins=(feed.begins + lows - firsts)[here],
        counts=(highs - lows)[here],
        tables=feed.tables[here],
    )


def _cut(layer: Layer, config: ModelConfig, ranks: int, rank: int, group: dist.ProcessGroup) -> Layer:
    """This rank's heads and channels of a layer."""
    with torch.device("meta"):
        part = Layer(config, layer.self_attn.layer)
    part.input_layernorm, part.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm
    for place, whole in ((part.self_attn, layer.self_attn), (part.mlp, layer.mlp)):
        for name, module in whole.named_children():
            by_columns = name in ("o_proj", "down_proj")
            if isinstance(module, Fp8Linear):
                setattr(place, name, module.columns(ranks, rank, group) if by_columns else module.rows(ranks, rank))
                continue
            assert isinstance(module, nn.Linear)
            mine = module.weight.detach().chunk(ranks, dim=int(by_columns))[rank]
            getattr(place, name).weight = nn.Parameter(mine, requires_grad=False)
    return part
