"""Models into GGUF and back, against transformers' reader, llama.cpp and arithmetic by hand."""

import json
import math

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from herdlm.base.errors import DamagedError, InputError
from herdlm.cli.app import app
from herdlm.convert.gguf import export_gguf, import_gguf
from herdlm.generate import Engine, SamplingParams
from herdlm.model.config import RopeScaling
from herdlm.model.gguf import half_split, hf_config, side_by_side
from herdlm.model.gguf_file import GgufFile, GgufTensor, open_gguf
from herdlm.model.hf import load_folder, read_config, save_folder
from tests.conftest import small_model
from tests.convert import llama_cpp

STOPS = {"eos_token_id": [393, 397, 398], "bos_token_id": 392, "pad_token_id": 394}
SCALED = {"rope_scaling": RopeScaling(factor=4.0, original_max_position_embeddings=64), "rope_theta": 10_000.0}


@pytest.fixture
def folder_of(tmp_path, tokenizer):
    def save(name="model", **shape):
        folder = tmp_path / name
        save_folder(small_model(**shape), folder, generation=STOPS)
        tokenizer.save(folder)
        return folder

    return save


def rewritten(source, target, change, tensors=None):
    """A copy of a GGUF file with other metadata and tensors, by the library alone."""
    reader = gguf.GGUFReader(source)
    values = {k: f for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    arch = change.get("general.architecture", values["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, arch)
    for key, field in values.items():
        if key in change or key == "general.architecture":
            continue
        sub = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(key, field.contents(), field.types[0], sub)
    for key, value in change.items():
        if key != "general.architecture" and value is not None:
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for tensor in reader.tensors:
        data, kind = (tensors or {}).get(tensor.name, (np.array(tensor.data), tensor.tensor_type))
        if data is not None:
            writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


SHAPES = [
    {},
    {"tied_embeddings": True, "vocab_size": 410},
    {"head_dim": 16, "kv_heads": 4},
    SCALED,
    {"rope_scaling": RopeScaling(factor=32.0, original_max_position_embeddings=8192), "rope_theta": 500_000.0},
]


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "tied", "wide heads", "scaled", "llama 3.2"])
def test_there_and_back_is_the_same_folder(folder_of, tmp_path, shape):
    folder = folder_of(**shape)
    export_gguf(folder, tmp_path / "m.gguf", "f32")
    import_gguf(tmp_path / "m.gguf", tmp_path / "back")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_config(tmp_path / "back") == read_config(folder)
    kept = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert {**kept, "eos_token_id": sorted(kept["eos_token_id"])} == STOPS
    # llama.cpp does not know the marks of what the assistant writes; in their place stands a condition that holds.
    template = (folder / "chat_template.jinja").read_text()
    plain = template.replace(" generation ", " if true ").replace(" endgeneration ", " endif ")
    assert (tmp_path / "back" / "chat_template.jinja").read_text() == plain


@pytest.mark.parametrize("shape", [{}, {"tied_embeddings": True}, {"head_dim": 16, "kv_heads": 4}])
def test_transformers_reads_the_file_as_the_same_model(folder_of, tmp_path, shape):
    folder = folder_of(**shape)
    export_gguf(folder, tmp_path / "m.gguf", "f32")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    tokens = torch.randint(0, 390, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
        torch.testing.assert_close(theirs(tokens).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_rows_by_hand():
    rows = torch.arange(8.0)[:, None]  # two heads of four channels: pairs (0, 2), (1, 3)
    assert side_by_side(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(half_split(side_by_side(rows, 2), 2), rows)


@pytest.mark.parametrize(("kind", "dtype"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_types_are_the_rounded_weights(folder_of, tmp_path, kind, dtype):
    folder = folder_of()
    export_gguf(folder, tmp_path / "m.gguf", kind)
    import_gguf(tmp_path / "m.gguf", tmp_path / "back")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "back"))
    for name, values in before.items():
        expected = values.to(dtype).float() if values.ndim > 1 else values
        assert torch.equal(after[name], expected), name


def test_q8_0_is_within_half_a_step_of_each_block_and_falls_back_where_blocks_do_not_fit(folder_of, tmp_path):
    folder = folder_of(ffn_dim=72)
    counts = export_gguf(folder, tmp_path / "m.gguf", "q8_0")
    assert any("2 matrices" in note for note in counts["notes"])
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert (kinds["blk.0.attn_q.weight"], kinds["blk.0.ffn_down.weight"]) == ("Q8_0", "F16")
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    import_gguf(tmp_path / "m.gguf", tmp_path / "back")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "back"))
    name = "model.layers.1.self_attn.o_proj.weight"
    blocks, again = before[name].reshape(-1, 32), after[name].reshape(-1, 32)
    steps = blocks.abs().amax(1, keepdim=True) / 127
    assert ((blocks - again).abs() <= steps * 0.51).all()
    assert not torch.equal(blocks, again)


def test_a_4_bit_matrix_is_dequantized(folder_of, tmp_path):
    export_gguf(folder_of(), tmp_path / "m.gguf", "f32")
    random = np.random.default_rng(0)
    scales = random.normal(size=(32, 1)).astype(np.float16)
    codes = random.integers(0, 256, size=(32, 16), dtype=np.uint8)
    packed = np.concatenate([scales.view(np.uint8).reshape(32, 2), codes], axis=1)  # Q4_0: a scale, 32 codes of 4 bits
    change = {"blk.0.attn_output.weight": (packed, gguf.GGMLQuantizationType.Q4_0)}
    import_gguf(rewritten(tmp_path / "m.gguf", tmp_path / "q.gguf", {}, change), tmp_path / "back")
    expected = scales.astype(np.float32) * (np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.float32) - 8)
    got = load_file(tmp_path / "back" / "model.safetensors")["model.layers.0.self_attn.o_proj.weight"]
    assert np.array_equal(got.numpy(), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "gemma"}, "general.architecture is 'gemma'. Known architectures: llama, qwen2"),
        ({"llama.expert_count": 8}, "llama.expert_count = 8"),
        ({"llama.attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv"),
        ({"llama.rope.dimension_count": 4}, "head size"),
        ({"llama.rope.scaling.type": "longrope"}, "longrope"),
        ({"llama.block_count": None}, "llama.block_count is missing"),
        ({"tokenizer.ggml.pre": "falcon"}, "tokenizer.ggml.pre is 'falcon'"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model is 'bert'"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokenizer.ggml.merges": ["a zz"]}, "the merge 'a zz'"),
        ({"split.count": 2}, "llama-gguf-split"),
        ({"llama.block_count": 3}, "lacks the tensor blk.2"),
        ({"llama.block_count": 1}, "blk.1"),
        ({"llama.feed_forward_length": 96}, "has shape"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(folder_of, tmp_path, change, message):
    export_gguf(folder_of(), tmp_path / "m.gguf", "f32")
    rewritten(tmp_path / "m.gguf", tmp_path / "bad.gguf", change)
    with pytest.raises(InputError) as refused:
        import_gguf(tmp_path / "bad.gguf", tmp_path / "back")
    assert message in str(refused.value)
    assert {p.name for p in tmp_path.iterdir()} == {"model", "m.gguf", "bad.gguf"}


def test_a_type_that_the_library_cannot_dequantize_is_refused_by_name(folder_of, tmp_path):
    export_gguf(folder_of(), tmp_path / "m.gguf", "f32")
    change = {"blk.1.ffn_up.weight": (np.zeros((64, 32), np.int32), gguf.GGMLQuantizationType.I32)}
    rewritten(tmp_path / "m.gguf", tmp_path / "bad.gguf", {}, change)
    with pytest.raises(InputError, match=r"blk.1.ffn_up.weight is of type I32"):
        import_gguf(tmp_path / "bad.gguf", tmp_path / "back")
    assert {p.name for p in tmp_path.iterdir()} == {"model", "m.gguf", "bad.gguf"}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.97])
def test_a_truncated_file_is_damaged(folder_of, tmp_path, share):
    export_gguf(folder_of(), tmp_path / "m.gguf", "f32")
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "bad.gguf").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DamagedError, match="bad.gguf"):
        import_gguf(tmp_path / "bad.gguf", tmp_path / "back")


def test_export_refuses_by_name_and_leaves_nothing(folder_of, tmp_path):
    reward = folder_of("reward", head="score")
    with pytest.raises(InputError, match="reward model"):
        export_gguf(reward, tmp_path / "m.gguf")
    folder = folder_of()
    with pytest.raises(InputError, match="'q4_0' is unknown"):
        export_gguf(folder, tmp_path / "m.gguf", "q4_0")
    state = load_folder(folder)
    with torch.no_grad():
        state.model.layers[0].mlp.gate_proj.weight[0, 0] = 1e6
    save_folder(state, tmp_path / "large", generation=STOPS)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "large" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match="beyond the range of F16"):
        export_gguf(tmp_path / "large", tmp_path / "m.gguf", "f16")
    assert {p.name for p in tmp_path.iterdir()} == {"reward", "model", "large"}


def header(arch, metadata, tensors=("token_embd.weight", "output.weight")):
    def tensor(name):
        return GgufTensor("x.gguf", name, (100, 32), "F32", lambda: np.zeros((100, 32)))

    sizes = {"context_length": 64, "embedding_length": 32, "block_count": 1, "feed_forward_length": 48}
    sizes |= {"attention.head_count": 4, "attention.layer_norm_rms_epsilon": float(np.float32(1e-6))}
    values = {f"{arch}.{key}": value for key, value in (sizes | metadata).items()}
    return GgufFile("x.gguf", {"general.architecture": arch, **values}, {name: tensor(name) for name in tensors})


def test_qwen2_and_biases_become_what_transformers_calls_them():
    biased = ["token_embd.weight", *(f"blk.0.attn_{x}.bias" for x in "qkv")]
    config = hf_config(header("qwen2", {"rope.freq_base": 1e6}, biased))
    assert (config["architectures"], config["model_type"]) == (["Qwen2ForCausalLM"], "qwen2")
    assert config["tie_word_embeddings"]
    assert config["rms_norm_eps"] == 1e-6
    config = hf_config(header("llama", {}, [*biased, "blk.0.attn_output.bias"]))
    assert (config["model_type"], config["attention_bias"], config["mlp_bias"]) == ("llama", True, False)
    with pytest.raises(InputError, match="only attn_output have biases"):
        hf_config(header("llama", {}, ["token_embd.weight", "blk.0.attn_output.bias"]))


def test_rope_scaling_becomes_what_transformers_calls_it():
    linear = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    assert hf_config(header("llama", linear))["rope_parameters"] == {
        "rope_theta": 10_000.0,
        "rope_type": "linear",
        "factor": 4.0,
    }
    assert (
        hf_config(header("llama", linear | {"rope.scaling.factor": 1.0}))["rope_parameters"]["rope_type"] == "default"
    )
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
    rope = hf_config(header("llama", yarn))["rope_parameters"]
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("yarn", 4.0, 16)
    assert "attention_factor" not in rope
    rope = hf_config(header("llama", yarn | {"rope.scaling.attn_factor": 0.5}))["rope_parameters"]
    assert rope["attention_factor"] == pytest.approx(0.5 * (0.1 * math.log(4) + 1))


def test_factors_that_are_no_llama3_scaling_are_refused(folder_of, tmp_path):
    export_gguf(folder_of(**SCALED), tmp_path / "m.gguf", "f32")
    change = {"rope_freqs.weight": (np.array([1, 3, 2, 8], np.float32), gguf.GGMLQuantizationType.F32)}
    rewritten(tmp_path / "m.gguf", tmp_path / "bad.gguf", {}, change)
    with pytest.raises(InputError, match=r"rope_freqs.weight is not Llama 3.1's scaling"):
        import_gguf(tmp_path / "bad.gguf", tmp_path / "back")


def test_the_commands(folder_of, tmp_path):
    folder = folder_of()
    done = CliRunner().invoke(app, ["export-gguf", str(folder), "--out", str(tmp_path / "m.gguf"), "--type", "bf16"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["import-gguf", str(tmp_path / "m.gguf"), "--out", str(tmp_path / "back")])
    assert done.exit_code == 0, done.output
    prompt = [5, 6, 7, 8]
    greedy = SamplingParams(max_tokens=4, temperature=0)
    assert Engine.load(tmp_path / "back", device="cpu").generate([prompt], greedy)[0][0].tokens


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "tied", "wide heads", "scaled", "llama 3.2"])
def test_llama_cpp_continues_as_herdlm_and_transformers_do(folder_of, tmp_path, shape):
    folder = folder_of(**shape)
    export_gguf(folder, tmp_path / "m.gguf", "f32")
    theirs = llama_cpp.load(tmp_path / "m.gguf")
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    engine = Engine.load(folder, device="cpu")
    for seed in range(4):
        prompt = torch.randint(0, 390, (48,), generator=torch.Generator().manual_seed(seed)).tolist()
        own = engine.generate([prompt], SamplingParams(max_tokens=16, temperature=0))[0][0].tokens
        again = hf.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=None)
        assert again[0, 48:].tolist() == own
        assert llama_cpp.greedy(theirs, prompt, 16) == own


def test_the_library_reads_what_is_written(folder_of, tmp_path):
    export_gguf(folder_of(), tmp_path / "m.gguf", "q8_0")
    file = open_gguf(tmp_path / "m.gguf")
    assert file.metadata["tokenizer.ggml.eom_token_id"] == 397
    assert file.metadata["tokenizer.ggml.add_bos_token"] is True
    assert file.metadata["tokenizer.ggml.pre"] == "llama-bpe"
