"""Tensor parallelism with sequence parallelism (Korthikanti et al., arXiv 2205.05198), by changing modules' classes.

Each rank has H / n query heads, K / n key/value heads, F / n feed-forward channels and V / n rows of embedding and
head. Between them the stream is cut along the sequence: [B, T / n, D]. Weights are DTensors, so that every layout
stores them under the same names and whole shapes; products are on local tensors.
"""

from __future__ import annotations

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement

from herdlm.base.errors import InputError
from herdlm.model.attention import Attend
from herdlm.model.transformer import Attention, FeedForward, Transformer, rotate
from herdlm.parallel.collectives import gathered, shared
from herdlm.parallel.linear import LateGradients, PlainLinear, column_parallel, local, row_parallel
from herdlm.parallel.mesh import Mesh
from herdlm.parallel.vocabulary import ParallelEmbedding, first_row

PLACEMENTS: dict[str, Placement] = {
    "embed_tokens": Shard(0),
    "lm_head": Shard(0),
    "q_proj": Shard(0),
    "k_proj": Shard(0),
    "v_proj": Shard(0),
    "gate_proj": Shard(0),
    "up_proj": Shard(0),
    "o_proj": Shard(1),
    "down_proj": Shard(1),
    "input_layernorm": Replicate(),
    "post_attention_layernorm": Replicate(),
    "norm": Replicate(),
    "score": Replicate(),
}


class ParallelAttention(Attention):
    """Attention over this rank's heads."""

    group: dist.ProcessGroup
    late: LateGradients | None

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, attend: Attend) -> Tensor:
        """x [B, T / n, D] -> [B, T / n, D]; positions' angles are those of all T."""
        weights = (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        projected = column_parallel(x, weights, self.group, self.late)
        q, k, v = (y.view(*y.shape[:-1], -1, self.head_size) for y in projected)
        out = attend(self.layer, rotate(q, cosine, sine), rotate(k, cosine, sine), v)
        return row_parallel(out.flatten(-2), self.o_proj.weight, self.group, self.late)


class ParallelFeedForward(FeedForward):
    """Feed-forward over this rank's channels."""

    group: dist.ProcessGroup
    late: LateGradients | None

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T / n, D] -> [B, T / n, D]."""
        gate, up = column_parallel(x, (self.gate_proj.weight, self.up_proj.weight), self.group, self.late)
        return row_parallel(F.silu(gate) * up, self.down_proj.weight, self.group, self.late)


class SequenceNorm(nn.RMSNorm):
    """A norm over this rank's part of the sequence."""

    group: dist.ProcessGroup

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T / n, D] -> [B, T / n, D]."""
        return F.rms_norm(x, self.normalized_shape, shared(local(self.weight), self.group), self.eps)


class GatheringNorm(SequenceNorm):
    """The last norm, which gives the whole sequence to the readout: a gradient there is one rank's part."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T / n, D] -> [B, T, D]."""
        whole = gathered(super().forward(x), self.group)
        return whole.clone() if whole._is_view() else whole  # FSDP hangs its hook on what a module returns


def apply_tensor_parallel(stage: Transformer, mesh: Mesh, late: LateGradients | None) -> None:
    """Change the modules of a stage into those of this rank's part, and its weights into DTensors over the group."""
    group = mesh.tp.get_group()
    start = first_row(stage.config.vocab_size, mesh.sizes.tp, mesh.tp_rank)
    for name, module in list(stage.named_modules()):
        kind = GatheringNorm if name == "model.norm" else _checked_kind(name, module)
        if kind is not None:
            module.__class__ = kind
            vars(module).update(group=group, late=late, start=start)
    cut: dict[Tensor, nn.Parameter] = {}
    for name, module in stage.named_modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in cut:
                placement = PLACEMENTS[name.rpartition(".")[2]]
                whole = distribute_tensor(parameter.detach(), mesh.tp, [placement], src_data_rank=None)
                cut[parameter] = nn.Parameter(whole, requires_grad=parameter.requires_grad)
            module.register_parameter(key, cut[parameter])


def _checked_kind(name: str, module: nn.Module) -> type[nn.Module] | None:
    """What a module becomes; None for one that stays.

    Raises:
        InputError: it is a matrix of another kind (FP8, say), whose products would silently become plain ones.
    """
    if isinstance(module, nn.Linear) and type(module) is not nn.Linear:
        raise InputError(
            f"{name} is a {type(module).__name__}, which parallel.tp and zero-bubble do not know",
            "Leave its precision alone, or set parallel.tp = 1 with another pipeline_schedule",
        )
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        Attention: ParallelAttention,
        FeedForward: ParallelFeedForward,
        nn.RMSNorm: SequenceNorm,
        nn.Embedding: ParallelEmbedding,
    }
    return next((parallel for plain, parallel in kinds.items() if isinstance(module, plain)), None)


def put_off_weight_gradients(stage: Transformer, late: LateGradients) -> None:
    """Let the matrices of a stage without tensor parallelism compute their weights' gradients late."""
    for name, module in stage.model.layers.named_modules():
        _checked_kind(name, module)
        if isinstance(module, nn.Linear):
            module.__class__ = PlainLinear
            module.late = late  # type: ignore[assignment]
