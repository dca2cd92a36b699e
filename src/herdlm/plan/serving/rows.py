"""Published serving measurements as engines, and the throughput of such an engine that never runs out of requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Any

from herdlm.base.errors import InputError
from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Catalog
from herdlm.plan.job import Shape
from herdlm.plan.models import shape_named
from herdlm.plan.published import SIZES, shape_of
from herdlm.plan.serving.load import MOST_SEQUENCES, saturated
from herdlm.plan.serving.plan import width_of
from herdlm.plan.serving.speed import BF16, FP8, Engine, Quantized, ServingConstants

LLAMA = re.compile(r"llama[-_ ]?3(?:\.[0-3])?[-_ ](8b|70b|405b)(?![a-z0-9])")
FRACTION = re.compile(r"(?:mem_fraction|gpu_memory_utilization)\D{0,3}(0\.\d+)")
PROMPT, ANSWER = ("isl", "input_tokens", "input_len"), ("osl", "output_tokens", "output_len")
CONCURRENT = ("concurrency", "batch_size", "max_batch_size")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """A row: an engine, how many of it, its requests, and answer tokens per second of all GPUs, if it has them."""

    id: str
    engine: Engine
    copies: int
    prompt: int
    answer: int
    most: int
    tokens_per_s: float | None

    def predicted(self) -> float:
        """Answer tokens per second of all GPUs."""
        return self.copies * saturated(self.engine, self.prompt, self.answer, self.most)


def measured(row: Row, catalog: Catalog, constants: ServingConstants, training: Constants) -> Measured:
    """A serving row as an engine.

    Raises:
        InputError: the row lacks what an engine needs, or its values do not fit together.
    """
    tp, pp = _number(row, ("tp",), 1), _number(row, ("pp",), 1)
    gpus = _number(row, ("gpus",), tp * pp)
    if gpus % (tp * pp):
        raise InputError(f"row {row.get('id')}: {gpus} GPUs are not a multiple of tp x pp", "Correct the row")
    quantized, cache = _formats(row)
    found = FRACTION.search(f"{row.get('source') or ''} {row.get('notes') or ''}".lower())
    engine = Engine(
        _shape(row),
        catalog.machine(str(row.get("gpu") or "")),
        constants,
        training,
        tp,
        pp,
        quantized,
        cache,
        float(found[1]) if found else 0.9,
    )
    value = row.get("output_tokens_per_s")
    if not isinstance(value, int | float) and isinstance(row.get("output_tokens_per_s_per_gpu"), int | float):
        value = row["output_tokens_per_s_per_gpu"] * gpus
    return Measured(
        str(row.get("id")),
        engine,
        gpus // (tp * pp),
        _number(row, PROMPT),
        _number(row, ANSWER),
        _number(row, CONCURRENT, MOST_SEQUENCES),
        float(value) if isinstance(value, int | float) and value > 0 else None,
    )


def predict_row(row: Row, catalog: Catalog, constants: ServingConstants, training: Constants) -> dict[str, Any]:
    """The prediction of a row of kind "serving", as JSON.

    Raises:
        InputError: the row cannot be read, or not one sequence fits.
    """
    found = measured(row, catalog, constants, training)
    tokens = found.predicted()
    if not tokens:
        raise InputError(f"row {found.id}: the model does not fit the GPUs", "Correct the row")
    gpus = found.copies * found.engine.gpus
    width = width_of(found.engine, alike=True)
    low, high = tokens * exp(-width), tokens * exp(width)
    return {
        "output_tokens_per_s": {"value": tokens, "low": low, "high": high},
        "output_tokens_per_s_per_gpu": {"value": tokens / gpus, "low": low / gpus, "high": high / gpus},
        "measured_output_tokens_per_s": found.tokens_per_s,
        "relative_error": tokens / found.tokens_per_s - 1 if found.tokens_per_s else None,
    }


def _shape(row: Row) -> Shape:
    if all(row.get(name) for name in SIZES if name != "kv_heads"):
        return shape_of(row)
    name = str(row.get("model") or "")
    match = LLAMA.search(name.lower())
    return shape_named(match[1] if match else name)


def _formats(row: Row) -> tuple[Quantized, int]:
    """What is in FP8, and bytes of a value in the cache. FP8 checkpoints of others quantize all of the layers."""
    precision = str(row.get("precision") or "bf16").lower()
    if "fp4" in precision or "int" in precision or "awq" in precision or "gptq" in precision:
        raise InputError(f"row {row.get('id')}: the planner has no rates of {precision}", "Leave it out")
    fp8 = "fp8" in precision or "float8" in precision
    told = row.get("kv_cache_precision") or row.get("kv_cache_dtype")
    if told is None:
        told = "fp8" if fp8 and "tensorrt" in str(row.get("engine") or row.get("source") or "").lower() else "bf16"
    return "all" if fp8 else "no", FP8 if "8" in str(told) else BF16


def _number(row: Row, keys: tuple[str, ...], default: int | None = None) -> int:
    for key in keys:
        value = row.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1:
            return int(value)
        if value is not None:
            raise InputError(f"row {row.get('id')}: {key} is {value!r}", "Give a number of 1 or more")
    if default is None:
        raise InputError(f"row {row.get('id')} has no {keys[0]}", "Give it")
    return default
