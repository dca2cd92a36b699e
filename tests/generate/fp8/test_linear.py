"""FP8: its numbers against the definition and torch's own product, its folders against transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from herdlm.base.errors import DamagedError, InputError
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.fp8 import folder as fp8_folder
from herdlm.generate.fp8.config import Fp8Config, Granularity
from herdlm.generate.fp8.linear import Fp8Linear, quantize_activation
from herdlm.generate.fp8.load import is_fp8, load_fp8
from herdlm.generate.load import load_model
from herdlm.model import hf
from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer, build, initialize
from tests.generate.fp8.weights import has_scaled_product, quantized

CONFIG = ModelConfig(
    vocab_size=151, dim=64, layers=4, heads=4, kv_heads=2, ffn_dim=160, tied_embeddings=True, max_seq_len=256
)
ROW = Fp8Config()
EVERYTHING = Fp8Config(attention=True, skip_first_layers=0, skip_last_layers=0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_folder(folder: Path, config: ModelConfig = CONFIG, **options: Any) -> Path:
    model = build(config)
    initialize(model, 4, std=0.15)
    if config.head == "score":
        with torch.no_grad():
            model.score.weight.copy_(normal(1, config.dim))
    hf.save_folder(model, folder, **options)
    return folder


TOKENS = torch.randint(0, 151, (2, 50), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def hidden(model: Transformer) -> Tensor:
    return model(TOKENS, torch.arange(50).expand(2, -1), DocumentAttention(torch.zeros_like(TOKENS)))


def linear(weight: Tensor, granularity: Any = "row", cap: float = 1200.0) -> Fp8Linear:
    layer = Fp8Linear(weight.shape[1], weight.shape[0], granularity, cap)
    layer.weight, layer.weight_scale = quantized(weight, granularity)
    return layer


def test_weight_scales_are_rounded_up_and_nothing_saturates() -> None:
    weight = normal(300, 64) * torch.logspace(-6, 6, 300)[:, None]
    values, scale = quantized(weight, "row")
    exact = weight.abs().amax(1, keepdim=True) / 448
    assert torch.equal(scale, scale.bfloat16().float())
    assert bool((scale >= exact).all()) and bool((scale <= exact * (1 + 2**-7)).all())
    assert float((weight / scale).abs().max()) <= 448
    # e4m3 keeps three bits behind the leading one, so a normal value (at least 2^-6) is off by at most 1 in 16 parts
    back = values.float() * scale
    normal_values = (weight / scale).abs() >= 2**-6
    assert bool(((back - weight).abs() <= weight.abs() / 16 + 1e-30)[normal_values].all())
    assert bool(((back - weight).abs() <= scale * 2**-10)[~normal_values].all())
    assert float((back - weight).norm() / weight.norm()) < 0.04


def test_activation_error_is_bounded_row_by_row() -> None:
    x = normal(200, 64, seed=1) * torch.logspace(-4, 2, 200)[:, None]
    for granularity, bound in (("row", 0.04), ("tensor", 1.01)):
        values, scale = quantize_activation(x, granularity, 1200.0)  # type: ignore[arg-type]
        error = (values.float() * scale - x).norm(dim=1) / x.norm(dim=1)
        assert float(error.max()) < bound
        if granularity == "tensor":
            assert float(error.max()) > 0.5  # one scale for all loses the small rows: why the scales go row by row


def test_rows_of_zeros_stay_zero() -> None:
    weight, x = normal(16, 32), normal(5, 32)
    weight[3], x[2] = 0, 0
    out = linear(weight)(x)
    assert not out[2].any() and not out[:, 3].any() and bool(out.isfinite().all())
    assert not linear(torch.zeros(16, 32), "tensor")(x).any()


def test_the_cap_bounds_the_scale_and_keeps_small_values_alive() -> None:
    x = torch.full((2, 32), 0.02)
    x[0, 0], x[1, 0] = 50_000.0, 1000.0
    values, scale = quantize_activation(x, "row", 1200.0)
    back = values.float() * scale
    assert scale[0].item() == pytest.approx(1200 / 448) and scale[1].item() == pytest.approx(1000 / 448)
    assert back[0, 0].item() == pytest.approx(1200) and back[1, 0].item() == pytest.approx(1000)
    assert back[0, 1].item() == pytest.approx(0.02, rel=0.2)
    free, coarse = quantize_activation(x, "row", math.inf)
    assert coarse[0].item() == pytest.approx(50_000 / 448)
    assert free[0, 0].float() * coarse[0] == pytest.approx(50_000)
    assert not free[0, 1:].float().any()  # without the cap, everything beside the outlier is lost
    assert torch.equal(free[1].view(torch.uint8), values[1].view(torch.uint8))


@pytest.mark.parametrize("granularity", ["row", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dense_backend_equals_torchs_scaled_product(granularity: Granularity, dtype: torch.dtype) -> None:
    if not has_scaled_product(granularity):
        pytest.skip("torch has no such scaled product on this processor")
    layer = linear(normal(48, 64, seed=2) * 0.05, granularity)
    x = (normal(37, 64, seed=3) * 7).to(dtype)
    values, scale = quantize_activation(x, granularity, 1200.0)
    expected = torch._scaled_mm(
        values, layer.weight.t(), scale_a=scale, scale_b=layer.weight_scale.t(), out_dtype=torch.float32
    )
    out = layer(x)
    assert layer.backend == "dense" and out.dtype == dtype
    # float32 differs in the order of sums; bfloat16 rounds the product and then the result to 8 bits
    tolerance = 1e-6 if dtype == torch.float32 else 2 * 2**-8
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()) / 4)


def test_shapes_of_the_input_are_kept() -> None:
    layer, x = linear(normal(48, 64)), normal(3, 5, 64)
    torch.testing.assert_close(layer(x), layer(x.reshape(-1, 64)).reshape(3, 5, 48))
    assert layer(x[:0]).shape == (0, 5, 48) and layer(x[0, 0]).shape == (48,)
    assert linear(normal(48, 64), "tensor")(x[:0]).shape == (0, 5, 48)


def test_a_change_of_type_leaves_fp8_as_it_is() -> None:
    layer = linear(normal(16, 32))
    bits, scale = layer.weight.view(torch.uint8).clone(), layer.weight_scale.clone()
    layer.to(torch.bfloat16).to("cpu").float()
    assert layer.weight.dtype == torch.float8_e4m3fn and torch.equal(layer.weight.view(torch.uint8), bits)
    assert layer.weight_scale.dtype == torch.float32 and torch.equal(layer.weight_scale, scale)


@pytest.mark.gpu
@pytest.mark.parametrize("granularity", ["row", "tensor"])
def test_the_gpu_product_equals_the_dense_backend(granularity: str) -> None:
    layer = linear(normal(256, 512, seed=2) * 0.05, granularity)
    x = (normal(37, 512, seed=3) * 7).bfloat16()
    expected = layer(x)
    out = layer.to("cuda")(x.to("cuda"))
    assert layer.backend == "scaled_mm"
    torch.testing.assert_close(out.cpu().float(), expected.float(), rtol=2**-7, atol=0.05)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (ROW, {f"model.layers.{i}.mlp.{m}_proj" for i in (1, 2) for m in ("gate", "up", "down")}),
        (
            Fp8Config(skip_first_layers=0, skip_last_layers=3),
            {f"model.layers.0.mlp.{m}_proj" for m in ("gate", "up", "down")},
        ),
        (
            Fp8Config(attention=True, skip_first_layers=3, skip_last_layers=0),
            {f"model.layers.3.mlp.{m}_proj" for m in ("gate", "up", "down")}
            | {f"model.layers.3.self_attn.{m}_proj" for m in "qkvo"},
        ),
    ],
)
def test_which_matrices_become_fp8(config: Fp8Config, names: set[str], tmp_path: Path) -> None:
    fp8_folder.quantize_folder(random_folder(tmp_path / "m"), tmp_path / "q", config)
    stored = load_file(tmp_path / "q" / "model.safetensors")
    assert {n.removesuffix(".weight") for n, t in stored.items() if t.dtype == torch.float8_e4m3fn} == names
    assert {n.removesuffix(".weight_scale") for n in stored if n.endswith("_scale")} == names
    assert {t.dtype for n, t in stored.items() if n.removesuffix(".weight") not in names} == {torch.bfloat16}
    model = load_fp8(tmp_path / "q")
    assert {n for n, m in model.named_modules() if isinstance(m, Fp8Linear)} == names
    assert not any(p.requires_grad for p in model.parameters())


def test_skipping_every_layer_is_refused(tmp_path: Path) -> None:
    random_folder(tmp_path / "m")
    with pytest.raises(InputError, match="leave none of the model's 4 layers"):
        fp8_folder.quantize_folder(tmp_path / "m", tmp_path / "q", Fp8Config(skip_first_layers=2, skip_last_layers=2))
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("config", [ROW, EVERYTHING], ids=["report", "everything"])
@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_the_file(config: Fp8Config, tied: bool, tmp_path: Path) -> None:
    shape = CONFIG.model_copy(update={"tied_embeddings": tied})
    random_folder(tmp_path / "m", shape, dtype=torch.bfloat16)
    counts = fp8_folder.quantize_folder(tmp_path / "m", tmp_path / "q", config)
    data, parameters, in_fp8 = 0, 0, 0
    with safe_open(tmp_path / "q" / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            data += tensor.nbytes
            parameters += 0 if name.endswith("_scale") else tensor.numel()
            in_fp8 += tensor.nbytes if file.get_slice(name).get_dtype() == "F8_E4M3" else 0
    assert counts == {
        "parameters": parameters,
        "parameters_fp8": in_fp8,
        "share_fp8": in_fp8 / parameters,
        "bytes_before": 2 * parameters,
        "bytes_after": data,
    }
    assert parameters == shape.parameters


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("config", [ROW, EVERYTHING, Fp8Config(granularity="tensor")], ids=["row", "all", "tensor"])
def test_transformers_loads_the_folder_and_agrees(config: Fp8Config, tied: bool, tmp_path: Path) -> None:
    random_folder(tmp_path / "m", CONFIG.model_copy(update={"tied_embeddings": tied}))
    fp8_folder.quantize_folder(tmp_path / "m", tmp_path / "q", config)
    ours = load_fp8(tmp_path / "q", dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "q", dtype=torch.float32)
    scheme = theirs.model.layers[1].mlp.up_proj.quantization_scheme
    assert scheme.input_activations.dynamic is True  # activations are rounded there as well
    assert not hasattr(theirs.lm_head, "quantization_scheme")
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in theirs.named_modules():
        module.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given, out)}))
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        for name, module in ours.named_modules():
            if isinstance(module, Fp8Linear):  # given the same input, every product is the same at every token
                (given,), out = seen[name]
                torch.testing.assert_close(module(given), out, rtol=1e-5, atol=1e-6 * float(out.abs().max()))
        plain = hf.load_folder(tmp_path / "m")
        damage = (plain.logits(hidden(plain)) - expected).abs().amax(-1)
        difference = (ours.logits(hidden(ours)) - expected).abs().amax(-1)
    # Both sides hold the same FP8 values, so what is left is the order of float32 sums, 1e-6. In a token where that
    # moves an activation across the border between two FP8 values, one input changes by up to 1/8 of itself and so do
    # all roundings after it, and tokens that attend to it: they are off by less than FP8 itself puts them off.
    assert float((difference < 1e-5).float().mean()) >= 0.5
    assert float(difference.max()) < float(damage.max())
    assert float(difference.mean()) < float(damage.mean()) / 3


def test_in_bfloat16_we_are_as_near_to_float32_as_transformers(tmp_path: Path) -> None:
    fp8_folder.quantize_folder(random_folder(tmp_path / "m"), tmp_path / "q", ROW)
    ours, exact = load_fp8(tmp_path / "q"), load_fp8(tmp_path / "q", dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "q")
    assert theirs.dtype == ours.model.norm.weight.dtype == torch.bfloat16
    with torch.no_grad():
        truth = exact.logits(hidden(exact))
        our_error = (ours.logits(hidden(ours)).float() - truth).norm() / truth.norm()
        their_error = (theirs(TOKENS).logits.float() - truth).norm() / truth.norm()
    assert 0 < float(our_error) < 1.1 * float(their_error) < 0.1


def test_reward_models_too(tmp_path: Path) -> None:
    random_folder(tmp_path / "m", ModelConfig(**CONFIG.model_dump() | {"head": "score", "tied_embeddings": False}))
    fp8_folder.quantize_folder(tmp_path / "m", tmp_path / "q", ROW)
    ours = load_fp8(tmp_path / "q", dtype=torch.float32)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "q", dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(TOKENS[:1]).logits
    torch.testing.assert_close(ours.scores(hidden(ours))[:1, -1:], expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "config",
    [ROW, EVERYTHING, Fp8Config(matrices=("down",)), Fp8Config(matrices=("gate_up",), attention=True)],
    ids=["report", "everything", "down", "gate, up and attention"],
)
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_the_engine_generates_what_whole_passes_say_alone_and_in_a_crowd(
    config: Fp8Config, stored: str, tmp_path: Path
) -> None:
    fp8_folder.quantize_folder(random_folder(tmp_path / "m"), tmp_path / "q", config)
    # A CPU computes in float32, whatever the weights beside FP8 are stored as.
    engine = Engine(load_model(tmp_path / "q", "cpu", stored), None, cache_tokens=2048, compute=torch.float32)
    model = load_model(tmp_path / "q", "cpu", "float32")
    prompts = [TOKENS[0, :n].tolist() for n in (3, 17, 30)]
    greedy = SamplingParams(max_tokens=8, temperature=0)
    together = [completions[0].tokens for completions in engine.generate(prompts, greedy)]
    assert together == [engine.generate([prompt], greedy)[0][0].tokens for prompt in prompts]
    for prompt, answer in zip(prompts, together, strict=True):
        tokens = torch.tensor([prompt + answer])
        positions = torch.arange(tokens.shape[1])[None]
        with torch.no_grad():
            logits = model.logits(model(tokens, positions, DocumentAttention(torch.zeros_like(tokens))))[0]
        assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == answer


def test_folders_of_other_tools(tmp_path: Path) -> None:
    """What transformers writes back, and one with patterns among the names to ignore."""
    fp8_folder.quantize_folder(random_folder(tmp_path / "m"), tmp_path / "q", ROW)
    path = tmp_path / "q" / "config.json"
    config = json.loads(path.read_text())
    assert config["quantization_config"].pop("activation_scale_ub") == 1200.0
    config["quantization_config"]["ignore"] = ["re:.*self_attn.*", "re:model\\.layers\\.[03]\\.", "lm_head"]
    path.write_text(json.dumps(config))
    ours = load_fp8(tmp_path / "q", dtype=torch.float32)
    assert isinstance(ours.get_submodule("model.layers.1.mlp.up_proj"), Fp8Linear)
    assert isinstance(ours.get_submodule("model.layers.1.self_attn.q_proj"), nn.Linear)
    assert ours.get_submodule("model.layers.1.mlp.up_proj").cap == math.inf
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "q", dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_fp8(tmp_path / "theirs", dtype=torch.float32)
    torch.testing.assert_close(hidden(again), hidden(ours), atol=1e-6, rtol=0)


def test_same_folder_same_bytes_with_its_tokenizer(tmp_path: Path) -> None:
    random_folder(tmp_path / "m", generation={"eos_token_id": 2})
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    for name in ("a", "b"):
        fp8_folder.quantize_folder(tmp_path / "m", tmp_path / name, ROW)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert is_fp8(tmp_path / "a") and not is_fp8(tmp_path / "m")
    with pytest.raises(InputError, match="holds weights already"):
        fp8_folder.quantize_folder(tmp_path / "m", tmp_path / "a", ROW)
    with pytest.raises(InputError, match=r"quantized \(compressed-tensors\)"):
        fp8_folder.quantize_folder(tmp_path / "a", tmp_path / "c", ROW)
    with pytest.raises(InputError, match="not quantized"):
        load_fp8(tmp_path / "m")
    with pytest.raises(InputError, match="FP8 weights cannot be saved"):
        hf.save_folder(load_fp8(tmp_path / "a"), tmp_path / "d")


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (["quant_method"], "gptq", "quant_method = 'gptq'"),
        (["format"], "pack-quantized", "format = 'pack-quantized'"),
        (["kv_cache_scheme"], {"num_bits": 8}, "kv_cache_scheme"),
        (["config_groups", "group_0", "weights", "num_bits"], 4, "weights.num_bits = 4"),
        (["config_groups", "group_0", "weights", "type"], "int", "weights.type = 'int'"),
        (["config_groups", "group_0", "weights", "strategy"], "block", "weights.strategy = 'block'"),
        (["config_groups", "group_0", "weights", "strategy"], "tensor", "scaled per tensor with activations"),
        (["config_groups", "group_0", "weights", "symmetric"], False, "weights.symmetric = False"),
        (["config_groups", "group_0", "input_activations", "dynamic"], False, "input_activations.dynamic = False"),
        (["config_groups", "group_0", "input_activations"], None, "input_activations"),
        (["config_groups", "group_0", "targets"], ["re:.*mlp.*"], "targets"),
        (["config_groups", "group_1"], {}, "group_1"),
        (["activation_scale_ub"], -1, "activation_scale_ub = -1"),
    ],
)
def test_other_schemes_are_refused_by_name(where: list[str], value: Any, said: str, tmp_path: Path) -> None:
    fp8_folder.quantize_folder(random_folder(tmp_path / "m"), tmp_path / "q", ROW)
    path = tmp_path / "q" / "config.json"
    config = json.loads(path.read_text())
    table = config["quantization_config"]
    for key in where[:-1]:
        table = table[key]
    table[where[-1]] = value
    path.write_text(json.dumps(config))
    with pytest.raises(InputError) as caught:
        load_fp8(tmp_path / "q")
    assert said in str(caught.value) and "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model.layers.1.mlp.up_proj.weight_scale", None, "lacks the tensor model.layers.1.mlp.up_proj.weight_scale"),
        ("model.layers.1.mlp.up_proj.weight_scale", torch.ones(1), r"shape \[1\], config.json says \[160, 1\]"),
        ("model.layers.1.mlp.up_proj.weight", torch.ones(160, 64), "stored as torch.float32"),
        ("model.layers.0.mlp.up_proj.weight", torch.ones(160, 64).to(torch.float8_e4m3fn), "stored as torch.float8"),
        ("model.layers.0.mlp.up_proj.weight_scale", torch.ones(160, 1), "has no place"),
    ],
)
def test_damaged_folders(name: str, value: Tensor | None, said: str, tmp_path: Path) -> None:
    fp8_folder.quantize_folder(random_folder(tmp_path / "m"), tmp_path / "q", ROW)
    path = tmp_path / "q" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop(name, None)
    save_file(tensors if value is None else {**tensors, name: value}, path)
    with pytest.raises(DamagedError, match=said):
        load_fp8(tmp_path / "q")


def test_truncated_folders(tmp_path: Path) -> None:
    fp8_folder.quantize_folder(random_folder(tmp_path / "m"), tmp_path / "q", ROW)
    for folder in ("q", "m"):
        path = tmp_path / folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"q/model\.safetensors is truncated"):
        load_fp8(tmp_path / "q")
    with pytest.raises(DamagedError, match=r"m/model\.safetensors is truncated"):
        fp8_folder.quantize_folder(tmp_path / "m", tmp_path / "other", ROW)
    assert not (tmp_path / "other" / "config.json").exists()
