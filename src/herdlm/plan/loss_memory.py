"""What the last norm, the head and the loss keep of a micro-batch, and what they work with for a moment.

The loss takes rows of logits in the sizes of :mod:`herdlm.model.losses` and :mod:`herdlm.parallel.vocabulary`.
"""

from __future__ import annotations

from dataclasses import dataclass

from herdlm.model.losses import BLOCK, CHUNK, KEPT_BYTES
from herdlm.parallel.vocabulary import ROWS_AT_ONCE
from herdlm.plan.activations import FP32, LayerPass


@dataclass(frozen=True, slots=True)
class LossPass:
    """One micro-batch on a rank of the last stage; ``is_score`` is a reward model's head of one output."""

    layer: LayerPass
    is_score: bool = False

    @property
    def kept(self) -> int:
        """Bytes kept for the backward pass: the norm's input, hidden states with a target, and maybe logits."""
        kept = self.layer.norm_inputs + self._hidden
        return kept + self._width * self.layer.tokens * self.layer.shape.vocab if self._keeps_logits else kept

    @property
    def forward(self) -> int:
        """Bytes of a moment in the forward pass."""
        if self.is_score:
            return 0
        if self.layer.tp > 1:
            return self._hidden + self._rows * self._vocab * (2 * FP32 + self._width)
        return self._hidden + self._softmax + (0 if self._keeps_logits else self._width * self._rows * self._vocab)

    @property
    def backward(self) -> int:
        """Bytes of a moment in the backward pass: logits, their gradients, and the head's gradient."""
        if self.is_score:
            return 0
        width, head = self._width, self._vocab * self.layer.shape.hidden
        if self.layer.tp > 1:
            narrow = width if width < FP32 else 0
            return self._rows * self._vocab * (3 * FP32 + narrow) + FP32 * head + self._hidden
        if self._keeps_logits:
            return width * head + 3 * self._hidden
        return width * self._rows * self._vocab + self._softmax + (FP32 + width) * head + self._hidden

    @property
    def _width(self) -> int:
        return self.layer.widths.product

    @property
    def _hidden(self) -> int:
        """Bytes of the hidden states of all tokens."""
        return self._width * self.layer.tokens * self.layer.shape.hidden

    @property
    def _device(self) -> str:
        return "cpu" if self.layer.device == "cpu" else "cuda"

    @property
    def _vocab(self) -> int:
        return -(-self.layer.shape.vocab // self.layer.tp)

    @property
    def _keeps_logits(self) -> bool:
        size = self._width * self.layer.tokens * self.layer.shape.vocab
        return not self.is_score and self.layer.tp == 1 and size <= KEPT_BYTES[self._device]

    @property
    def _rows(self) -> int:
        """Targets whose logits exist at a time."""
        if self.layer.tp > 1:
            return min(ROWS_AT_ONCE, self.layer.tokens)
        if self._keeps_logits:
            return self.layer.tokens
        return min(max(CHUNK[self._device] // self._vocab, 1), self.layer.tokens)

    @property
    def _softmax(self) -> int:
        """Bytes of a block of logits in FP32 and of its softmax, where the vocabulary is whole."""
        rows = min(max(BLOCK[self._device] // self._vocab, 1), self._rows)
        return (2 if self._width < FP32 else 1) * FP32 * rows * self._vocab
