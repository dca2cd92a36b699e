"""Recipe keys of the models: their shapes or the folders they start from, and their roles."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from herdlm.base.recipe import Section
from herdlm.model.config import MAX_CONTEXT, MAX_LAYERS, MAX_WIDTH, RopeScaling, check_scaling
from herdlm.model.kept_layers import check_kept, spread_layers
from herdlm.parallel.config import ParallelConfig
from herdlm.train.distill_config import DistillConfig

SHAPE = ("dim", "layers", "heads", "kv_heads", "ffn_dim")


class ShrinkConfig(Section):
    """A model that starts as some layers of another."""

    start: str = Field(alias="from", description="the model of the herd whose layers it keeps")
    layers: int | None = Field(
        None, ge=1, le=MAX_LAYERS, description="how many to keep, spread evenly from the first to the last"
    )
    keep: tuple[int, ...] = Field((), description="the numbers of the layers to keep, from 0, in place of layers")

    @model_validator(mode="after")
    def _layers_are_named_once(self) -> ShrinkConfig:
        if (self.layers is None) == (not self.keep):
            raise ValueError("shrink needs layers or keep, one of them")
        return self

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        table: dict[str, Any] = handler(self)
        return {"from": table.pop("start"), **table}

    def of(self, layers: int) -> tuple[int, ...]:
        """The layers to keep of a model with so many.

        Raises:
            InputError: it has no such layers.
        """
        return check_kept(layers, self.keep) if self.layers is None else spread_layers(layers, self.layers)


class HerdModelConfig(Section):
    """One model: the folder or model that it starts from, or its shape, to which [herd] and [tokenizer] add the rest.

    A model with neither is one for ``herdlm train --from``.
    """

    start: str | None = Field(
        None, alias="from", description="a model folder or a run, relative to the recipe, whose weights it starts from"
    )
    shrink: ShrinkConfig | None = Field(None, description="makes it from layers of another model of the herd")
    dim: int | None = Field(None, gt=0, le=MAX_WIDTH)
    layers: int | None = Field(None, gt=0, le=MAX_LAYERS)
    heads: int | None = Field(None, gt=0, le=MAX_WIDTH)
    kv_heads: int | None = Field(None, gt=0, le=MAX_WIDTH)
    ffn_dim: int | None = Field(None, gt=0, le=16 * MAX_WIDTH)
    peak_lr: float | None = Field(None, gt=0, description="replaces pretrain.train.peak_lr for this model")
    parallel: ParallelConfig | None = Field(None, description="replaces [parallel] for this model")
    distill: DistillConfig | None = Field(None, description="pre-trains this model from a teacher and the text")

    @model_validator(mode="after")
    def _has_one_shape(self) -> HerdModelConfig:
        given = self.shape
        if self.start is not None and given:
            raise ValueError(f"the shape is that of the folder {self.start}: remove {', '.join(given)}, or from")
        if self.shrink is not None and (given or self.start is not None):
            other = "from" if self.start is not None else ", ".join(given)
            raise ValueError(f"shrink makes the model from {self.shrink.start}: remove {other}, or shrink")
        if given and len(given) < len(SHAPE):
            raise ValueError(f"key {next(key for key in SHAPE if key not in given)} is missing: add it")
        return self

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A table that reads back; without ``from`` or ``shrink`` as it was before there were any."""
        table: dict[str, Any] = handler(self)
        start = table.pop("start")
        if self.shrink is None:
            table.pop("shrink")
        return table if start is None else {"from": start, **table}

    @property
    def shape(self) -> dict[str, int]:
        """The keys of the shape that are given."""
        return {key: value for key in SHAPE if (value := getattr(self, key)) is not None}


class HerdConfig(Section):
    """The models, and the role of each."""

    models: dict[str, HerdModelConfig] = Field(
        default={"flagship": HerdModelConfig(dim=768, layers=12, heads=12, kv_heads=4, ffn_dim=2688)}, min_length=1
    )
    flagship: str = "flagship"
    small: str | None = Field(None, description="a smaller model that the run also delivers; the flagship may teach it")
    ladder: tuple[str, ...] = Field((), description="two or more models to forecast the flagship's loss from")
    rope_theta: float = Field(500_000.0, gt=0, le=1e15)
    rope_scaling: RopeScaling | None = None
    _scaling_acts = field_validator("rope_scaling")(check_scaling)
    tied_embeddings: bool = False
    max_seq_len: int = Field(8192, gt=0, le=MAX_CONTEXT)

    @model_validator(mode="after")
    def _names_exist(self) -> HerdConfig:
        for name in (self.flagship, self.small, *self.ladder):
            if name is not None and name not in self.models:
                raise ValueError(f"herd names the model {name}, but there is no [herd.models.{name}]: add it")
        if len(self.ladder) == 1:
            raise ValueError(
                f"herd.ladder has one model, {self.ladder[0]}, but a forecast needs two or more: add one, or set []"
            )
        if self.flagship in self.ladder:
            raise ValueError(
                f"herd.ladder contains the flagship {self.flagship}, whose loss it forecasts: remove it from the ladder"
            )
        if self.small == self.flagship:
            raise ValueError(f"herd.small and herd.flagship are both {self.small}: choose two models")
        if len(set(self.ladder)) < len(self.ladder):
            raise ValueError(f"herd.ladder names a model twice: {', '.join(self.ladder)}")
        for name in self.models:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == f"{self.flagship}-fp8":
                raise ValueError(
                    f"herd.models.{name} is not a valid name: use letters, digits, '.', '_' and '-', "
                    f"and not {self.flagship}-fp8, which names the flagship in FP8"
                )
        return self

    @model_validator(mode="after")
    def _shrunk_models_have_a_larger_one(self) -> HerdConfig:
        for name, model in self.models.items():
            if model.shrink is None:
                continue
            key, larger = f"herd.models.{name}.shrink", model.shrink.start
            if larger == name or larger not in self.models:
                raise ValueError(f"{key}.from = {larger!r} is no other model of the herd: name one of herd.models")
            if larger not in {self.flagship, self.small, *self.ladder}:
                raise ValueError(f"{key}.from = {larger!r}, but no run makes it: name herd.flagship or herd.small")
            if self.models[larger].shrink is not None:
                raise ValueError(f"{key}.from = {larger!r}, which is shrunk, too: name the model that it is made from")
            if self.ladder and name in {self.flagship, *self.ladder}:
                raise ValueError(f"herd.ladder forecasts the loss of new models, but {name} is shrunk: remove either")
            distill = self.models[larger].distill
            if distill is not None and distill.teacher == name:
                raise ValueError(f"herd.models.{larger}.distill.teacher = {name!r}, which is made from it: drop either")
        return self

    @model_validator(mode="after")
    def _teachers_come_first(self) -> HerdConfig:
        for name in self.models:
            chain = [name]
            while (distill := self.models[chain[-1]].distill) is not None and distill.teacher is not None:
                key, teacher = f"herd.models.{chain[-1]}.distill.teacher", distill.teacher
                if teacher not in self.models:
                    raise ValueError(f"{key} names the model {teacher}, but there is no [herd.models.{teacher}]")
                if teacher not in {self.flagship, self.small, *self.ladder}:
                    raise ValueError(
                        f"{key} = {teacher!r}, but no run trains it: it is neither herd.flagship nor herd.small "
                        "nor in herd.ladder"
                    )
                if teacher in chain:
                    raise ValueError(f"{key}: models teach each other in a circle, {' <- '.join([*chain, teacher])}")
                if teacher == self.flagship and name in self.ladder:
                    raise ValueError(f"{key}: {teacher} is trained after the ladder, but {name} is on the ladder")
                chain.append(teacher)
        return self
