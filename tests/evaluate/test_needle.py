"""The needle measure finds a needle exactly where the model does."""

import pytest

from herdlm.base.errors import InputError
from herdlm.evaluate.needle import make_needles, predict_with, retrieval
from herdlm.tokens.shards import Shard, ShardWriter
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT
from tests.conftest import TEXT, small_model


@pytest.fixture(scope="module")
def text(tokenizer, tmp_path_factory):
    """Held-out text in three documents."""
    folder = tmp_path_factory.mktemp("validation")
    writer = ShardWriter(folder, vocab_size=tokenizer.vocab_size, tokenizer="t")
    for part in (TEXT, TEXT[::-1], TEXT.upper()):
        tokens = [tokenizer.special(BEGIN_OF_TEXT), *tokenizer.encode(part), tokenizer.special(END_OF_TEXT)]
        writer.add(tokens, text_bytes=len(part))
    writer.close()
    return Shard(folder)


def copying(window=None):
    """A model of one rule, behind the interface of any other: what followed the longest match of the last tokens.

    ``window``: it sees no further back, as a model trained on rows of that length.
    """

    def predict(tokens, count):
        found = []
        for end in range(len(tokens) - count + 1, len(tokens) + 1):
            seen = tokens[:end] if window is None else tokens[max(0, end - window) : end]
            best, following = 0, -1
            for at in range(1, len(seen)):
                length = 0
                while length < at and seen[at - 1 - length] == seen[-1 - length]:
                    length += 1
                if length > best:
                    best, following = length, seen[at]
            found.append(following)
        return found

    return predict


def test_trials_have_the_length_the_depths_and_the_needle_asked_for(text, tokenizer):
    needles = make_needles(text, tokenizer, length=300, depths=5, per_depth=3, seed=1)
    assert [n.depth for n in needles] == [d for d in (0.0, 0.25, 0.5, 0.75, 1.0) for _ in range(3)]
    for needle in needles:
        assert len(needle.prompt) + len(needle.answer) == 300
        assert needle.prompt.count(tokenizer.special(BEGIN_OF_TEXT)) == 1
        assert needle.prompt.count(tokenizer.special(END_OF_TEXT)) == 0
        words, answer = tokenizer.decode(needle.prompt), tokenizer.decode(needle.answer)
        sentence, question = words.rpartition("\n")[2] + answer + ".", words.rpartition("\n")[2]
        assert words.count(sentence) == 1
        assert words.endswith(question)
        before = words.index(sentence) / (len(words) - len(sentence) - len(question))
        assert before == pytest.approx(needle.depth, abs=0.15)
    assert len({tokenizer.decode(n.answer) for n in needles}) == 15
    assert needles == make_needles(text, tokenizer, length=300, depths=5, per_depth=3, seed=1)
    assert needles != make_needles(text, tokenizer, length=300, depths=5, per_depth=3, seed=2)


def test_a_model_that_copies_finds_every_needle(text, tokenizer):
    told = retrieval(copying(), make_needles(text, tokenizer, length=400, depths=5, per_depth=2))
    assert (told.found, told.trials, told.tokens) == (10, 10, 400)
    assert told.rate.value == 1.0
    assert told.rate.low < 0.8  # ten trials prove no more


def test_a_model_that_sees_half_the_text_finds_the_needles_in_it(text, tokenizer):
    needles = make_needles(text, tokenizer, length=400, depths=5, per_depth=2)
    assert retrieval(copying(window=170), needles).by_depth == {0.0: 0, 0.25: 0, 0.5: 0, 0.75: 1, 1.0: 1}


def test_one_wrong_digit_is_a_needle_not_found(text, tokenizer):
    def careless(tokens, count):
        return [*copying()(tokens, count)[:-1], -1]

    assert retrieval(careless, make_needles(text, tokenizer, length=200, depths=2, per_depth=2)).found == 0


def test_a_model_that_learnt_nothing_finds_none(text, tokenizer):
    needles = make_needles(text, tokenizer, length=200, depths=3, per_depth=3)
    assert retrieval(predict_with(small_model()), needles).found == 0


def test_predictions_are_what_greedy_decoding_gives(model):
    from herdlm.generate import Engine, SamplingParams

    prompt = [5, 9, 200, 31, 7, 7, 18]
    params = SamplingParams(max_tokens=6, temperature=0.0)
    (completion,) = Engine(model, None).generate([prompt], params)[0]
    answer = completion.tokens
    predict = predict_with(model)
    assert predict([*prompt, *answer[:-1]], len(answer)) == answer
    wrong = [answer[0], (answer[1] + 1) % 400, *answer[2:]]
    assert predict([*prompt, *wrong[:-1]], len(wrong)) != wrong


def test_what_cannot_be_asked_is_refused(text, tokenizer, model, tmp_path):
    with pytest.raises(InputError, match="10 tokens do not hold a needle .*Set a length of at least") as caught:
        make_needles(text, tokenizer, length=10)
    least = int(str(caught.value).split()[-1])
    assert len(make_needles(text, tokenizer, length=least + 20, depths=1, per_depth=1)) == 1
    with pytest.raises(InputError, match="257 tokens exceed the model's max_seq_len 256"):
        predict_with(model)([1] * 257, 1)
    with pytest.raises(InputError, match="no needles"):
        retrieval(copying(), [])
    ShardWriter(tmp_path, vocab_size=400, tokenizer="t").close()
    with pytest.raises(InputError, match="holds no text"):
        make_needles(Shard(tmp_path), tokenizer, length=200)
