"""The recipe section of FP8: which matrices are quantized, and with how many scales."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from herdlm.base.recipe import Section

Granularity = Literal["row", "tensor"]
FeedForward = Literal["gate_up", "down"]

# The names of each granularity in ``compressed-tensors``, for weights and for activations.
STRATEGIES: dict[Granularity, tuple[str, str]] = {"row": ("channel", "token"), "tensor": ("tensor", "tensor")}

FEED_FORWARD: dict[FeedForward, tuple[str, ...]] = {
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")


class Fp8Config(Section):
    """Which matrices become FP8, and how they are scaled. The defaults are the Llama 3 report's (section 6.2)."""

    matrices: tuple[FeedForward, ...] = Field(
        ("gate_up", "down"),
        description="matrices of the feed-forward; gate and up go together, because servers fuse them",
    )
    attention: bool = Field(False, description="quantize the four matrices of attention too")
    skip_first_layers: int = Field(1, ge=0, description="layers at the input that stay in BF16")
    skip_last_layers: int = Field(1, ge=0, description="layers at the output that stay in BF16")
    activation_cap: float = Field(
        1200.0, gt=0, description="largest magnitude that enters an activation's scale; inf for no cap"
    )
    granularity: Granularity = Field("row", description="a scale per row, or one per tensor (for comparison)")

    @field_validator("matrices")
    @classmethod
    def _each_once(cls, value: tuple[FeedForward, ...]) -> tuple[FeedForward, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{', '.join(value)} names a matrix twice")
        return value

    def modules(self) -> tuple[str, ...]:
        """The names, inside a layer, of the linear layers that become FP8."""
        feed_forward = tuple(name for part in FEED_FORWARD if part in self.matrices for name in FEED_FORWARD[part])
        return (ATTENTION if self.attention else ()) + feed_forward
