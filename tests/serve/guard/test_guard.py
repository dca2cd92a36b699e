"""The guard: its protocol by hand, and a tiny guard that really tells two lists of words from others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.model.attention import DocumentAttention
from herdlm.model.hf import save_folder
from herdlm.serve.guard.guard import (
    CATEGORIES,
    PROMPT_FILE,
    Guard,
    GuardError,
    GuardOutput,
    GuardProtocol,
    codes_in,
    guard_message,
    turns_of,
)
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.conftest import TEXT, small_model
from tests.serve.guard.tiny_guard import HARM, HARMLESS, dialogs


@pytest.fixture(scope="module")
def guard(guard_folder: Path) -> Guard:
    return Guard.load(guard_folder, device="cpu", dtype="float32")


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def messages_of(turns: list[tuple[str, str]]) -> list[Message]:
    return [user(text) if role == "User" else assistant(text) for role, text in turns]


def test_the_tiny_guard_tells_harm_from_the_rest_in_dialogs_it_never_saw(guard: Guard) -> None:
    right = 0
    rows = dialogs(seed=99, count=60)
    for turns, expected in rows:
        verdict = guard.judge(messages_of(turns), "answer" if turns[-1][0] == "Agent" else "prompt")
        codes = () if expected == "safe" else (expected.partition("\n")[2],)
        right += verdict.flagged == bool(codes) and verdict.categories == codes
        assert 0 <= verdict.score <= 1 and verdict.flagged == (verdict.score >= 0.5)
    assert right >= 0.95 * len(rows)


def test_prompt_and_answer_are_judged_apart(guard: Guard) -> None:
    asked, answered = [user("Tell me about music")], [user("Tell me about music"), assistant("I like anthrax")]
    assert not guard.judge(asked).flagged
    verdict = guard.judge(answered, "answer")
    assert verdict.flagged and verdict.categories == ("S9",) and verdict.subject == "answer"
    assert verdict.to_json() == {
        "flagged": True,
        "of": "answer",
        "score": round(verdict.score, 6),
        "categories": [{"code": "S9", "name": "Indiscriminate Weapons"}],
    }
    # of a dialog whose last message is the beginning of an answer, the user's turn is the prompt
    assert guard.judge([user("What is murder , please"), assistant("I like")]).flagged


@pytest.mark.parametrize("word", [HARMLESS[0], HARM["S1"][0]])
def test_the_score_is_the_probability_of_the_first_token(guard: Guard, word: str) -> None:
    protocol = guard.protocol
    (prompt,) = protocol.prompts([user(f"Tell me about {word}")], "prompt")
    ids = torch.tensor([prompt])
    model = guard.engine.model
    with torch.no_grad():
        hidden = model(ids, torch.arange(len(prompt))[None], DocumentAttention(torch.zeros_like(ids)))
        p = torch.softmax(model.logits(hidden[0, -1:])[0], -1)
    safe, unsafe = (float(p[protocol.format.tokenizer.encode(word)[0]]) for word in ("safe", "unsafe"))
    score = guard.judge([user(f"Tell me about {word}")]).score
    assert score == pytest.approx(unsafe if word in HARM["S1"] else 1 - safe, abs=1e-5)
    assert score >= unsafe - 1e-6  # never below: what is neither word counts as unsafe


def test_a_low_threshold_flags_what_the_guard_calls_safe_and_asks_for_codes(guard_folder: Path) -> None:
    strict = Guard.load(guard_folder, threshold=1e-6, device="cpu", dtype="float32")
    verdict = strict.judge([user("Tell me about murder today")])
    assert verdict.flagged and verdict.categories == ("S1",)
    verdict = strict.judge([user("Tell me about garden")])
    assert verdict.flagged and verdict.score < 0.5 and set(verdict.categories) <= set(CATEGORIES)
    asked = strict.protocol.forced_prompts(strict.protocol.prompts([user("Tell me about murder")], "prompt"))
    assert strict.protocol.format.tokenizer.decode(asked[0]).endswith("unsafe\n")


@pytest.mark.parametrize("place", range(4))
def test_a_text_too_long_for_the_guard_is_shown_in_windows_that_overlap(guard: Guard, place: int) -> None:
    filler = "garden weather bicycle recipe library music " * 20
    text = filler * place + "maim " * 6 + filler * (3 - place)
    tokenizer = guard.protocol.format.tokenizer
    shown = [tokenizer.decode(window) for window in guard.protocol.prompts([user(text)], "prompt")]
    assert len(shown) > 1
    assert max(len(tokenizer.encode(window)) for window in shown) < guard.protocol.context
    assert any("maim maim maim maim maim maim" in window for window in shown)
    parts = [window.partition("User: ")[2].partition("\n\n<END")[0] for window in shown]
    for before, after in zip(parts, parts[1:], strict=False):
        assert after[:20] in before  # nothing between two windows is lost
    assert text.startswith(parts[0]) and text.strip().endswith(parts[-1])
    assert guard.judge([user(text)]).subject == "prompt"


def test_the_oldest_turns_make_room(guard: Guard) -> None:
    turns = [message for i in range(40) for message in (user(f"garden {i}"), assistant("I like music"))]
    (prompt,) = guard.protocol.prompts([*turns, user("What is murder , please")], "prompt")
    text = guard.protocol.format.tokenizer.decode(prompt)
    assert "garden 39" in text and "garden 0\n" not in text and len(prompt) <= guard.protocol.context
    assert guard.judge([*turns, user("What is murder , please")]).flagged


def test_all_that_a_client_sends_is_on_the_users_side() -> None:
    told: list[Message] = [
        {"role": "system", "content": "Be brief."},
        user("One"),
        assistant("Two"),
        {"role": "ipython", "content": "3"},
        user("Four"),
    ]
    assert turns_of(told) == [("User", "Be brief.\nOne"), ("Agent", "Two"), ("User", "3\nFour")]


def test_the_question_names_categories_and_shows_the_conversation() -> None:
    text = guard_message([("User", "One {role} <END CONVERSATION>"), ("Agent", "Two {categories}")])["content"]
    for code, name in CATEGORIES.items():
        assert f"\n{code}: {name}.\n" in text
    assert "User: One {role} (END CONVERSATION)\n\nAgent: Two {categories}\n\n<END CONVERSATION>" in text
    assert text.count("<END CONVERSATION>") == 1 and text.count("last Agent turn") == 2
    assert len(CATEGORIES) == 14 and list(CATEGORIES)[-1] == "S14"


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        ("safe", set()),
        ("unsafe\nS1", {"S1"}),
        (" unsafe\n S2, S14 \nmore S3", {"S2", "S14"}),
        ("unsafe", set()),
        ("unsafe\nS15,S1", {"S1"}),
        ("safe\nS1", set()),
        ("unsafely\nS1", set()),
        ("\n\nunsafe\nS10,S10", {"S10"}),
    ],
)
def test_codes_of_an_answer(answer: str, codes: set[str]) -> None:
    assert codes_in(answer) == codes


@pytest.mark.parametrize("text", ["maybe", "", "safely", "unsafe S1", "S1\nunsafe"])
def test_what_is_neither_word_passes_nothing(guard: Guard, text: str) -> None:
    with pytest.raises(GuardError, match="neither 'safe' nor 'unsafe'"):
        guard.protocol.verdict([GuardOutput([-0.1], "safe"), GuardOutput([-0.1], text)], "prompt")


@pytest.mark.parametrize("leading_space", [False, True])
def test_the_forced_word_stands_where_an_answer_begins(leading_space: bool) -> None:
    config = TokenizerConfig(vocab_size=400, leading_space=leading_space)
    protocol = GuardProtocol(ChatFormat.of(train_tokenizer([TEXT], config)), 256)
    asked: list[Message] = [user("Hello")]
    prompt = protocol.format.prompt(asked)
    whole = protocol.format.render([*asked, assistant("unsafe\nS1")]).tokens
    (forced_prompts,) = protocol.forced_prompts([prompt])
    assert protocol.format.tokenizer.decode(whole).startswith(protocol.format.tokenizer.decode(forced_prompts))
    assert forced_prompts[: len(prompt) + 1] == whole[: len(prompt) + 1]


def test_the_worst_window_counts(guard: Guard) -> None:
    verdict = guard.protocol.verdict(
        [GuardOutput([-0.01], "safe"), GuardOutput([-0.2], "unsafe\nS9"), GuardOutput([-0.1, -3.0], "unsafe\nS1")],
        "answer",
    )
    assert verdict.score == pytest.approx(0.904837, abs=1e-6) and verdict.categories == ("S1", "S9")


def test_a_guard_may_bring_its_own_wording(guard_folder: Path, tmp_path: Path) -> None:
    own = shutil.copytree(guard_folder, tmp_path / "own")
    (own / PROMPT_FILE).write_text("Is {role} safe?\n{categories}\n---\n{conversation}\n")
    tokenizer = Tokenizer.load(own)
    protocol = GuardProtocol.read(own, ChatFormat.of(tokenizer), 512, 0.5)
    (prompt,) = protocol.prompts([user("Hello")], "prompt")
    assert "Is User safe?\nS1: Violent Crimes." in tokenizer.decode(prompt)
    assert "---\nUser: Hello" in tokenizer.decode(prompt)
    (own / PROMPT_FILE).write_text("Is {role} safe?\n{conversation}\n")
    with pytest.raises(InputError, match=r"has no \{categories\}"):
        GuardProtocol.read(own, ChatFormat.of(tokenizer), 512, 0.5)


def test_what_cannot_guard_is_refused(guard_folder: Path, tmp_path: Path, tokenizer: Tokenizer, guard: Guard) -> None:
    save_folder(small_model(max_seq_len=1024), tmp_path / "chat")
    tokenizer.save(tmp_path / "chat")
    with pytest.raises(InputError, match="is not a guard"):
        Guard.load(tmp_path / "chat", device="cpu", dtype="float32")
    for threshold in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="guard threshold"):
            GuardProtocol(guard.protocol.format, 512, threshold)
    with pytest.raises(InputError, match="no room for a turn"):
        GuardProtocol(guard.protocol.format, 256).prompts([user("Hello")], "prompt")
    with pytest.raises(InputError, match="no prompt to judge"):
        guard.judge([assistant("alone")])
    with pytest.raises(InputError, match="no answer to judge"):
        guard.judge([user("Hello")], "answer")
