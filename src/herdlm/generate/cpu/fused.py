"""The Transformer in the form that generation runs: the same arithmetic in fewer and larger operations.

Queries, keys and values come from one product, gate and up from another; norms, sums and activations work in place.
The channels of queries and keys are reordered, both alike, so that two channels RoPE rotates together are neighbors.
Rotation is then one product of complex numbers, and the dot products of queries and keys sum the same terms.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from herdlm.generate.cpu.compiled import compiled_pays, kernels, worth_compiling
from herdlm.generate.cpu.joined import bias_of, joined, with_bias
from herdlm.generate.matrix import Matrix, WholeMatrix, matrix
from herdlm.model.attention import Attend
from herdlm.model.transformer import FeedForward, Layer, Transformer


class FusedNorm(nn.Module):
    """RMSNorm whose result is multiplied by ``scale``."""

    def __init__(self, norm: nn.RMSNorm, compute: torch.dtype, scale: float = 1.0, *, compiled: bool = False) -> None:
        super().__init__()
        size = norm.normalized_shape[0]
        eps = torch.finfo(compute).eps if norm.eps is None else norm.eps
        weight = norm.weight.detach().to(compute) * scale
        self.shape, self.eps, self.own = (size,), eps, weight.device.type == "cpu" and compute == torch.float32
        self.sum_eps = eps * size
        # Normalizing by the sum of squares instead of their mean saves an operation.
        self.weight = weight * size**0.5 if self.own else weight
        self.kernels = kernels() if compiled and self.own else None

    def forward(self, x: Tensor) -> Tensor:
        """x [N, D] -> [N, D]."""
        if self.kernels and compiled_pays(x):
            normed: Tensor = self.kernels.norm(x, self.weight, self.sum_eps)
            return normed
        if not self.own:
            return F.rms_norm(x, self.shape, self.weight, self.eps)
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().add_(self.sum_eps).rsqrt_()
        out: Tensor = (x * inverse).mul_(self.weight)
        return out


class FusedFeedForward(nn.Module):
    """SwiGLU with gate and up in one product. The caller multiplies its output by ``down.scale`` and adds its bias."""

    def __init__(self, whole: FeedForward, compute: torch.dtype, *, compiled: bool = False) -> None:
        super().__init__()
        self.gate_up = joined(whole.gate_proj, whole.up_proj, compute=compute)
        self.down = matrix(whole.down_proj.weight.detach(), compute)
        self.kernels = kernels() if compiled and compute == torch.float32 else None

    def forward(self, x: Tensor) -> Tensor:
        """x [N, D] -> [N, D]."""
        both = self.gate_up(x)
        if self.kernels and compiled_pays(both):
            return self.down(self.kernels.gated(both))
        gate, up = both.chunk(2, dim=-1)
        return self.down(F.silu(gate).mul_(up))


class UnfusedFeedForward(nn.Module):
    """SwiGLU whose matrices are not all plain: those of another kind, FP8 say, are called as they are.

    The caller adds the last bias.
    """

    def __init__(self, whole: FeedForward, compute: torch.dtype) -> None:
        super().__init__()
        self.gate, self.up = (
            with_bias(WholeMatrix(part.weight.detach().to(compute)), bias_of(part, compute)) if _plain(part) else part
            for part in (whole.gate_proj, whole.up_proj)
        )
        down = whole.down_proj
        self.down = WholeMatrix(down.weight.detach().to(compute)) if _plain(down) else down

    def forward(self, x: Tensor) -> Tensor:
        """x [N, D] -> [N, D]."""
        return product(self.down, F.silu(self.gate(x)).mul_(self.up(x)))


class FusedLayer(nn.Module):
    """One layer. Matrices of another kind than ``nn.Linear``, FP8 say, are called as they are.

    Args:
        group: ranks that share this layer's heads and channels; their outputs are summed.
        compiled: whether to use code compiled for this processor; see :mod:`herdlm.generate.cpu.compiled`.
    """

    def __init__(
        self, whole: Layer, compute: torch.dtype, group: dist.ProcessGroup | None = None, *, compiled: bool = False
    ) -> None:
        super().__init__()
        attention = whole.self_attn
        self.number, self.head_size, self.group = attention.layer, attention.head_size, group
        self.heads = attention.q_proj.weight.shape[0] // self.head_size
        self.keys = attention.k_proj.weight.shape[0] // self.head_size
        self.rotated_heads = self.heads + self.keys
        self.qkv: Matrix | nn.ModuleList
        qkv_scale = gate_scale = self.mlp_scale = self.out_scale = 1.0
        self.out_bias, self.mlp_bias = (bias_of(part, compute) for part in (attention.o_proj, whole.mlp.down_proj))
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        if _plain(*projections):
            self.qkv = joined(*projections, compute=compute, heads=self.rotated_heads, head_size=self.head_size)
            qkv_scale = self.qkv.scale
        else:
            self.qkv = nn.ModuleList(projections)
        self.out: Matrix | nn.Module
        if _plain(attention.o_proj):
            self.out = matrix(attention.o_proj.weight.detach(), compute)
            self.out_scale = self.out.scale
        else:
            self.out = attention.o_proj
        self.mlp: nn.Module
        if _plain(whole.mlp.gate_proj, whole.mlp.up_proj, whole.mlp.down_proj):
            self.mlp = mlp = FusedFeedForward(whole.mlp, compute, compiled=compiled)
            gate_scale, self.mlp_scale = mlp.gate_up.scale, mlp.down.scale
        else:
            self.mlp = UnfusedFeedForward(whole.mlp, compute)
        self.input_layernorm = FusedNorm(whole.input_layernorm, compute, qkv_scale, compiled=compiled)
        self.post_attention_layernorm = FusedNorm(
            whole.post_attention_layernorm, compute, gate_scale, compiled=compiled
        )

    def forward(self, x: Tensor, rotation: Tensor, attend: Attend) -> Tensor:
        """x [N, D] -> [N, D], in place; ``rotation`` [N, 1, C/2] is that of :func:`rotation_of`."""
        qk, v = self._projected(self.input_layernorm(x))
        pairs = torch.view_as_complex(qk.float().view(*qk.shape[:2], -1, 2))
        qk = torch.view_as_real(pairs * rotation).view(qk.shape).to(x.dtype)
        q, k = qk[None].split_with_sizes((self.heads, self.keys), dim=2)
        mixed = attend(self.number, q, k, v[None])
        self._add(x, product(self.out, mixed.reshape(len(x), -1)), self.out_scale, self.out_bias)
        self._add(x, self.mlp(self.post_attention_layernorm(x)), self.mlp_scale, self.mlp_bias)
        return x

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries with keys [N, H + K, C], channels in pairs, and values [N, K, C]."""
        if isinstance(self.qkv, nn.ModuleList):
            q, k, v = (project(x).view(len(x), -1, self.head_size) for project in self.qkv)
            qk = torch.cat((q, k), dim=1)
            return qk.view(*qk.shape[:2], 2, -1).transpose(-1, -2).reshape(qk.shape), v
        heads = self.qkv(x).view(len(x), -1, self.head_size)
        return heads[:, : self.rotated_heads], heads[:, self.rotated_heads :]

    def _add(self, x: Tensor, part: Tensor, scale: float, bias: Tensor | None) -> None:
        if self.group is not None:
            dist.all_reduce(part, group=self.group)
        x.add_(part, alpha=scale)
        if bias is not None:
            x.add_(bias)


def rotation_of(positions: Tensor, frequencies: Tensor, scale: float) -> Tensor:
    """RoPE's rotations at positions [N], complex numbers [N, 1, C/2] of length ``scale``."""
    angles = positions.float()[:, None, None] * frequencies
    return torch.polar(torch.full_like(angles, scale), angles)


class FusedTransformer(Transformer):
    """A model for generation, made from one in the form of training. It shares the embedding and copies the rest.

    Args:
        compute: the type of activations.
        free_original: take the weights that were copied from ``whole``, a layer at a time, so that memory never holds
            both. ``whole`` cannot be used after that.
        layer: the class of its layers.
    """

    def __init__(
        self,
        whole: Transformer,
        compute: torch.dtype,
        *,
        free_original: bool = False,
        layer: type[FusedLayer] = FusedLayer,
    ) -> None:
        nn.Module.__init__(self)
        self.config, self.compute, self.rotation_scale = whole.config, compute, whole.rotation_scale
        self.register_buffer("frequencies", whole.frequencies, persistent=False)
        with torch.no_grad(), torch.device("meta"):
            self.model = Transformer(whole.config.model_copy(update={"layers": 0})).model
        self.model.embed_tokens = whole.model.embed_tokens
        self.compiled = worth_compiling(whole.config, whole.frequencies.device, compute)
        self.model.norm = FusedNorm(whole.model.norm, compute, compiled=self.compiled)  # type: ignore[assignment]
        for index, part in enumerate(whole.model.layers):
            assert isinstance(part, Layer)
            self.model.layers.append(layer(part, compute, compiled=self.compiled))
            if free_original:
                whole.model.layers[index] = nn.Identity()
        self.head = matrix(whole.lm_head.weight.detach(), compute)

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states [1, T, D] after the final norm, from tokens and positions [1, T]."""
        rotation = rotation_of(positions[0], self.frequencies, self.rotation_scale)
        x: Tensor = self.model.embed_tokens(tokens[0]).to(self.compute)
        for layer in self.model.layers:
            x = layer(x, rotation, attend)
        hidden: Tensor = self.model.norm(x)
        return hidden[None]

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [N, V] from hidden states [N, D]."""
        return self.head(hidden * self.head.scale)


def product(by: Matrix | nn.Module, x: Tensor) -> Tensor:
    """``x`` times a matrix without its bias: where ranks hold parts, the bias is added once, to their sum."""
    out: Tensor = by.product(x) if isinstance(by, nn.Module) else by(x)  # type: ignore[operator]
    return out


def _plain(*modules: nn.Module) -> bool:
    return all(type(module) is nn.Linear for module in modules)
