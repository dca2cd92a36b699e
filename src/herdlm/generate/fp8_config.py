"""The recipe section of FP8: which matrices, and how finely scaled. The numbers behind it are in ``generate.fp8``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from herdlm.base.recipe import Section

Granularity = Literal["row", "tensor"]


class Fp8Config(Section):
    """Which matrices become FP8, and how finely they are scaled. Defaults: the Llama 3 report's (section 6.2)."""

    matrices: Literal["ffn", "ffn+attention"] = "ffn"
    skip_first_layers: int = Field(1, ge=0)
    skip_last_layers: int = Field(1, ge=0)
    activation_cap: float = Field(1200.0, gt=0, description="largest magnitude that enters an activation's scale")
    granularity: Granularity = Field("row", description="a scale per row, or one per tensor (for contrast)")
