"""One model over several processes: tensor parallelism inside a stage, a pipeline of stages.

The first process drives: its engine schedules and draws. The others are workers: they receive each step's input as
arrays, run their shard of the model and keep their shard of the cache, so block tables mean the same on all. A rank
holds its part of each layer by the sharding plan (:mod:`herdlm.parallel.sharding`) and the layers of its stage; the
residual stream is whole on every rank of a stage, and the first stage holds the head.

A step goes through the pipeline in as many micro-batches as there are stages (Llama 3 report, section 6.1). They are
parts of equal length of the step's tokens, prompts and decoding sequences alike. A token may attend to tokens of an
earlier micro-batch, whose keys each stage has already written, never to those of a later one.
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
from herdlm.generate.cpu.fused import FusedLayer, FusedNorm, rotation_of
from herdlm.generate.fp8.linear import Fp8Linear
from herdlm.generate.gpu.attention import KernelAttention, attention_type
from herdlm.generate.gpu.layer import layer_type
from herdlm.generate.matrix import matrix
from herdlm.generate.paged_attention import PagedAttention, PagedCache
from herdlm.generate.sequences import Integers, StepInput
from herdlm.model.attention import Attend, DocumentAttention
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Layer, Transformer
from herdlm.parallel.config import split_layers
from herdlm.parallel.mesh import Mesh
from herdlm.parallel.sharding import indivisible, run_of, shard, shard_config, shard_dim

OPEN, FORWARD, ENCODE, LOGITS, CLOSE = range(5)
HEADER = 6  # integers: a command and its sizes


def check_layout(config: ModelConfig, tensor_parallel: int, pipeline_parallel: int) -> None:
    """Raise an InputError if the model cannot be divided so."""
    for name, size in (("tensor_parallel", tensor_parallel), ("pipeline_parallel", pipeline_parallel)):
        if size < 1:
            raise InputError(f"{name} = {size}", "Give a positive number")
    if pipeline_parallel > config.layers:
        raise InputError(
            f"pipeline_parallel = {pipeline_parallel} for {config.layers} layers",
            f"Give at most {config.layers}: each stage needs a layer",
        )
    for name, count in indivisible(config, tensor_parallel).items():
        raise InputError(
            f"{name} = {count} is not a multiple of tensor_parallel = {tensor_parallel}",
            "Give a tensor_parallel that divides the model's heads, kv_heads and ffn_dim",
        )


def local_config(config: ModelConfig, mesh: Mesh) -> ModelConfig:
    """The shape of this rank's part of its stage's layers."""
    return shard_config(config, mesh.sizes.tp).model_copy(update={"layers": len(_stage_layers(config, mesh))})


def _stage_layers(config: ModelConfig, mesh: Mesh) -> range:
    # The first stage has both embedding and head, so no end is lighter.
    return split_layers(config.layers, mesh.sizes.pp, lighter_ends=False)[mesh.pp_rank]


@dataclass(slots=True, eq=False)
class _Sends:
    """Sends under way, with the tensors they read."""

    pending: list[tuple[Any, Tensor]]

    def send(self, tensor: Tensor, rank: int) -> None:
        self.pending.append((dist.isend(tensor, rank), tensor))

    def wait(self) -> None:
        for work, _ in self.pending:
            work.wait()


class ModelShard:
    """This process's shard of a model and of the cache.

    Args:
        free_original: as in :class:`herdlm.generate.cpu.fused.FusedTransformer`.

    Raises:
        InputError: the model cannot be divided so.
    """

    def __init__(self, whole: Transformer, compute: torch.dtype, mesh: Mesh, *, free_original: bool = False) -> None:
        config, n, rank = whole.config, mesh.sizes.tp, mesh.tp_rank
        check_layout(config, n, mesh.sizes.pp)
        self.mesh, self.whole_config, self.config, self.compute = mesh, config, local_config(config, mesh), compute
        self.first, self.last = mesh.pp_rank == 0, mesh.pp_rank == mesh.sizes.pp - 1
        self.rank = mesh.pp_rank * n + rank  # among all processes
        self.frequencies, self.rotation_scale = whole.frequencies, whole.rotation_scale
        group = mesh.tp.get_group() if n > 1 else None
        compiled = worth_compiling(self.config, whole.frequencies.device, compute)
        self.layers: list[FusedLayer] = []
        kind = layer_type(mesh.device, compute, config.head_size)
        stage = _stage_layers(config, mesh)
        for index, layer in enumerate(whole.model.layers):
            assert isinstance(layer, Layer)
            if index in stage:
                mine = layer if group is None else _shard_layer(layer, self.config, n, rank, group)
                fused = kind(mine, compute, group, compiled=compiled)
                fused.number = len(self.layers)
                self.layers.append(fused)
            if free_original:
                whole.model.layers[index] = nn.Identity()
        self.norm = FusedNorm(whole.model.norm, compute, compiled=compiled)
        self.embedding = whole.model.embed_tokens
        self.head = None
        if self.first and config.head == "lm":
            self.head = matrix(shard(whole.lm_head.weight.detach(), shard_dim("lm_head"), n, rank), compute)
        self.cache: PagedCache | None = None

    def open(self, pages: int, page_size: int) -> PagedCache:
        """Make this rank's cache."""
        self.cache = PagedCache(self.config, pages, page_size, self.mesh.device, self.compute)
        return self.cache

    def forward(self, step: StepInput) -> Tensor | None:
        """Run a step's tokens; hidden states [N, D] on the first process, None on others."""
        assert self.cache is not None
        kind = attention_type(self.cache)
        parts = micro_batches(step, self.mesh.sizes.pp)
        return self._run_stage([(part.tokens, part.positions, kind(self.cache, part)) for part in parts])

    def encode(self, tokens: NDArray[np.int64]) -> Tensor | None:
        """Run one document without the cache; its hidden states [N, D] on the first process, None on others."""
        document = torch.zeros(1, len(tokens), dtype=torch.int64, device=self.mesh.device)
        return self._run_stage([(tokens, np.arange(len(tokens)), DocumentAttention(document))])

    def _run_stage(self, parts: Sequence[tuple[NDArray[Any], Integers, Attend]]) -> Tensor | None:
        """Run micro-batches, each with tokens, positions and attention, through this stage."""
        n = self.mesh.sizes.tp
        sends, out = _Sends([]), []
        for tokens, positions, attend in parts:
            if self.first:
                x = self.embedding(torch.from_numpy(tokens).to(self.mesh.device)).to(self.compute)
            else:
                x = self._receive(len(tokens), self.rank - n)
            rotation = rotation_of(
                torch.from_numpy(positions).to(self.mesh.device), self.frequencies, self.rotation_scale
            )
            for layer in self.layers:
                x = layer(x, rotation, attend)
            if not self.last:
                sends.send(x, self.rank + n)
            elif self.first:
                out.append(self.norm(x))
            elif self.mesh.tp_rank == 0:
                sends.send(self.norm(x), 0)
        if self.rank == 0 and not self.last:
            last_stage = n * (self.mesh.sizes.pp - 1)
            out = [self._receive(len(tokens), last_stage) for tokens, _, _ in parts]
        sends.wait()
        return torch.cat(out) if out else None

    def logits(self, hidden: Tensor) -> Tensor | None:
        """Logits [R, V] of hidden states [R, D] on the first process; the ranks of its stage all call this."""
        assert self.head is not None
        n, group, vocabulary = self.mesh.sizes.tp, self.mesh.tp.get_group(), self.whole_config.vocab_size
        logits = self.head(hidden * self.head.scale)
        if n == 1:
            return logits
        missing = len(run_of(vocabulary, n, 0)) - logits.shape[1]  # of a vocabulary that does not divide evenly
        if missing:
            logits = nn.functional.pad(logits, (0, missing))
        parts = [torch.empty_like(logits) for _ in range(n)] if self.rank == 0 else None
        dist.gather(logits, parts, dst=0, group=group)
        return torch.cat(parts, dim=1)[:, :vocabulary] if parts else None

    def broadcast(self, tensor: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
        """The first process's ``tensor``."""
        dist.broadcast(tensor, 0, group=group)
        return tensor

    def _receive(self, rows: int, source: int) -> Tensor:
        x = torch.empty(rows, self.whole_config.dim, dtype=self.compute, device=self.mesh.device)
        dist.recv(x, source)
        return x


class DriverTransformer(Transformer):
    """The whole model as the first process's engine uses it. The other processes run :func:`run_worker`."""

    def __init__(self, whole: Transformer, compute: torch.dtype, mesh: Mesh, *, free_original: bool = False) -> None:
        nn.Module.__init__(self)
        self.config = whole.config
        self.shard = ModelShard(whole, compute, mesh, free_original=free_original)
        if self.config.head == "score":
            self.score = whole.score
        self.broken = False

    @property
    def processes(self) -> int:
        """How many processes hold a shard, this one included."""
        return self.shard.mesh.sizes.tp * self.shard.mesh.sizes.pp

    def open(self, pages: int, page_size: int) -> PagedCache:
        """Make the caches of all processes; returns the first's."""
        self._command(OPEN, pages, page_size)
        return self.shard.open(pages, page_size)

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """See :class:`herdlm.model.transformer.Transformer`; ``attend`` is that of a step over the same tokens."""
        if not isinstance(attend, PagedAttention | KernelAttention):
            raise InputError("a model on several processes attends over its pages", "Call encode for a text alone")
        step = attend.step
        with self._together():
            self._command(FORWARD, len(step.tokens), *step.tables.shape, step.copies.shape[1])
            fields = (step.tokens, step.positions, step.slots, step.begins, step.counts, step.tables, step.copies)
            self._send(np.concatenate([field.astype(np.int64).ravel() for field in fields]))
            hidden = self.shard.forward(step)
        assert hidden is not None
        return hidden[None]

    def encode(self, tokens: Sequence[int]) -> Tensor:
        """Hidden states [N, D] of one document of N tokens after the final norm; does not touch the cache."""
        numbers = np.array(tokens, dtype=np.int64)
        with self._together():
            self._command(ENCODE, len(numbers))
            self._send(numbers)
            hidden = self.shard.encode(numbers)
        assert hidden is not None
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [R, V] from hidden states [R, D]."""
        if self.shard.mesh.sizes.tp > 1:
            self._command(LOGITS, len(hidden))
            self.shard.broadcast(hidden.contiguous(), self.shard.mesh.tp.get_group())
        logits = self.shard.logits(hidden)
        assert logits is not None
        return logits

    def close(self) -> None:
        """End the other processes."""
        if not self.broken:
            self._command(CLOSE)
            self.broken = True

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Mark the model broken if this process fails: nobody knows then where the others are."""
        try:
            yield
        except BaseException:
            self.broken = True
            raise

    def _send(self, numbers: NDArray[np.int64]) -> None:
        self.shard.broadcast(torch.from_numpy(numbers).to(self.shard.mesh.device))

    def _command(self, command: int, *sizes: int) -> None:
        if self.broken:
            raise HerdError("a process of this model has failed, or the model was closed", "Load the model again")
        header = torch.zeros(HEADER, dtype=torch.int64, device=self.shard.mesh.device)
        header[: 1 + len(sizes)] = torch.tensor([command, *sizes])
        self.shard.broadcast(header)


@torch.inference_mode()
def run_worker(shard: ModelShard) -> None:
    """Carry out the first process's commands until it closes the model."""
    mesh = shard.mesh
    while True:
        command, *sizes = shard.broadcast(torch.zeros(HEADER, dtype=torch.int64, device=mesh.device)).tolist()
        if command == CLOSE:
            return
        if command == OPEN:
            shard.open(sizes[0], sizes[1])
        elif command == FORWARD:
            assert shard.cache is not None
            step = _receive_step(shard, *sizes[:4])
            shard.cache.copy_pages(step.copies[0], step.copies[1])
            shard.forward(step)
        elif command == ENCODE:
            shard.encode(_receive_numbers(shard, sizes[0]))
        elif shard.first:
            hidden = torch.empty(sizes[0], shard.whole_config.dim, dtype=shard.compute, device=mesh.device)
            shard.logits(shard.broadcast(hidden, mesh.tp.get_group()))


def _receive_step(shard: ModelShard, tokens: int, segments: int, pages: int, copies: int) -> StepInput:
    lengths = (tokens, tokens, tokens, segments, segments, segments * pages, 2 * copies)
    fields = np.split(_receive_numbers(shard, sum(lengths)), np.cumsum(lengths)[:-1])
    return StepInput(
        tokens=fields[0].astype(np.int32),
        positions=fields[1],
        slots=fields[2],
        begins=fields[3],
        counts=fields[4],
        tables=fields[5].reshape(segments, pages),
        copies=fields[6].reshape(2, copies),
    )


def _receive_numbers(shard: ModelShard, count: int) -> NDArray[np.int64]:
    numbers = torch.zeros(count, dtype=torch.int64, device=shard.mesh.device)
    return shard.broadcast(numbers).cpu().numpy()


def micro_batches(step: StepInput, count: int) -> list[StepInput]:
    """``step`` in at most ``count`` parts of equal length, in order; a segment may span several."""
    total = len(step.tokens)
    borders = np.unique(np.linspace(0, total, min(count, total) + 1).astype(np.int64))
    if len(borders) == 2:
        return [step]
    return [_between(step, int(begin), int(end)) for begin, end in pairwise(borders)]


def _between(step: StepInput, begin: int, end: int) -> StepInput:
    firsts: Integers = np.cumsum(step.counts) - step.counts
    lows, highs = np.maximum(firsts, begin), np.minimum(firsts + step.counts, end)
    inside = np.flatnonzero(highs > lows)
    return replace(
        step,
        tokens=step.tokens[begin:end],
        positions=step.positions[begin:end],
        slots=step.slots[begin:end],
        begins=(step.begins + lows - firsts)[inside],
        counts=(highs - lows)[inside],
        tables=step.tables[inside],
    )


def _shard_layer(layer: Layer, config: ModelConfig, ranks: int, rank: int, group: dist.ProcessGroup) -> Layer:
    """This rank's heads and channels of a layer."""
    with torch.device("meta"):
        part = Layer(config, layer.self_attn.layer)
    part.input_layernorm, part.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm
    for target, whole in ((part.self_attn, layer.self_attn), (part.mlp, layer.mlp)):
        for name, module in whole.named_children():
            dim = shard_dim(name)
            assert dim is not None
            if isinstance(module, Fp8Linear):
                setattr(target, name, module.shard(dim, ranks, rank, group))
                continue
            assert isinstance(module, nn.Linear)
            for key, whole_parameter in module.named_parameters():
                mine = shard(whole_parameter.detach(), shard_dim(name, key), ranks, rank)
                setattr(getattr(target, name), key, nn.Parameter(mine, requires_grad=False))
    return part
