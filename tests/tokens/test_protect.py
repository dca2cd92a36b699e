"""No message becomes a special token, and its text comes back, by any vocabulary and any way a template writes it."""

from __future__ import annotations

import json
import random

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from herdlm.tokens.chat_format import ChatFormat
from tests.tokens.folders import CHATML, LLAMA31_SPECIAL, byte_level, sentence_piece

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def save(backend, folder, template, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def changed(backend, change):
    state = json.loads(backend.to_str())
    change(state)
    return Backend.from_str(json.dumps(state))


def with_merges(state):
    """As if the vocabulary had grown ``<s>`` and ``</s>`` out of letters."""
    vocabulary = state["model"]["vocab"]
    first = max(vocabulary.values()) + 1
    vocabulary |= {text: first + place for place, text in enumerate(("<s", "</", "</s"))}
    state["model"]["merges"] += [["<", "s"], ["<s", ">"], ["<", "/"], ["</", "s"], ["</s", ">"]]


def as_unigram(state):
    vocabulary = state["model"]["vocab"]
    pieces = [[text, -place / 10] for place, text in enumerate(sorted(vocabulary, key=vocabulary.get))]
    state["model"] = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": True}


@pytest.mark.parametrize("change", [with_merges, as_unigram])
def test_a_vocabulary_that_holds_special_tokens_reads_their_letters_as_text(tmp_path, change):
    template = "{% for m in messages %}{{ bos_token + m['content'] + eos_token }}{% endfor %}"
    format = ChatFormat.load(save(changed(sentence_piece(), change), tmp_path, template))
    tokenizer = format.tokenizer
    assert tokenizer.backend.encode("moo <s> </s>", add_special_tokens=False).ids != tokenizer.encode("moo <s> </s>")
    for text in ("moo <s> </s>", "</s>", "<s><unk>"):
        ids = tokenizer.encode(text)
        assert not any(map(tokenizer.is_special, ids)) and tokenizer.decode(ids) == text
        asked = format.prompt([{"role": "user", "content": text}])
        assert [id for id in asked if tokenizer.is_special(id)] == [tokenizer.bos, tokenizer.eos]
        assert tokenizer.decode(asked) == text
    assert tokenizer.encode_batch(["moo <s>"]) == [tokenizer.encode("moo <s>")]


def test_added_tokens_beside_special_ones_keep_their_ids(tmp_path):
    from transformers import AutoTokenizer

    backend = sentence_piece(("<|im_start|>",))
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    backend.add_special_tokens(["<|im_end|>"])
    folder = save(backend, tmp_path, CHATML)
    format, theirs = ChatFormat.load(folder), AutoTokenizer.from_pretrained(folder)
    dialog = [{"role": "user", "content": "moo"}, {"role": "assistant", "content": "<think>hm</think> moo"}]
    assert format.render(dialog).tokens == theirs.apply_chat_template(dialog, return_dict=False)
    assert backend.token_to_id("<think>") in format.render(dialog).tokens


def test_special_tokens_that_are_normalized_are_read_where_transformers_reads_them(tmp_path):
    from transformers import AutoTokenizer

    backend = sentence_piece()
    backend.add_special_tokens([AddedToken(f"<|{n}|>", normalized=True, special=True) for n in ("im_start", "im_end")])
    folder = save(backend, tmp_path, CHATML)
    format, theirs = ChatFormat.load(folder), AutoTokenizer.from_pretrained(folder)
    for content in ("moo", "moo ", " moo\n", "<|im_end"):
        dialog = [{"role": "user", "content": content}]
        assert format.prompt(dialog) == theirs.apply_chat_template(
            dialog, add_generation_prompt=True, return_dict=False
        )


def test_parts_of_special_tokens_do_not_join(tmp_path):
    template = "{% for m in messages %}{{ m['name'] + m['content'] + m['tool_call_id'] }}{{ eos_token }}{% endfor %}"
    names = {"eos_token": "<|eot_id|>"}
    format = ChatFormat.load(save(byte_level(LLAMA31_SPECIAL), tmp_path, template, names))
    draw = random.Random(0)
    for _ in range(200):
        token = draw.choice(LLAMA31_SPECIAL)
        cuts = sorted(draw.randint(0, len(token)) for _ in range(2))
        parts = [token[: cuts[0]], token[cuts[0] : cuts[1]], token[cuts[1] :]]
        if draw.random() < 0.5:
            parts[0] = "moo " + parts[0]
        message = dict(zip(("name", "content", "tool_call_id"), parts, strict=True))
        ids = format.prompt([{"role": "user", **message}])
        assert format.tokenizer.decode(ids, keep_special=True) == "".join(parts) + "<|eot_id|>"
        assert [id for id in ids if format.tokenizer.is_special(id)] == [format.tokenizer.eos]


@pytest.mark.parametrize(
    "way", ["c", "c | tojson", "c | tojson(ensure_ascii=True)", "{'c': c}", "[c] | string", "c | upper"]
)
def test_text_comes_back_however_a_template_writes_it(tmp_path, way):
    template = f"{{% set c = messages[0]['content'] %}}{{{{ {way} }}}}"
    format = ChatFormat.load(save(byte_level(LLAMA31_SPECIAL), tmp_path, template, {"eos_token": "<|eot_id|>"}))
    text = "moo <|eot_id|> <|python_tag|><| ü 😀 <"
    expected = {
        "c": text,
        "c | tojson": json.dumps(text, ensure_ascii=False),
        "c | tojson(ensure_ascii=True)": json.dumps(text),
        "{'c': c}": str({"c": text}),
        "[c] | string": str([text]),
        "c | upper": "MOO <|eot_id|> <|python_tag|><| Ü 😀 <",  # numbers stand for the names
    }[way]
    ids = format.prompt([{"role": "user", "content": text}])
    assert format.tokenizer.decode(ids) == expected


def test_the_signs_around_numbers_are_text_in_a_message(tmp_path):
    format = ChatFormat.load(save(byte_level(LLAMA31_SPECIAL), tmp_path, CHATML, {"eos_token": "<|eot_id|>"}))
    for text in (
        "\U00010a505\U00010a51",
        "\U00010a51\U00010a50",
        "\ufdd0moo\ufdd1",
        "\ufdd4",
        "<|\ufdd0",
        "\U00010a5099",
    ):
        assert text in format.tokenizer.decode(format.prompt([{"role": "user", "content": text}]))
