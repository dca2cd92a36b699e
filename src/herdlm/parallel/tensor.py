"""Tensor parallelism with sequence parallelism (Korthikanti et al., arXiv 2205.05198), by changing modules' classes.

Each rank has its part of every matrix by the sharding plan (:mod:`herdlm.parallel.sharding`). Between the matrices,
activations are sharded along the sequence: [B, T / n, D]. Weights are DTensors, so that every layout stores them under
the same names and whole shapes; products use local tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from herdlm.base.errors import InputError
from herdlm.model.attention import Attend
from herdlm.model.lora import LoraLinear
from herdlm.model.transformer import Attention, FeedForward, Transformer, rotate
from herdlm.parallel.adapters import add_column_adapters, add_row_adapter
from herdlm.parallel.collectives import autograd_all_gather, copy_to_group
from herdlm.parallel.linear import DeferredGradients, PlainLinear, column_parallel, local, row_parallel
from herdlm.parallel.mesh import Mesh
from herdlm.parallel.sharding import run_of, shard_dim
from herdlm.parallel.vocabulary import ParallelEmbedding


class ParallelAttention(Attention):
    """Attention over this rank's heads."""

    group: dist.ProcessGroup
    deferred: DeferredGradients | None

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, attend: Attend) -> Tensor:
        """x [B, T / n, D] -> [B, T / n, D]; positions' angles are those of all T."""
        modules = (self.q_proj, self.k_proj, self.v_proj)
        projected: Sequence[Tensor] = column_parallel(x, modules, self.group, self.deferred)
        projected = add_column_adapters(x, projected, modules, self.group)
        q, k, v = (y.view(*y.shape[:-1], -1, self.head_size) for y in projected)
        out = attend(self.layer, rotate(q, cosine, sine), rotate(k, cosine, sine), v)
        out = out.flatten(-2)
        product = row_parallel(out, self.o_proj, self.group, self.deferred)
        return add_row_adapter(out, product, self.o_proj, self.group)


class ParallelFeedForward(FeedForward):
    """Feed-forward over this rank's channels."""

    group: dist.ProcessGroup
    deferred: DeferredGradients | None

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T / n, D] -> [B, T / n, D]."""
        products = column_parallel(x, (self.gate_proj, self.up_proj), self.group, self.deferred)
        gate, up = add_column_adapters(x, products, (self.gate_proj, self.up_proj), self.group)
        inner = F.silu(gate) * up
        product = row_parallel(inner, self.down_proj, self.group, self.deferred)
        return add_row_adapter(inner, product, self.down_proj, self.group)


class SequenceNorm(nn.RMSNorm):
    """A norm over this rank's part of the sequence."""

    group: dist.ProcessGroup

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T / n, D] -> [B, T / n, D]."""
        return F.rms_norm(x, self.normalized_shape, copy_to_group(local(self.weight), self.group), self.eps)


class GatheringNorm(SequenceNorm):
    """The last norm, which gathers the sequence for the output head; a gradient there is one rank's part."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T / n, D] -> [B, T, D]."""
        whole = autograd_all_gather(super().forward(x), self.group)
        return whole.clone() if whole._is_view() else whole  # FSDP attaches its hook to what a module returns


def apply_tensor_parallel(stage: Transformer, mesh: Mesh, deferred: DeferredGradients | None) -> None:
    """Turn the modules of a stage into this rank's parts, and its weights into DTensors over the group."""
    group = mesh.tp.get_group()
    start = run_of(stage.config.vocab_size, mesh.sizes.tp, mesh.tp_rank).start
    for name, module in list(stage.named_modules()):
        kind = (
            GatheringNorm if name == "model.norm" else _checked_kind(name, module, splits_backward=deferred is not None)
        )
        if kind is not None:
            module.__class__ = kind
            vars(module).update(group=group, deferred=deferred, start=start)
    cut: dict[Tensor, nn.Parameter] = {}
    for name, module in stage.named_modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in cut:
                dim = shard_dim(name.rpartition(".")[2], key)
                placement = Replicate() if dim is None else Shard(dim)
                whole = distribute_tensor(parameter.detach(), mesh.tp, [placement], src_data_rank=None)
                cut[parameter] = nn.Parameter(whole, requires_grad=parameter.requires_grad)
            module.register_parameter(key, cut[parameter])


def _checked_kind(name: str, module: nn.Module, *, splits_backward: bool) -> type[nn.Module] | None:
    """The class that a module becomes; None if it does not change.

    Raises:
        InputError: it is a matrix of another kind, FP8 say, whose products would silently become plain ones.
    """
    if isinstance(module, LoraLinear) and splits_backward:
        raise InputError(
            f"{name} has a LoRA adapter, which the pipeline schedule zero-bubble does not support",
            "Use another pipeline_schedule",
        )
    if isinstance(module, nn.Linear) and type(module) not in (nn.Linear, LoraLinear):
        raise InputError(
            f"{name} is a {type(module).__name__}, which parallel.tp and zero-bubble do not support",
            "Use plain linear layers, or set parallel.tp = 1 with another pipeline_schedule",
        )
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        Attention: ParallelAttention,
        FeedForward: ParallelFeedForward,
        nn.RMSNorm: SequenceNorm,
        nn.Embedding: ParallelEmbedding,
    }
    return next((parallel for plain, parallel in kinds.items() if isinstance(module, plain)), None)


def defer_weight_gradients(stage: Transformer, deferred: DeferredGradients) -> None:
    """Let the matrices of a stage without tensor parallelism defer their weights' gradients."""
    for name, module in stage.model.layers.named_modules():
        _checked_kind(name, module, splits_backward=True)
        if isinstance(module, nn.Linear):
            module.__class__ = PlainLinear
            module.deferred = deferred  # type: ignore[assignment]
