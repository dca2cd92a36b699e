"""Text from tokens: nothing lost, nothing shown too early, stop strings found wherever they fall."""

from hypothesis import given
from hypothesis import strategies as st

from herdlm.generate.sampling.detokenize import TextStream


def run(pieces: list[bytes], stop: tuple[str, ...] = (), min_tokens: int = 0) -> tuple[list[str], TextStream]:
    stream = TextStream(lambda token: pieces[token], stop, min_tokens=min_tokens)
    shown = []
    for token in range(len(pieces)):
        stopped = stream.push(token)
        shown.append(stream.take())
        if stopped:
            break
    stream.close()
    shown.append(stream.take())
    return shown, stream


def test_a_character_split_between_tokens_is_shown_when_whole():
    assert run([b"a\xf0\x9f", b"\x90", b"\x84b"])[0] == ["a", "", "🐄b", ""]


def test_a_character_never_finished_becomes_the_replacement_character():
    shown, stream = run([b"a\xe2\x82"])
    assert shown == ["a", "�"]
    assert stream.text == "a�"


def test_a_stop_string_across_tokens_is_never_shown():
    shown, stream = run([b"one\n", b"\nUs", b"er: two", b"x"], ("\n\nUser:",))
    assert shown == ["one", "", "", ""]
    assert stream.stopped
    assert stream.text == "one"


def test_text_that_only_began_like_a_stop_string_is_shown_later():
    assert run([b"<|", b"e", b"x"], ("<|end|>",))[0] == ["", "", "<|ex", ""]
    assert run([b"<|", b"e"], ("<|end|>",))[0] == ["", "", "<|e"]


def test_the_first_of_several_stop_strings_counts():
    assert run([b"abcd"], ("d", "bc", "b"))[1].text == "a"


def test_a_stop_string_may_end_inside_a_token_with_a_split_character():
    assert run(["é".encode()[:1], "é".encode()[1:] + b"!x"], ("é!",))[1].text == ""


def test_stop_strings_complete_before_min_tokens_are_passed_over():
    assert run([b"ab", b"c", b"ab"], ("ab", "xxxxxx"), 2)[1].text == "abc"
    assert run([b"ab", b"c", b"ab"], ("ab", "xxxxxx"), 4)[1].text == "abcab"
    assert run([b"a", b"b", b"c"], ("ab",), 2)[1].text == "", "one that becomes complete in time counts"


@given(st.text(st.sampled_from("abé🐄"), max_size=12), st.data())
def test_any_split_of_any_text_gives_the_same_text(text, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    stop = tuple(data.draw(st.lists(st.text(st.sampled_from("abé🐄"), min_size=1, max_size=3), max_size=3)))
    shown, stream = run(pieces, stop)
    found = [at for s in stop if (at := text.find(s)) >= 0]
    # A longer stop string may begin earlier but end in a later token than the one that stopped the text.
    assert "".join(shown) == stream.text
    if not found:
        assert stream.text == text
    else:
        assert text.startswith(stream.text)
        assert len(stream.text) >= min(found)
        assert not any(s in stream.text for s in stop)
        assert len(stream.text) < len(text)
