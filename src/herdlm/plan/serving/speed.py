"""Seconds in which an engine reads a prompt and decodes a token for each of its sequences, and what its memory holds.

Reading a prompt is bound by arithmetic, decoding by what is read: weights once for all sequences, and each one's cache.
Every part is a roofline (Williams et al., 2009) at a fitted share of the specified rates; docs/planner-serving.md.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from herdlm.base.errors import InputError
from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import Shape
from herdlm.plan.traffic import Traffic

BF16, FP8 = 2, 1  # bytes
GIBIBYTE = 2**30
SCALE = 2  # bytes of the scale of a row
Quantized = Literal["no", "feed-forward", "all"]
PLAIN_LAYERS = 2  # the first and the last layer stay in BF16 (Llama 3 report, section 6.2)


@dataclass(frozen=True, slots=True)
class ServingConstants:
    """What is fitted to published throughput.

    Attributes:
        compute: share of the peak rate that products and attention reach.
        memory: share of the memory's rate at which weights and cache are read.
        token, step: seconds of a decoded token, and of a step, besides what the GPU reads and computes.
        interval: half-width of the 80% interval of log throughput: for engines and models like the rows', for others.
        origin: rows and errors of the fit.
    """

    compute: float = 0.6
    memory: float = 0.8
    token: float = 3e-6
    step: float = 1e-3
    interval: dict[str, float] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)


@cache
def serving_constants() -> ServingConstants:
    """The shipped constants."""
    return ServingConstants(**json.loads((files("herdlm.plan.serving") / "constants.json").read_text("utf-8")))


def constants_text(constants: ServingConstants) -> str:
    """Constants as the text of their file."""
    return json.dumps(asdict(constants), indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Engine:
    """One copy of a model on ``tp`` x ``pp`` GPUs.

    Attributes:
        training: constants of the time model, for collectives and for products of few rows.
        quantized: matrices in FP8: none, those of the feed-forward without the first and last layer, or all of layers.
        cache_bytes: of a value in the cache of keys and values.
        share: of a GPU's memory that weights and cache may take.
        slower: factor on all times, for intervals.
    """

    shape: Shape
    machine: Machine
    constants: ServingConstants
    training: Constants
    tp: int = 1
    pp: int = 1
    quantized: Quantized = "no"
    cache_bytes: int = BF16
    share: float = 0.9
    slower: float = 1.0

    def __post_init__(self) -> None:
        if self.tp < 1 or self.pp < 1 or self.shape.heads % self.tp or self.pp > self.shape.layers:
            raise InputError(
                f"{self.shape.heads} heads and {self.shape.layers} layers do not divide among tp {self.tp} and "
                f"pp {self.pp}",
                "Change one of them",
            )
        if not 0 < self.share <= 1 or self.cache_bytes not in (FP8, BF16) or not self.slower > 0:
            raise InputError("an engine needs a share of memory up to 1, and a cache of 1 or 2 bytes", "Change them")

    @property
    def gpus(self) -> int:
        """GPUs of the engine."""
        return self.tp * self.pp

    @property
    def weight_bytes(self) -> float:
        """Bytes of weights on the GPU that holds most."""
        layers = -(-self.shape.layers // self.pp)
        ends = (1 if self.shape.tied or self.pp > 1 else 2) * self._head_weights * BF16
        return (layers * self._layer_bytes + ends) / self.tp

    @property
    def cache_per_token(self) -> float:
        """Bytes of cache on the GPU that holds most. Heads of keys are copied if there are fewer of them than GPUs."""
        layers = -(-self.shape.layers // self.pp)
        return self._layer_cache * layers

    def most_sequences(self, tokens: float) -> int:
        """Sequences of ``tokens`` that fit beside the weights."""
        room = self.machine.gpu.memory_gib * GIBIBYTE * self.share - self.weight_bytes
        return max(int(room // (tokens * self.cache_per_token)), 0)

    def prefill(self, prompt: float) -> float:
        """Seconds from a prompt of ``prompt`` tokens to its first answer token, on an idle engine."""
        products = self._products(prompt) + self._head(1)
        read = max(products, self._weights_read)
        peak = self.machine.gpu.peak("bf16") * self.constants.compute
        attention = 2 * self.shape.layers * self.shape.queries * prompt * prompt / (self.tp * peak)
        return (read + attention + self._traffic(prompt) + self.constants.step * self.pp) * self.slower

    def prefill_busy(self, prompt: float) -> float:
        """Seconds for which a prompt keeps the engine busy: pipeline stages read several prompts at a time."""
        return self.prefill(prompt) / self.pp

    def decode(self, sequences: float, context: float) -> float:
        """Seconds in which each of ``sequences`` with ``context`` tokens gets its next one.

        Pipeline stages work on as many micro-batches at a time, so a token passes all weights with its micro-batch.
        Products of few rows lose as much to their size as those of training (``gemm_ramp`` of the time model).
        """
        rows, ramp = sequences / self.pp, self.training.gemm_ramp
        weights = max(self._products(rows + ramp) + self._head(rows + ramp), self._weights_read)
        cache = rows * context * self._layer_cache * self.shape.layers / self._memory_rate
        host = rows * self.constants.token + self.constants.step * self.pp
        return (weights + cache + host + self._traffic(rows)) * self.slower

    @property
    def _memory_rate(self) -> float:
        measured = self.machine.gpu.measured
        if measured and measured.memory_gb_s:
            return measured.memory_gb_s * 1e9
        return self.machine.gpu.memory_rate * self.constants.memory

    @property
    def _head_weights(self) -> int:
        return self.shape.embedding_parameters

    @property
    def _layer_cache(self) -> float:
        heads = -(-self.shape.kv_heads // self.tp)
        return 2 * heads * self.shape.head_size * self.cache_bytes

    @property
    def _fp8_weights(self) -> float:
        """Weights of a layer, on average over the layers, that are FP8."""
        shape = self.shape
        if self.quantized == "all":
            return shape.attention_weights + shape.mlp_weights
        if self.quantized == "feed-forward":
            return shape.mlp_weights * max(shape.layers - PLAIN_LAYERS, 0) / shape.layers
        return 0.0

    @property
    def _layer_bytes(self) -> float:
        weights = self.shape.attention_weights + self.shape.mlp_weights
        scales = SCALE * self._fp8_weights / self.shape.hidden  # a scale for each row, about as long as D
        return FP8 * self._fp8_weights + scales + BF16 * (weights - self._fp8_weights)

    @property
    def _weights_read(self) -> float:
        """Seconds in which the GPUs read all weights once, stage after stage."""
        whole = self.shape.layers * self._layer_bytes + self._head_weights * BF16
        return whole / self.tp / self._memory_rate

    def _products(self, tokens: float) -> float:
        """Seconds of the products of all layers."""
        gpu = self.machine.gpu
        weights = self.shape.attention_weights + self.shape.mlp_weights
        seconds = self._fp8_weights / gpu.peak("fp8") + (weights - self._fp8_weights) / gpu.peak("bf16")
        return 2 * tokens * self.shape.layers * seconds / (self.tp * self.constants.compute)

    def _head(self, tokens: float) -> float:
        peak = self.machine.gpu.peak("bf16") * self.constants.compute
        return 2 * tokens * self._head_weights / (self.tp * peak)

    def _traffic(self, tokens: float) -> float:
        """Seconds of two all-reduces in each layer, and of the messages between pipeline stages."""
        traffic = Traffic(self.machine, self.training)
        message = BF16 * tokens * self.shape.hidden
        seconds = 2 * self.shape.layers * traffic.reduce(message, self.tp, 1)
        if self.pp > 1:
            seconds += (self.pp - 1) * traffic.send(message / self.tp, self.tp)
        return seconds
