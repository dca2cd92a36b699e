"""Defaults of fine-tuning on files, by the size of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from herdlm.align.config import DpoConfig, PairsConfig, RewardConfig, SftConfig
from herdlm.align.grpo.config import GrpoConfig
from herdlm.base.recipe import merge, parse
from herdlm.model.config import ModelConfig

Method = Literal["sft", "reward", "dpo", "grpo"]
MethodConfig = SftConfig | PairsConfig | GrpoConfig
SECTIONS: dict[Method, type[MethodConfig]] = {
    "sft": SftConfig,
    "reward": RewardConfig,
    "dpo": DpoConfig,
    "grpo": GrpoConfig,
}
LONGEST_ROW = 2048
LONGEST_ANSWER = 512  # of a sampled answer; at most half a row
MICRO_BATCH_TOKENS = 4096  # activations of a small model then take about a gigabyte
LORA_RATE = 10.0  # adapters learn at about ten times the rate of all weights
WARMUP_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class Size:
    """Defaults of models with up to ``parameters``; rates of training all weights."""

    parameters: float
    tokens_per_step: int
    pairs_per_step: int
    prompts_per_step: int
    rates: dict[Method, float]


# Published: SmolLM2 135M SFT 1e-3, DPO 1e-6; on some thousand rows a fifth and ten times that did better. Tulu 3:
# 8B 5e-6 and 5e-7, 70B 2e-6 and 2e-7, in batches of 128. Reward models are trained between the two. Policy gradient:
# DeepSeekMath 7B 1e-6, Tulu 3 8B 3e-7 and 70B 1e-7.
SIZES = (
    Size(5e8, 2048, 16, 16, {"sft": 2e-4, "reward": 1e-4, "dpo": 1e-5, "grpo": 1e-5}),
    Size(4e9, 32_768, 32, 32, {"sft": 2e-5, "reward": 1e-5, "dpo": 1e-6, "grpo": 2e-6}),
    Size(2e10, 131_072, 128, 64, {"sft": 5e-6, "reward": 3e-6, "dpo": 5e-7, "grpo": 1e-6}),
    Size(float("inf"), 131_072, 128, 64, {"sft": 2e-6, "reward": 1e-6, "dpo": 2e-7, "grpo": 3e-7}),
)

Config = TypeVar("Config", bound=MethodConfig)


def default_tables(method: Method, shape: ModelConfig, given: dict[str, Any], *, lora: bool) -> dict[str, Any]:
    """The keys of a method's section for a model of this shape. Rows per step follow a ``seq_len`` that is given."""
    size = next(size for size in SIZES if shape.parameters <= size.parameters)
    seq_len = min(LONGEST_ROW, shape.max_seq_len)
    rate = size.rates[method] * (LORA_RATE if lora else 1.0)
    train = {"peak_lr": rate, "decay": "linear", "floor": 0.0, "weight_decay": 0.0, "checkpoint_every_steps": 50}
    tables: dict[str, Any] = {"seq_len": seq_len, "train": train}
    if given.get("steps") is None:
        tables["epochs"] = 1 if method in ("reward", "grpo") else 2
    asked = given.get("seq_len")
    row = asked if isinstance(asked, int) and asked > 0 else seq_len
    if method == "sft":
        return tables | {"rows_per_step": max(1, size.tokens_per_step // row)}
    if method == "grpo":
        train |= {"decay": "constant", "checkpoint_every_steps": 10}
        longest = max(1, min(LONGEST_ANSWER, row // 2))
        return tables | {"prompts_per_step": size.prompts_per_step, "max_answer_tokens": longest}
    return tables | {"pairs_per_step": size.pairs_per_step}


def settings(
    schema: type[Config], method: Method, shape: ModelConfig, given: dict[str, Any], *, lora: bool, source: str
) -> Config:
    """A method's section from the keys that are given, and from the defaults for a model of this shape.

    Args:
        source: where the keys come from, for errors.

    Raises:
        InputError: a key is unknown or out of range.
    """
    return parse(schema, merge(default_tables(method, shape, given, lora=lora), given), source)
