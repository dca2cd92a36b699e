"""What one layer keeps for its backward pass, tensor by tensor, and what a pass needs for a moment beside it.

The tensors are those that this package's layers save (:mod:`herdlm.parallel.tensor`, :mod:`herdlm.model.transformer`):
a column-parallel product saves the shard of its input and gathers it again, feed-forward saves both factors, their
product and the activation. The other devices' kernels differ: a CPU has no fused norm under tensor parallelism, and its
attention may keep the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from herdlm.model.tiles import KEPT_KEYS, TILE
from herdlm.plan.job import Recompute, Shape

Device = Literal["gpu", "cpu"]
FP32 = 4


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes of a value: of the residual stream between layers, and of the factors of matrix products."""

    stream: int
    product: int


@dataclass(frozen=True)
class LayerPass:
    """One micro-batch in one layer on one rank.

    Attributes:
        tokens: of the micro-batch on this rank's context-parallel share, before tensor parallelism cuts them.
        seq_len: of a row, over all context-parallel ranks; rows are taken to be one document, which costs most.
        sharded: FSDP gathers the weights; otherwise autocast, if it is on, makes copies for every pass.
    """

    shape: Shape
    tp: int
    cp: int
    tokens: int
    seq_len: int
    widths: Widths
    sharded: bool = True
    device: Device = "gpu"

    @property
    def shard(self) -> int:
        """Tokens of a rank between matrices."""
        return -(-self.tokens // self.tp)

    @property
    def queries(self) -> int:
        """Width of a rank's queries."""
        return self.shape.queries // self.tp

    @property
    def keys(self) -> int:
        """Width of a rank's keys; a head is copied where there are fewer heads than ranks."""
        return -(-self.shape.kv_heads // self.tp) * self.shape.head_size

    @property
    def ffn(self) -> int:
        """Width of a rank's part of the feed-forward."""
        return -(-self.shape.ffn // self.tp)

    @property
    def norm_inputs(self) -> int:
        """Bytes of a norm's input that it keeps; without a fused kernel, in FP32 before and after the division."""
        values = self.shard * self.shape.hidden
        unfused = self.device == "cpu" and (self.tp > 1 or self.widths.stream < FP32)
        return (2 * FP32 if unfused else self.widths.stream) * values

    @cached_property
    def norms(self) -> int:
        """Bytes that the two norms keep: inputs, results, and a number per token."""
        values = self.shard * self.shape.hidden
        inputs = self.norm_inputs
        copies = 2
        if self.device == "gpu" and self.tp == 1 and self.widths.stream > self.widths.product:
            copies = 5  # autocast converts the input of each matrix anew
        return 2 * (inputs + FP32 * self.shard) + copies * self.widths.product * values

    @cached_property
    def attention(self) -> int:
        """Bytes that attention keeps: rotated queries and keys, values, result, normalizers."""
        width, tokens = self.widths.product, self.tokens
        kept = width * tokens * (2 * self.queries + 2 * self.cp * self.keys)
        heads = self.shape.heads // self.tp
        if self.device == "cpu" and self.cp == 1:
            return kept + width * heads * kept_weights(tokens, self.seq_len)
        kept += FP32 * tokens * heads
        if self.cp > 1:  # results of the two chunks are put together; masks of queries over earlier keys
            kept += width * tokens * self.queries + self._masks
        return kept

    @property
    def _masks(self) -> int:
        """Bytes of the masks of a context-parallel rank's two chunks in one row, for all of its rows."""
        rows = max(self.tokens * self.cp // self.seq_len, 1)
        chunk = self.seq_len // (2 * self.cp)
        return rows * chunk * chunk * (2 * self.cp + 1) * (1 + self.widths.product)

    @cached_property
    def feed_forward(self) -> int:
        """Bytes that the feed-forward keeps."""
        return self.widths.product * self.tokens * self.ffn * (4 if self.shape.mlp == "gated" else 2)

    @cached_property
    def whole(self) -> int:
        """Bytes that a layer keeps without checkpointing."""
        return self.norms + self.attention + self.feed_forward

    @property
    def input(self) -> int:
        """Bytes of a layer's input, or of its output."""
        return self.widths.stream * self.shard * self.shape.hidden

    def kept(self, recompute: Recompute) -> int:
        """Bytes that a layer keeps until its backward pass begins."""
        if recompute == "full":
            return self.input
        if recompute == "none":
            return self.whole
        width, tokens = self.widths.product, self.tokens
        products = 2 * self.queries + 2 * self.keys + (self.shape.mlp_matrices - 1) * self.ffn
        sums = 2 * self.shape.hidden * (tokens + (self.shard if self.tp > 1 else 0))
        heads = self.shape.heads // self.tp
        if self.device == "cpu" and self.cp == 1:
            more = width * heads * kept_weights(tokens, self.seq_len)
        else:
            more = FP32 * tokens * heads
        return self.input + width * (tokens * products + sums) + more

    def recomputed(self, recompute: Recompute) -> int:
        """Bytes that the backward pass of one layer adds by computing it again."""
        if recompute == "none":
            return 0
        if recompute == "full":
            return self.whole - self.input
        return max(self.whole - self.kept("selective") + self._unread, 0)

    @property
    def _unread(self) -> int:
        """Of what selective checkpointing keeps, what no backward pass reads: results of the row-parallel products."""
        return self.widths.product * 2 * self.shape.hidden * (self.tokens + (self.shard if self.tp > 1 else 0))

    @property
    def backward(self) -> int:
        """The most bytes of gradients and gathered inputs in a layer's backward pass, beyond what it has freed."""
        width, tokens, hidden = self.widths.product, self.tokens, self.shape.hidden
        whole = hidden * tokens
        freed = self.ffn * tokens * (4 if self.shape.mlp == "gated" else 2)
        # The product back from the feed-forward's result; then both its first matrices, with the gathered input.
        begin = whole + self.ffn * tokens
        gathered = 2 if self.tp > 1 else 1
        later = (self.shape.mlp_matrices - 1) * self.ffn * tokens + (1 + gathered) * whole - freed
        return width * max(begin, later) + 2 * self.input

    @property
    def deferred(self) -> int:
        """Bytes of the factors of weight gradients that a split backward pass leaves for later."""
        inputs = 2 * self.shape.hidden + self.queries + self.ffn  # the gathered inputs, whole
        grads = self.queries + 2 * self.keys + (self.shape.mlp_matrices - 1) * self.ffn + 2 * self.shape.hidden
        return self.widths.product * self.tokens * (inputs + grads)


def kept_weights(tokens: int, seq_len: int) -> int:
    """Values of one head's attention weights that a CPU keeps for rows of one document each; 0 for long ones."""
    at = range(0, seq_len, TILE)
    pairs = sum((min(begin + TILE, seq_len) - begin) * min(begin + TILE, seq_len) for begin in at)
    return max(tokens // seq_len, 1) * pairs if pairs <= KEPT_KEYS * seq_len else 0
