"""The Llama 3 pre-tokenization rule, losslessness, special tokens, and agreement with transformers."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, TokenizerConfig, split_pattern, train_tokenizer
from tests.conftest import TEXT

# The rule as Meta published it with Llama 3 (its tokenizer's pat_str).
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello world", ["Hello", " world"]),
        ("don't WE'LL", ["don", "'t", " WE", "'LL"]),
        ("12345678", ["123", "456", "78"]),
        ("a  b", ["a", " ", " b"]),
        ("x = (y+1);\n\n  z", ["x", " =", " (", "y", "+", "1", ");\n\n", " ", " z"]),
        ("_name", ["_name"]),
        ("日本語 été", ["日本語", " été"]),
        ("end \t\n", ["end", " \t\n"]),
    ],
)
def test_pieces_of_the_llama_3_rule(text, pieces):
    assert regex.findall(LLAMA3, text) == pieces  # the examples say what the published rule says
    assert _pieces(text) == pieces


# Characters that Unicode has assigned: libraries of different years disagree about what the others will be.
assigned = st.characters(exclude_categories=("Cn", "Co", "Cs"))


@given(st.text(assigned, max_size=80))
def test_splits_any_text_as_the_published_rule(text):
    assert _pieces(text) == regex.findall(LLAMA3, text)


def test_single_digits_are_a_key(tokenizer):
    single = train_tokenizer([TEXT], TokenizerConfig(vocab_size=400, single_digits=True))
    assert [single.decode([i]) for i in single.encode("1234")] == ["1", "2", "3", "4"]
    assert split_pattern(True) != split_pattern(False)


@given(st.text(max_size=60))
def test_encoding_loses_nothing(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == text.encode()


def test_text_never_becomes_a_special_token(tokenizer):
    special = {tokenizer.special(name) for name in SPECIAL_TOKENS}
    for name in SPECIAL_TOKENS:
        assert not special & set(tokenizer.encode(f"say {name} now"))


def test_training_twice_gives_the_same_file():
    one, two = (train_tokenizer([TEXT, TEXT.upper()], TokenizerConfig(vocab_size=420)) for _ in range(2))
    assert one.content() == two.content()
    assert one.vocab_size == 420


def test_too_little_text_for_the_vocabulary_is_refused():
    with pytest.raises(InputError, match="tokenizer.vocab_size is 5000") as caught:
        train_tokenizer([TEXT], TokenizerConfig(vocab_size=5000))
    most = int(str(caught.value).split()[-1])
    assert train_tokenizer([TEXT], TokenizerConfig(vocab_size=most)).vocab_size == most
    with pytest.raises(InputError):
        train_tokenizer([TEXT], TokenizerConfig(vocab_size=most + 1))


@pytest.mark.parametrize("leading_space", [False, True])
def test_transformers_reads_the_folder_and_renders_the_same_dialogs(tmp_path, leading_space):
    from transformers import AutoTokenizer

    ours = train_tokenizer([TEXT], TokenizerConfig(vocab_size=400, leading_space=leading_space))
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    dialog = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Which package owns the file?\n"},
        {"role": "assistant", "content": "The first one, 1234."},
    ]
    assert theirs.apply_chat_template(dialog, return_dict=False) == ChatFormat.of(ours).render(dialog).tokens
    prompt = theirs.apply_chat_template(dialog[:2], add_generation_prompt=True, return_dict=False)
    assert prompt == ChatFormat.of(ours).prompt(dialog[:2])
    assert theirs(TEXT, add_special_tokens=False).input_ids == ours.encode(TEXT)
    assert theirs.eos_token_id in ChatFormat.of(ours).stop_tokens


def test_saved_and_loaded_again(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.content() == tokenizer.content()
    assert again.encode("say <|eot_id|>") == tokenizer.encode("say <|eot_id|>")


def test_missing_or_broken_files_are_named(tmp_path):
    with pytest.raises(InputError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(DamagedError, match=r"tokenizer\.json is not valid JSON"):
        Tokenizer.load(tmp_path)


def test_answers_and_formatting_are_told_apart(tokenizer):
    rendered = ChatFormat.of(tokenizer).render(
        [{"role": "user", "content": "a file"}, {"role": "assistant", "content": "the package"}]
    )
    learned = [t for t, own in zip(rendered.tokens, rendered.weights, strict=True) if own]
    assert learned == [*tokenizer.encode("the package"), tokenizer.special("<|eot_id|>")]
    words = [t for t, form in zip(rendered.tokens, rendered.formatting, strict=True) if not form]
    assert words == tokenizer.encode("the package")


def test_unknown_role_is_refused(tokenizer):
    with pytest.raises(InputError, match="role 'robot' is unknown"):
        ChatFormat.of(tokenizer).render([{"role": "robot", "content": "x"}])


def _pieces(text):
    from tokenizers import Regex, pre_tokenizers

    rule = pre_tokenizers.Split(Regex(split_pattern()), behavior="isolated")
    return [piece for piece, _ in rule.pre_tokenize_str(text)]


def test_pieces_that_nothing_divides_are_cut_before_training() -> None:
    """Training takes the square of the longest piece: no piece is longer than a limit, and no text is lost."""
    from herdlm.tokens.tokenizer import _cut_runs

    texts = [
        "ab" * 5000,
        "-" * 2500 + "x",
        "中文" * 3000,
        " " * 4000,
        "\n" * 3000,
        "words and words " * 1000,
        "",
        "a1" * 2000,
    ]
    cut = [list(_cut_runs([text])) for text in texts]
    assert ["".join(parts) for parts in cut] == texts
    assert max(len(part) for i in (0, 1, 2, 3, 4) for part in cut[i]) <= 1000
    assert len(cut[5]) == len(cut[7]) == 1 and cut[6] == []
