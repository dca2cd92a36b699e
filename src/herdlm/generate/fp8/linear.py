"""Row-wise FP8 for the large matrix products, kept in folders that transformers and vLLM read too.

The rules are the Llama 3 report's (section 6.2): the matrix products of the feed-forward only, the first and the last
layer left alone, one scale per output channel of a weight (fixed) and per token of an activation (taken from the token
itself as it comes).

**Numbers.** A tensor is ``values * scale`` with values in e4m3 (largest 448, three mantissa bits) and
``scale = largest magnitude / 448`` of its row. Weight scales are rounded up to bfloat16 before the values are taken, so
that a reader that loads them in bfloat16 computes with exactly the numbers written here.

**The cap.** The report bounds dynamic scales from above by 1,200, because rare tokens with huge activations otherwise
get a scale so coarse that their small values vanish. The bound acts on the magnitude that enters the scale, as in the
kernels and the released FP8 checkpoints (``activation_scale_ub``): ``scale = min(largest magnitude, 1200) / 448``, and
what lies beyond +-1,200 saturates there. A bound on the quotient itself would first act at a magnitude of 537,600. The
``compressed-tensors`` format has no place for the cap; it is written as an extra key that other readers pass over, so
they differ from us on just those tokens that exceed it.

**Files.** ``compressed-tensors`` layout "float-quantized": ``NAME.weight`` in F8_E4M3, ``NAME.weight_scale`` in
bfloat16, [out, 1] ([1] with one scale per tensor), everything else in bfloat16.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.generate.fp8.config import Granularity
from herdlm.generate.matrix import Matrix, matrix
from herdlm.model.config import ModelConfig
from herdlm.model.hf import CONFIG, checked_weights, config_from_hf, fill
from herdlm.model.transformer import Transformer, materialize
from herdlm.model.weights import read_json

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
TINY = 1e-30  # stands for the largest magnitude of a row of zeros, which has no scale
SMALL = 8192  # values from which on a conversion of our own is faster
STRATEGIES: dict[Granularity, tuple[str, str]] = {"row": ("channel", "token"), "tensor": ("tensor", "tensor")}


def weight_scale(largest: Tensor) -> Tensor:
    """The scale that goes with the largest magnitude of a weight's row, or of all of it: float32, exact in bfloat16."""
    scale = _up_to_bfloat16(largest / FP8_MAX)
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def weight_values(weight: Tensor, scale: Tensor) -> Tensor:
    """A weight's rows in FP8 under a scale."""
    return (weight / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8)


def quantize_activation(
    x: Tensor, granularity: Granularity, cap: float, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """Values [N, in] in FP8 and their scale, [N, 1] or [1] float32, of activations [N, in].

    ``cap`` is the largest magnitude that enters a scale; ``math.inf`` for none. A row that is not finite gets a scale
    of NaN, so that it stays visible: the cap would turn an infinity into an ordinary number. Where the ranks of
    ``group`` hold a part of each row, the scale is that of the whole.
    """
    x = x.float()
    mine = x.abs().amax(-1, keepdim=True) if granularity == "row" else x.abs().amax().reshape(1)
    largest = mine
    if group is not None:
        largest = mine.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    # 0 * infinity is NaN: the last term is 0 for every finite row. Of this rank's own part, as NaN has no maximum.
    scale = largest.clamp(TINY, cap).div_(FP8_MAX).add_(mine, alpha=0)
    return (x / scale).clamp_(-FP8_MAX, FP8_MAX).to(FP8), scale


def exact_floats(values: Tensor) -> Tensor:
    """FP8 values as float32. NaN may become 480: the scale of its row is NaN then.

    An e4m3 number's bits, moved up by seven, are those of a half-precision number 256 times smaller; processors widen
    those by the eight, which is ten times faster on a CPU than torch's own conversion of large tensors.
    """
    if values.device.type != "cpu" or values.numel() < SMALL:
        return values.float()
    bits = values.view(torch.int8).to(torch.int16).mul_(128).bitwise_and_(~0x4000)
    return bits.view(torch.float16).float().mul_(256)


def _up_to_bfloat16(x: Tensor) -> Tensor:
    """The least bfloat16 value that is not below ``x`` (float32, not negative), as float32."""
    return ((x.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)


class Fp8Linear(nn.Module):
    """A linear map without bias whose weight is FP8 and whose input is rounded to FP8 as it comes.

    One of two backends is chosen for the device and type of the first input:

    - "scaled_mm": CUDA of compute capability 9.0 and up, bfloat16, sizes that are multiples of 16. The GPU multiplies
      FP8 by FP8.
    - "dense": everything else. The values are kept once more as a matrix in the form that is fastest to multiply by
      (:func:`herdlm.generate.matrix.matrix`), which holds them exactly; both scales are applied after the product. The
      numbers are those of "scaled_mm" up to rounding of sums. On a CPU the product is at least float32 whatever the
      type of the activations: it is exact, as the sums of "scaled_mm" are, and many CPUs have no units for bfloat16.

    Args:
        group: ranks that hold a part of the input's channels each; their outputs are yet to be summed.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(
        self, inputs: int, outputs: int, granularity: Granularity, cap: float, group: dist.ProcessGroup | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.granularity, self.cap, self.group = granularity, cap, group
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=FP8))
        self.register_buffer("weight_scale", torch.empty((outputs, 1) if granularity == "row" else (1,)))
        self.backend: str | None = None
        self._chosen_for: tuple[torch.device, torch.dtype] | None = None
        self._dense: Matrix | None = None
        self._wide = torch.float32

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moves weight and scale as bits, so that a change of type of the whole model leaves both as they are."""
        self.weight = fn(self.weight.view(torch.uint8)).view(FP8)
        self.weight_scale = fn(self.weight_scale.view(torch.int32)).view(torch.float32)
        self._chosen_for = self._dense = None
        return self

    def _choose(self, device: torch.device, dtype: torch.dtype) -> None:
        sizes_fit = all(size % 16 == 0 for size in self.weight.shape)
        hopper = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
        self.backend = "scaled_mm" if hopper and sizes_fit and dtype == torch.bfloat16 else "dense"
        self._dense = None
        if self.backend == "dense":
            wide = dtype if device.type != "cpu" else torch.promote_types(dtype, torch.float32)
            self._dense, self._wide = matrix(exact_floats(self.weight), wide), wide
        self._chosen_for = (device, dtype)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], without gradient."""
        if self._chosen_for != (x.device, x.dtype):
            self._choose(x.device, x.dtype)
        outputs, inputs = self.weight.shape
        rows = x.reshape(-1, inputs)
        if rows.shape[0] == 0:
            return x.new_empty(*x.shape[:-1], outputs)
        values, scale = quantize_activation(rows, self.granularity, self.cap, self.group)
        if self._dense is None:
            out = torch._scaled_mm(
                values, self.weight.t(), scale_a=scale, scale_b=self.weight_scale.t(), out_dtype=x.dtype
            )
        else:
            product = self._dense(exact_floats(values).to(self._wide)).mul_(scale * self._dense.scale)
            out = product.mul_(self.weight_scale.t()).to(x.dtype)
        return out.reshape(*x.shape[:-1], outputs)

    def rows(self, ranks: int, rank: int) -> Fp8Linear:
        """This rank's output channels, with their scales."""
        scale = self.weight_scale.chunk(ranks)[rank] if self.granularity == "row" else self.weight_scale
        return self._part(self.weight.chunk(ranks)[rank], scale, None)

    def columns(self, ranks: int, rank: int, group: dist.ProcessGroup) -> Fp8Linear:
        """This rank's input channels. The rest of a token's are on the other ranks, and its scale is of all."""
        return self._part(self.weight.chunk(ranks, dim=1)[rank], self.weight_scale, group)

    def _part(self, weight: Tensor, scale: Tensor, group: dist.ProcessGroup | None) -> Fp8Linear:
        with torch.device("meta"):
            part = Fp8Linear(weight.shape[1], weight.shape[0], self.granularity, self.cap, group)
        part.weight, part.weight_scale = weight.clone(memory_format=torch.contiguous_format), scale.clone()
        return part


def is_fp8(folder: Path) -> bool:
    """Whether the model in ``folder`` is quantized, so that :func:`load_fp8` reads it rather than ``load_folder``."""
    return read_json(folder / CONFIG).get("quantization_config") is not None


def shape_of(folder: Path) -> ModelConfig:
    """The shape of the model in ``folder``, quantized or not.

    Raises:
        InputError: there is no model, or one that cannot be represented exactly.
        DamagedError: its config.json cannot be read.
    """
    settings = read_json(folder / CONFIG)
    settings.pop("quantization_config", None)
    return config_from_hf(settings, str(folder / CONFIG))


class _WeightArguments(BaseModel):
    num_bits: Literal[8]
    type: Literal["float"]
    symmetric: Literal[True] = True
    strategy: Literal["channel", "tensor"]
    dynamic: Literal[False] = False


class _ActivationArguments(BaseModel):
    num_bits: Literal[8]
    type: Literal["float"]
    symmetric: Literal[True] = True
    strategy: Literal["token", "tensor"]
    dynamic: Literal[True]


class _Group(BaseModel):
    targets: tuple[Literal["Linear"]]
    weights: _WeightArguments
    input_activations: _ActivationArguments
    output_activations: None = None


class _Scheme(BaseModel):
    """The ``quantization_config`` of a folder, as far as it can be read; keys that change no number are passed over."""

    quant_method: Literal["compressed-tensors"]
    format: Literal["float-quantized"]
    kv_cache_scheme: None = None
    config_groups: dict[str, _Group] = Field(min_length=1, max_length=1)
    ignore: tuple[str, ...] = ()
    activation_scale_ub: float | None = Field(None, gt=0)

    @property
    def granularity(self) -> Granularity:
        """How both sides are scaled.

        Raises:
            ValueError: each side differently.
        """
        group = next(iter(self.config_groups.values()))
        strategies = (group.weights.strategy, group.input_activations.strategy)
        for granularity, known in STRATEGIES.items():
            if known == strategies:
                return granularity
        raise ValueError(
            f"weights scaled per {strategies[0]} with activations scaled per {strategies[1]} are not known"
        )

    @model_validator(mode="after")
    def _sides_fit(self) -> _Scheme:
        _ = self.granularity
        return self

    def ignores(self, name: str) -> bool:
        """Whether the module ``name`` is left as it is; rules are names, or patterns behind ``re:``."""
        return any(re.match(rule[3:], name) if rule.startswith("re:") else rule == name for rule in self.ignore)


@torch.no_grad()
def load_fp8(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """The model in a ``compressed-tensors`` FP8 folder, ours or another tool's, for inference.

    Args:
        dtype: of the activations and of the weights that are not FP8.

    Raises:
        InputError: the folder's scheme is another one than FP8 with dynamic activations; the key is named.
        DamagedError: a file is missing or damaged, or its tensors are not what config.json says.
    """
    settings = read_json(folder / CONFIG)
    where = str(folder / CONFIG)
    quantization = settings.pop("quantization_config", None)
    if not isinstance(quantization, dict):
        raise InputError(f"{where}: the model is not quantized", "Load it as an ordinary folder")
    scheme = parse(_Scheme, quantization, f"{where}, quantization_config")
    model = _skeleton(config_from_hf(settings, where)).to(dtype)
    dense = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    with torch.device("meta"):
        for name, linear in dense:
            if not scheme.ignores(name):
                new = Fp8Linear(
                    linear.in_features, linear.out_features, scheme.granularity, scheme.activation_scale_ub or math.inf
                )
                model.set_submodule(name, new)
    weights = checked_weights(folder, model)
    model = materialize(model, device)
    fill(model, weights)
    return model.requires_grad_(False)


def _skeleton(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)
