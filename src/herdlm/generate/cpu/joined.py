"""Joins linear layers that read the same input into one product, biases included."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from herdlm.generate.matrix import Matrix, matrix


class BiasedMatrix:
    """A matrix whose product has a bias [out] added; the input must carry its ``scale`` already."""

    def __init__(self, plain: Matrix, bias: Tensor) -> None:
        self.plain, self.bias, self.scale = plain, bias, plain.scale

    def __call__(self, x: Tensor) -> Tensor:
        """x [N, in], times ``scale`` -> [N, out]."""
        return self.plain(x).add_(self.bias)


def with_bias(plain: Matrix, bias: Tensor | None) -> Matrix:
    """``plain`` with a bias [out] added; without one, ``plain`` itself."""
    return plain if bias is None else BiasedMatrix(plain, bias)


def bias_of(module: nn.Linear, compute: torch.dtype) -> Tensor | None:
    """The bias of a linear layer in the type of activations; None if it has none."""
    return module.bias.detach().to(compute) if module.bias is not None else None


def joined(*modules: nn.Linear, compute: torch.dtype, heads: int = 0, head_size: int = 0) -> Matrix:
    """The products of linear layers side by side, for activations of type ``compute``.

    Args:
        heads: of the first outputs, this many heads of ``head_size`` channels are reordered so that the two channels
            that RoPE rotates together are neighbors.
    """
    weight = torch.cat([module.weight.detach() for module in modules])
    biases = [bias for module in modules if (bias := bias_of(module, compute)) is not None]
    bias = torch.cat(biases) if biases else None
    for rows in (weight, bias):
        if heads and rows is not None:
            pairs = rows[: heads * head_size].view(heads, 2, head_size // 2, -1)
            pairs.copy_(pairs.transpose(1, 2).clone(memory_format=torch.contiguous_format).view(pairs.shape))
    return with_bias(matrix(weight, compute), bias)
