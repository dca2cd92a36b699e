"""From a folder to an engine: the right reader, device and type, or an error that says which to use."""

import pytest
import torch

from herdlm.base.errors import DamagedError, InputError
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.generate.load import load_model
from herdlm.model.config import ModelConfig
from herdlm.model.hf import save_folder
from herdlm.model.transformer import build, initialize
from herdlm.tokens.tokenizer import TokenizerConfig, train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    config = ModelConfig(vocab_size=280, dim=32, layers=3, heads=4, kv_heads=2, ffn_dim=48, max_seq_len=64)
    model = build(config)
    initialize(model, seed=3, std=0.2)
    save_folder(model, path)
    train_tokenizer(["the cow says moo and the calf says moo too " * 20], TokenizerConfig(vocab_size=280)).save(path)
    return path


def test_a_folder_becomes_an_engine_that_gives_text(folder):
    engine = Engine.load(folder, device="cpu", max_batch=4, page_size=8)
    assert engine.model.model.embed_tokens.weight.dtype == torch.float32
    prompt = engine.tokenizer.encode("the cow")
    completion = engine.generate([prompt], SamplingParams(max_tokens=6))[0][0]
    assert completion.text == engine.tokenizer.decode(completion.tokens)


def test_the_type_asked_for_is_the_type_of_weights_and_cache(folder):
    engine = Engine.load(str(folder), device="cpu", dtype="bfloat16")
    assert {p.dtype for p in engine.model.parameters()} == {torch.bfloat16}
    assert engine.cache.dtype == torch.bfloat16
    assert load_model(folder, "cpu", torch.float64).model.norm.weight.dtype == torch.float64


def test_a_quantized_folder_is_read_as_such(folder, tmp_path):
    quantize_folder(folder, tmp_path / "fp8", Fp8Config())
    engine = Engine.load(tmp_path / "fp8", device="cpu", dtype="float32")
    assert engine.model.model.layers[1].mlp.up.weight.dtype == torch.float8_e4m3fn
    answers = engine.generate([[1, 2, 3]] * 2, SamplingParams(max_tokens=4, n=2, seed=1))
    assert [len(c.tokens) for completions in answers for c in completions] == [4] * 4
    exact = Engine.load(folder, device="cpu").generate([[1, 2, 3]], SamplingParams(max_tokens=1, temperature=0))
    near = engine.generate([[1, 2, 3]], SamplingParams(max_tokens=1, temperature=0))
    assert near[0][0].logprobs[0] == pytest.approx(exact[0][0].logprobs[0], abs=0.2)
    assert near[0][0].logprobs[0] != exact[0][0].logprobs[0]


@pytest.mark.parametrize(
    ("wrong", "message"), [({"device": "cpux"}, "cpux"), ({"device": "cuda:99"}, "GPUs"), ({"dtype": "int8"}, "int8")]
)
def test_unknown_devices_and_types_are_refused(folder, wrong, message):
    with pytest.raises(InputError, match=message):
        Engine.load(folder, **wrong)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises((InputError, DamagedError), match=r"config\.json"):
        Engine.load(tmp_path)
