"""LoRA (Hu et al., arXiv 2106.09685): trains a low-rank term beside frozen matrices.

An adapted layer computes ``base(x) + scale * B (A x)`` with A [rank, in] and B [out, rank], in FP32. The names and
weights of the base stay, so everything that works on a model works on an adapted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.model.transformer import Transformer

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Lora:
    """The shape of a model's adapters; ``alpha`` / ``rank`` scales their term."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = TARGETS

    @property
    def scale(self) -> float:
        """What the low-rank term is multiplied by."""
        return self.alpha / self.rank


class LoraLinear(nn.Linear):
    """A linear layer with an adapter."""

    lora: Lora
    lora_a: nn.Parameter
    lora_b: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        out = super().forward(x)
        low = F.linear(x, self.lora_a) * self.lora.scale
        return torch.addmm(out.flatten(0, -2), low.flatten(0, -2), self.lora_b.mT).view_as(out)


def add_lora(
    model: Transformer, rank: int, alpha: float | None = None, targets: Sequence[str] = TARGETS, *, seed: int = 0
) -> Lora:
    """Freeze ``model`` and add adapters to the matrices that ``targets`` name, in place; they change nothing yet.

    A is random and B zero. A reward model's head stays trained in full.

    Args:
        alpha: by default twice the rank.
        seed: of A, matrix by matrix.

    Raises:
        InputError: the rank is not positive, a target is not a matrix of a layer, a matrix is of another kind (FP8), or
            there are adapters already.
    """
    lora = Lora(rank, 2.0 * rank if alpha is None else alpha, tuple(targets))
    _check(model, lora)
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in lora.targets
    ]
    special = next(
        (f"{name} is a {type(module).__name__}" for name, module in chosen if type(module) is not nn.Linear), None
    )
    if special:
        raise InputError(f"{special}, to which LoRA cannot be added", "Add LoRA to a model of plain linear layers")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if model.config.head == "score":
        model.score.weight.requires_grad_(True)
    for name, module in chosen:
        _adapt(module, lora, derive_seed(seed, f"{name}.lora"))
    return lora


def _check(model: Transformer, lora: Lora) -> None:
    if lora.rank < 1:
        raise InputError(f"the rank of LoRA is {lora.rank}", "Give a rank of 1 or more; 8 to 64 are usual")
    unknown = [target for target in lora.targets if target not in TARGETS]
    if unknown or not lora.targets:
        raise InputError(f"LoRA cannot adapt {', '.join(unknown) or 'nothing'}", f"Name some of {', '.join(TARGETS)}")
    if lora_of(model) is not None:
        raise InputError("the model has LoRA adapters already", "Merge them first: herdlm.model.lora.merge_lora")


@torch.no_grad()
def _adapt(module: nn.Linear, lora: Lora, seed: int) -> None:
    place = dict(device=module.weight.device, dtype=torch.promote_types(module.weight.dtype, torch.float32))
    a = torch.empty(lora.rank, module.in_features, dtype=torch.float32)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=torch.Generator().manual_seed(seed))
    module.__class__ = LoraLinear
    adapted = cast("LoraLinear", module)
    adapted.lora = lora
    adapted.lora_a = nn.Parameter(a.to(**place))  # type: ignore[call-overload]
    adapted.lora_b = nn.Parameter(torch.zeros(module.out_features, lora.rank, **place))  # type: ignore[call-overload]


def adapted_modules(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The names and modules that have an adapter."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def lora_of(model: nn.Module) -> Lora | None:
    """The adapters' shape; None if the model has none."""
    return next((module.lora for _, module in adapted_modules(model)), None)


@torch.no_grad()
def merge_lora(model: Transformer) -> Transformer:
    """Add the adapters to the matrices and remove them, in place; the logits stay the same. Returns ``model``."""
    for _, module in list(adapted_modules(model)):
        module.weight.copy_(_merged(module.weight, module.lora_a, module.lora_b, module.lora))
        del module.lora_a, module.lora_b, module.lora
        cast("nn.Module", module).__class__ = nn.Linear
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


@torch.no_grad()
def merged_weights(weights: Iterable[tuple[str, Tensor]], lora: Lora | None) -> Iterator[tuple[str, Tensor]]:
    """The weights that :func:`merge_lora` would leave, by name; the model keeps its adapters.

    Args:
        weights: of a model, in the order of its parameters. One matrix is held until its adapter follows.
        lora: the adapters' shape; None: there are none.
    """
    if lora is None:
        yield from weights
        return
    held: list[tuple[str, Tensor]] = []  # a matrix, and A
    for name, value in weights:
        module, _, kind = name.rpartition(".")
        if kind == "lora_a" or (kind == "weight" and module.rpartition(".")[2] in lora.targets):
            held.append((name, value))
        elif kind == "lora_b":
            (matrix, base), (_, a) = held
            held.clear()
            yield matrix, _merged(base, a, value, lora)
        else:
            yield name, value


def _merged(weight: Tensor, a: Tensor, b: Tensor, lora: Lora) -> Tensor:
    wide = torch.promote_types(weight.dtype, torch.float32)
    return weight.to(wide) + (b.to(wide) @ a.to(wide)) * lora.scale
