"""Recipe keys of the training loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from herdlm.base.recipe import Section


class TrainConfig(Section):
    """How one run of the training loop updates weights. Defaults follow the Llama 3 report where it gives a number."""

    peak_lr: float = Field(gt=0)
    warmup_steps: int = Field(0, ge=0)
    decay: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = "cosine"
    decay_steps: int | None = Field(
        None,
        gt=0,
        description="length of the decay from peak_lr to the floor. cosine and linear start after the warm-up and "
        "by default last until the anneal; warmup-stable-decay ends at the anneal",
    )
    floor: float = Field(0.1, ge=0, le=1, description="the end of the decay, as a share of peak_lr")
    anneal_steps: int = Field(0, ge=0, description="the last steps, during which the rate falls linearly to zero")
    horizon_steps: int | None = Field(
        None,
        gt=0,
        description="steps that the schedule spans, if the run is only its first part; default: the run's steps",
    )
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(
        0.1,
        ge=0,
        description="decoupled: each step first shrinks every matrix by weight_decay x its learning rate, "
        "so 0.1 is the report's '0.1 x the learning rate at that step'; norms do not decay",
    )
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16", "fp8"] = Field(
        "bfloat16",
        description="of matrix products; weights and optimizer are FP32. fp8: the matrices of all layers in FP8, "
        "on GPUs from Ada on (a CPU computes the same slowly), everything else as with bfloat16",
    )
    save_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="the type in which the finished model is saved; config.json names it"
    )
    average_last: float = Field(
        0.0, ge=0, lt=1, description="the last share of the run over which weights are averaged"
    )
    average_count: int = Field(5, ge=1, description="how many sets of weights are averaged, evenly spread")
    checkpoint_every_steps: int = Field(200, ge=1)
    checkpoints_kept: int = Field(2, ge=1, description="how many of the newest stay; milestones always stay")
    milestone_every_steps: int | None = Field(
        None,
        gt=0,
        description="steps between milestones: checkpoints that stay and are published with the model; a multiple of "
        "checkpoint_every_steps",
    )
    validate_every_steps: int | None = Field(None, gt=0, description="steps between logging the loss on held-out text")
    prefetch_steps: int = Field(2, ge=0, description="for how many steps ahead batches are made")
    on_not_finite: Literal["stop", "skip", "roll-back"] = Field(
        "stop",
        description="after a step whose loss or gradient is not finite, which is never applied: stop the run, skip "
        "the step, or roll back to the last checkpoint and skip the step from there",
    )
    max_refused_steps: int = Field(10, ge=1, description="stop a run that skipped more steps than this")
    watchdog_seconds: float = Field(
        1800.0, ge=0, description="end the process if no step finishes for this long; 0: never"
    )

    @property
    def autocast(self) -> Literal["float32", "bfloat16"]:
        """The type of what does not run in FP8."""
        return "float32" if self.precision == "float32" else "bfloat16"

    @model_validator(mode="after")
    def _keys_go_together(self) -> TrainConfig:
        if self.decay == "constant" and self.decay_steps is not None:
            raise ValueError("decay_steps has no meaning with decay 'constant': remove one of them")
        if self.decay == "warmup-stable-decay" and self.decay_steps is None:
            raise ValueError("decay 'warmup-stable-decay' needs decay_steps: the number of steps of the decay")
        if self.milestone_every_steps and self.milestone_every_steps % self.checkpoint_every_steps:
            raise ValueError(
                f"milestone_every_steps {self.milestone_every_steps} is no multiple of checkpoint_every_steps "
                f"{self.checkpoint_every_steps}"
            )
        return self


class TrackConfig(Section):
    """The section ``track`` of a recipe. It does not affect results."""

    tensorboard: Literal["auto", "on", "off"] = Field("auto", description="auto: if tensorboard is installed")
    wandb_project: str | None = Field(None, description="also log to this Weights & Biases project")
