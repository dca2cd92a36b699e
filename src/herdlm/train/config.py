"""Recipe keys of the training loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from herdlm.base.recipe import Section


class TrainConfig(Section):
    """How one run of the loop updates weights. Defaults follow the Llama 3 report where it gives a number."""

    peak_lr: float = Field(gt=0)
    warmup_steps: int = Field(0, ge=0)
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    floor: float = Field(0.1, ge=0, le=1, description="where the decay ends, as a share of peak_lr")
    anneal_steps: int = Field(0, ge=0, description="the last steps, in which the rate falls linearly to zero")
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0, description="each step shrinks matrices by weight_decay x rate")
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="of the forward pass; weights are FP32")
    average_last: float = Field(0.0, ge=0, lt=1, description="share of the run whose checkpoints are averaged")
    average_count: int = Field(5, ge=1, description="how many checkpoints are averaged, evenly spread")
    checkpoint_every_steps: int = Field(200, ge=1)
