"""FLOPs of drawing, scoring and training, by what each reads and writes. Attention is counted causally.

A multiplication with its addition is two FLOPs. A token costs 2 for each weight of the matrices that it passes, and
4 L H C for each token that it attends to (queries with keys, and weights with values). Norms, RoPE and the embedding's
lookup are not counted. Only the training of next tokens and what decodes needs the output head.
"""

from __future__ import annotations

from herdlm.model.config import ModelConfig


def body_weights(model: ModelConfig) -> int:
    """Weights of the matrices of all layers."""
    return model.layers * model.layer_matrix_weights


def _attended(model: ModelConfig) -> int:
    """FLOPs for each pair of a token and one that it attends to, in all layers."""
    return 4 * model.layers * model.heads * model.head_size


def _head(model: ModelConfig) -> int:
    return 2 * model.vocab_size * model.dim


def prefill(model: ModelConfig, tokens: int) -> int:
    """Reads a prompt and draws one token after it."""
    return 2 * body_weights(model) * tokens + _attended(model) * tokens * tokens // 2 + _head(model)


def decode(model: ModelConfig, before: int, tokens: int) -> int:
    """Writes ``tokens`` one after the other, behind ``before`` tokens."""
    pairs = before * tokens + tokens * tokens // 2
    return (2 * body_weights(model) + _head(model)) * tokens + _attended(model) * pairs


def read_answers(model: ModelConfig, prompt: int, answer: int, answers: int) -> int:
    """Reads answers to a prompt behind what they share, as a reward model does."""
    shared = 2 * body_weights(model) * prompt + _attended(model) * prompt * prompt // 2
    own = 2 * body_weights(model) * answer + _attended(model) * (prompt * answer + answer * answer // 2)
    return shared + answers * own


def training(model: ModelConfig, tokens: int, document: int) -> int:
    """Forward and backward pass over ``tokens`` in documents of this length."""
    return tokens * model.flops_per_token(document)


def forward(model: ModelConfig, tokens: int, document: int) -> int:
    """A forward pass over as many tokens, a third of training."""
    return training(model, tokens, document) // 3
