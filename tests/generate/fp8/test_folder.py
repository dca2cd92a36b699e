"""What vLLM demands of a ``compressed-tensors`` folder, field by field, and what stands there.

vLLM itself does not run on every machine that runs these tests. The table is from its reader
(``vllm/model_executor/layers/quantization/compressed_tensors``: ``compressed_tensors.py``, ``utils.py``,
``schemes/compressed_tensors_w8a8_fp8.py``, and ``vllm/model_executor/parameter.py``); docs/fp8.md tells it too. The
compressed-tensors library, whose schema that reader applies, checks the same file here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig

from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.model.hf import save_folder
from herdlm.model.weights import StoredTensor, open_weights
from tests.conftest import small_model

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
CONFIGS = {
    "report": Fp8Config(),
    "down": Fp8Config(matrices=("down",)),
    "gate_up": Fp8Config(matrices=("gate_up",), skip_first_layers=0),
    "all": Fp8Config(attention=True, skip_first_layers=0, skip_last_layers=0),
    "tensor": Fp8Config(granularity="tensor"),
}


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save_folder(small_model(layers=4), tmp_path / "m", generation={"bos_token_id": 392, "eos_token_id": [398, 393]})
    quantize_folder(tmp_path / "m", tmp_path / "q", CONFIGS[request.param])
    return tmp_path / "q"


def settings_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def field(settings: dict[str, Any], path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = value[int(part) if part.isdigit() else part]
    return value


# (field of config.json, what vLLM accepts, what it does with it)
GROUP = "quantization_config.config_groups.group_0"
DEMANDED: list[tuple[str, tuple[Any, ...], str]] = [
    ("architectures", (["LlamaForCausalLM"],), "picks the model class"),
    ("quantization_config.quant_method", ("compressed-tensors",), "picks this reader"),
    ("quantization_config.format", ("naive-quantized", "float-quantized"), "formats with quantized activations"),
    ("quantization_config.kv_cache_scheme", (None,), "anything else asks for scales of the cache"),
    (f"{GROUP}.targets", (["Linear"],), "matched with names and classes of linear layers"),
    (f"{GROUP}.weights.type", ("float",), "FP8 and not INT8"),
    (f"{GROUP}.weights.num_bits", (8,), "FP8"),
    (f"{GROUP}.weights.symmetric", (True,), "FP8 kernels know no zero points"),
    (f"{GROUP}.weights.dynamic", (False,), "scales are stored"),
    (f"{GROUP}.weights.strategy", ("channel", "tensor"), "shape of weight_scale"),
    (f"{GROUP}.input_activations.type", ("float",), "FP8 products"),
    (f"{GROUP}.input_activations.num_bits", (8,), "FP8 products"),
    (f"{GROUP}.input_activations.symmetric", (True,), "FP8 kernels know no zero points"),
    (f"{GROUP}.input_activations.dynamic", (True,), "no input_scale is looked for; scaled per token"),
]


@pytest.mark.parametrize(("path", "accepted", "why"), DEMANDED, ids=[path for path, _, _ in DEMANDED])
def test_each_field_is_one_that_vllm_accepts(folder: Path, path: str, accepted: tuple[Any, ...], why: str) -> None:
    assert field(settings_of(folder), path) in accepted, why


def test_the_library_whose_schema_vllm_applies_reads_it(folder: Path) -> None:
    settings = settings_of(folder)["quantization_config"]
    known = {key: value for key, value in settings.items() if key != "activation_scale_ub"}
    read = QuantizationConfig.model_validate(known)
    group = read.config_groups["group_0"]
    assert isinstance(group.weights, QuantizationArgs)
    assert group.weights.strategy in ("channel", "tensor") and group.input_activations.dynamic is True
    # vLLM asks for the keys it knows one by one, so the cap may stand beside them.
    assert set(settings) - set(known) == {"activation_scale_ub"}
    for part in ("weights", "input_activations"):
        QuantizationArgs.model_validate(settings["config_groups"]["group_0"][part])


def tensors_of(folder: Path) -> dict[str, StoredTensor]:
    return open_weights(folder)


def test_each_linear_map_is_ignored_by_name_or_has_weight_and_scale(folder: Path) -> None:
    stored, settings = tensors_of(folder), settings_of(folder)["quantization_config"]
    ignored = set(settings["ignore"])
    assert "lm_head" in ignored
    strategy = settings["config_groups"]["group_0"]["weights"]["strategy"]
    linear = {n.removesuffix(".weight") for n in stored if n.endswith("_proj.weight")}
    assert ignored <= linear | {"lm_head"}  # every name is one that is there: vLLM matches them letter for letter
    for name in linear:
        weight = stored[f"{name}.weight"]
        if name in ignored:
            assert weight.dtype == torch.bfloat16 and f"{name}.weight_scale" not in stored
            continue
        scale = stored[f"{name}.weight_scale"]
        assert weight.dtype == torch.float8_e4m3fn
        # ChannelQuantScaleParameter is [out, 1], PerTensorScaleParameter [1] for each shard; both float32, filled by
        # a copy that widens bfloat16 without loss
        assert scale.shape == ((weight.shape[0], 1) if strategy == "channel" else (1,))
        assert scale.dtype == torch.bfloat16
    known = {f"{name}.{part}" for name in linear - ignored for part in ("weight", "weight_scale")}
    assert not [n for n in stored if n.endswith(("_scale", "zero_point")) and n not in known]


def test_matrices_that_vllm_fuses_are_quantized_together(folder: Path) -> None:
    ignored = set(settings_of(folder)["quantization_config"]["ignore"])
    for layer in range(4):
        for parts in FUSED.values():
            block = "self_attn" if "q_proj" in parts else "mlp"
            assert len({f"model.layers.{layer}.{block}.{part}" in ignored for part in parts}) == 1


def test_token_ids_and_types_that_serving_needs_are_there(folder: Path) -> None:
    settings = settings_of(folder)
    assert settings["torch_dtype"] == "bfloat16"  # of activations; FP8 kernels give float16 or bfloat16
    assert settings["eos_token_id"] == [398, 393] and settings["bos_token_id"] == 392
