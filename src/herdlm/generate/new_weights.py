"""Gives a fused model new weights, from memory: what training does between two batches of samples."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from herdlm.base.errors import InputError
from herdlm.generate.cpu.fused import FusedFeedForward, FusedLayer, FusedNorm, FusedTransformer
from herdlm.generate.matrix import matrix
from herdlm.model.transformer import Layer, Transformer

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
LAYERS = "model.layers."


def plain_model(model: Transformer) -> FusedTransformer:
    """The engine's ``model``, if it is whole in this process and all its matrices are plain ones.

    Raises:
        InputError: it is quantized, or shared by several processes.
    """
    if not isinstance(model, FusedTransformer) or not all(_is_plain(layer) for layer in model.model.layers):
        raise InputError("the engine's model is quantized, or shared by several processes", "Load it anew")
    return model


def _is_plain(layer: nn.Module) -> bool:
    if not isinstance(layer, FusedLayer) or isinstance(layer.qkv, nn.ModuleList) or isinstance(layer.out, nn.Module):
        return False
    return isinstance(layer.mlp, FusedFeedForward)


@torch.no_grad()
def replace_weights(model: FusedTransformer, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Fuse new weights as a newly loaded model's would be, one layer at a time, so that memory never holds both models.

    Args:
        weights: names and values of a :class:`Transformer` of the same shape, on any device and in any type. Those of a
            layer come one after the other.

    Raises:
        InputError: a weight is missing, unknown, or of another shape. The model has part of the new weights then.
    """
    with torch.device("meta"):
        whole = Transformer(model.config)
    waiting = {name: parameter.shape for name, parameter in whole.named_parameters()}
    device, layers = model.frequencies.device, dict[int, dict[str, Tensor]]()
    for name, given in weights:
        shape = waiting.pop(name, None)
        if shape is None:
            raise InputError(f"the engine's model has no weight {name}, or got it twice", "Give each weight once")
        if given.shape != shape:
            raise InputError(
                f"{name} has the shape {list(given.shape)}, and the engine's model {list(shape)}",
                "Give weights of the model that the engine was made with",
            )
        # What is in the engine's type already would be used as it is, and change as it is trained.
        shared = given.dtype == model.compute and (given.ndim == 1 or given.is_cuda)
        value = given.detach().to(device, copy=shared)
        if not name.startswith(LAYERS):
            _replace_other(model, name, value)
            continue
        number, _, inner = name.removeprefix(LAYERS).partition(".")
        parts = layers.setdefault(int(number), {})
        parts[inner] = value
        if len(parts) == sum(1 for _ in whole.model.layers[int(number)].parameters()):
            _replace_layer(model, int(number), layers.pop(int(number)))
    if waiting:
        raise InputError(f"{len(waiting)} weights are missing, {next(iter(waiting))} first", "Give all weights")


def _replace_layer(model: FusedTransformer, number: int, parts: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        layer = Layer(model.config, number)
    layer.load_state_dict(parts, assign=True)
    old = model.model.layers[number]
    model.model.layers[number] = type(old)(layer, model.compute, compiled=model.compiled)


def _replace_other(model: FusedTransformer, name: str, value: Tensor) -> None:
    if name == EMBEDDING:
        # A copy: the trained embedding changes while the engine still answers with the old one.
        embedding = nn.Embedding(model.config.vocab_size, model.config.dim, device="meta")
        embedding.weight = nn.Parameter(value.to(model.compute, copy=True), requires_grad=False)
        model.model.embed_tokens = embedding
        if model.config.tied_embeddings:
            model.head = matrix(value, model.compute)
    elif name == NORM:
        norm = nn.RMSNorm(model.config.dim, eps=model.config.norm_eps, device="meta")
        norm.weight = nn.Parameter(value)
        model.model.norm = FusedNorm(norm, model.compute, compiled=model.compiled)  # type: ignore[assignment]
    elif name == HEAD:
        model.head = matrix(value, model.compute)
