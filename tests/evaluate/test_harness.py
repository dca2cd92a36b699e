"""lm-eval with a model folder of ours beside lm-eval's own Hugging Face model on the same folder, in float32."""

import importlib.util
import json

import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.model.hf import save_folder
from herdlm.tokens.chat_format import generation_settings
from herdlm.tokens.tokenizer import Tokenizer
from tests.conftest import small_model
from tests.tokens.folders import write_family

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("lm-eval is not installed", allow_module_level=True)

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from herdlm.evaluate.harness import HarnessModel

CONTEXT = 48
FAMILIES = ("smollm2", "llama-2", "llama-3", "mistral")  # the first adds no begin token
LONG = "the cow says moo and the calf says moo too, 12 times of 345! " * 8
PAIRS = [
    ("the cow says", " moo"),
    ("the cow says ", "moo and the calf"),  # a space that belongs to the continuation
    ("the cow says\n\n", "moo"),
    ("", "the calf says moo"),
    ("user: Zürich, naïve café", " - 日本語"),
    ("user: Zürich, naïve café", " и русский текст 😀"),
    (LONG, " moo"),  # the context loses its beginning
    (LONG, " moo too, 12 times of 345!"),
    ("new\tline  two", "   spaces"),
]
GREEDY = {"until": ["\n", "cow"], "max_gen_toks": 12, "do_sample": False}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("harness") / request.param
    write_family(request.param, out)
    vocabulary = Tokenizer.load(out).vocab_size
    save_folder(small_model(vocab_size=vocabulary, max_seq_len=CONTEXT), out)
    (out / "generation_config.json").write_text(json.dumps(generation_settings(out)))
    return out


@pytest.fixture(scope="module")
def own(folder):
    return HarnessModel(str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def theirs(folder):
    return HFLM(str(folder), device="cpu", dtype="float32", batch_size=1)


def asked(kind, arguments):
    return [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]


def likelihoods(model, pairs):
    return model.loglikelihood(asked("loglikelihood", pairs), disable_tqdm=True)


def check_likelihoods(own, theirs):
    assert [greedy for _, greedy in own] == [greedy for _, greedy in theirs]
    assert [value for value, _ in own] == pytest.approx([value for value, _ in theirs], abs=1e-3)


def test_likelihoods_are_those_of_the_hugging_face_model(own, theirs):
    check_likelihoods(likelihoods(own, PAIRS), likelihoods(theirs, PAIRS))


def test_what_is_likeliest_is_called_greedy(own, theirs):
    pairs = []
    for context in (LONG[:length] for length in range(3, 40)):
        best = theirs.model(torch.tensor([theirs.tok_encode(context)])).logits[0, -1].argmax()
        pairs.append((context, theirs.tokenizer.decode([best]) or "moo"))
    found = likelihoods(own, pairs)
    assert any(greedy for _, greedy in found)
    check_likelihoods(found, likelihoods(theirs, pairs))


def test_a_begin_token_in_the_text_is_not_added_again(own, theirs):
    begin = theirs.tokenizer.bos_token
    assert own.tok_encode(f"{begin}the cow") == theirs.tok_encode(f"{begin}the cow")
    assert own.tok_encode("the cow") == theirs.tok_encode("the cow")
    pairs = [(f"{begin}{context}", continuation) for context, continuation in PAIRS]
    check_likelihoods(likelihoods(own, pairs), likelihoods(theirs, pairs))


def test_whole_texts_have_the_same_likelihood(own, folder):
    # By default lm-eval puts a second begin token before a text whose tokenizer adds one.
    theirs = HFLM(str(folder), device="cpu", dtype="float32", batch_size=1, add_bos_token=False)
    texts = [("the cow says moo",), (LONG,), (LONG * 3,), (LONG[:70],)]
    found = own.loglikelihood_rolling(asked("loglikelihood_rolling", texts))
    expected = theirs.loglikelihood_rolling(asked("loglikelihood_rolling", texts), disable_tqdm=True)
    assert found == pytest.approx(expected, abs=1e-3)


def test_answers_are_the_same_texts(own, theirs):
    contexts = [context for context, _ in PAIRS if context]
    requests = asked("generate_until", [(context, dict(GREEDY)) for context in contexts])
    assert own.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)


def test_answers_end_before_a_stop_string(own, theirs):
    contexts = [context for context, _ in PAIRS if context]
    free = own.generate_until(asked("generate_until", [(c, {"max_gen_toks": 12}) for c in contexts]))
    stops = [next((text[i : i + 2] for i in range(4, len(text) - 1)), "\n") for text in free]
    requests = asked(
        "generate_until", [(c, {"until": [stop], "max_gen_toks": 12}) for c, stop in zip(contexts, stops, strict=True)]
    )
    found = own.generate_until(requests)
    assert any(len(cut) < len(text) for cut, text in zip(found, free, strict=True))
    assert found == theirs.generate_until(requests, disable_tqdm=True)


def test_dialogs_become_the_same_text_and_have_the_same_likelihood(own, theirs):
    history = [
        {"role": "user", "content": "what does the cow say?"},
        {"role": "assistant", "content": "moo"},
        {"role": "user", "content": "and the calf?"},
    ]
    text = own.apply_chat_template(history)
    assert text == theirs.apply_chat_template(history)
    begun = [*history, {"role": "assistant", "content": "the calf says"}]
    assert own.apply_chat_template(begun, add_generation_prompt=False) == theirs.apply_chat_template(
        begun, add_generation_prompt=False
    )
    assert own.chat_template(True) == theirs.chat_template(True)
    assert own.tok_encode(text) == theirs.tok_encode(text)
    pairs = [(text, "moo"), (text, " too")]
    check_likelihoods(likelihoods(own, pairs), likelihoods(theirs, pairs))
    requests = asked("generate_until", [(text, dict(GREEDY))])
    assert own.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)


def test_an_unknown_option_of_generation_is_refused(own):
    with pytest.raises(InputError, match="num_beams"):
        own.generate_until(asked("generate_until", [("the cow", GREEDY | {"num_beams": 4})]))
    with pytest.raises(InputError, match="no room"):
        own.generate_until(asked("generate_until", [("the cow", {"max_gen_toks": CONTEXT})]))
