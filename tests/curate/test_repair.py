"""Damage is undone, clean text is left alone, and repairing twice is repairing once."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.curate.steps.repair import repair

PROSE = {
    "fr": "Voilà : l’été dernier, à Nîmes, le cœur du « problème » – déjà ancien – s’aggravait… ÇA VA ? Ô Dieu",
    "de": "Größe, Übermaß und „Äpfel“ für 5 €: das heißt ‚schön‘ – Öl ist „süß“.",
    "cs": "PŘÍŠTÍ VÝŽIVA JE ÚŽASNÁ, TÍŽ ŽÍŽEŇ: žluťoučký kůň úpěl ďábelské ódy",
    "pt": "A palavra “IRMÃ” e a “AMANHÃ”: não são iguais — coração, pães e lições",
    "ru": "Привет, мир: это проверка кодировки",
    "el": "Καλημέρα κόσμε, αυτό είναι ένα κείμενο",
    "ja": "日本語の文章です。「ネットワーク」の診断ツール！",
    "zh": "这是一个测试，用来检查编码。",
    "pl": "Ćma, źdźbło, łóżko, ŻÓŁĆ i „gęś”",
    "he": "שלום עולם",
    "emoji": "Fine 👍🏽 – 👨‍👩‍👧 ✔️ → ok",
}


@pytest.mark.parametrize("language", PROSE)
def test_proper_prose_is_left_alone(language: str) -> None:
    for line in (PROSE[language], *PROSE[language].split()):
        assert repair(line) == line


@pytest.mark.parametrize("language", PROSE)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_utf8_read_as_latin_1_is_decoded_again(language: str, times: int) -> None:
    damaged = PROSE[language]
    for _ in range(times):
        damaged = damaged.encode().decode("latin-1")
    assert repair(f"A clean line.\n{damaged}\nAnother.") == f"A clean line.\n{PROSE[language]}\nAnother."


@pytest.mark.parametrize(
    ("damaged", "meant"),
    [
        ("FranÃ§ois donâ€™t", "François don’t"),
        ("Ã¢â‚¬Å“quotedÃ¢â‚¬Â\x9d", "“quoted”"),
        ("funzionalitÃ\xa0. PiÃ¹", "funzionalità. Più"),
        ("voilÃ  l'Ã©tÃ©", "voilà l'été"),  # the no-break space had become a space
        ("Â© 2020, 20Â°C", "© 2020, 20°C"),
        ("ï»¿Title", "Title"),
        ("nÅ“ud â†’ cÅ“ur", "nœud → cœur"),
        ("it\x92s \x93quoted\x94 \x85", "it’s “quoted” …"),
    ],
)
def test_known_damage(damaged: str, meant: str) -> None:
    assert repair(damaged) == meant


def test_a_line_of_accented_letters_is_not_decoded_for_one_odd_pair() -> None:
    line = "L’été, « é » s’affiche comme Ã© après décodage erroné à Nîmes"
    assert repair(line) == line


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("a\r\nb\rc\x0bd\u2028e", "a\nb\nc\nd\ne"),
        ("nul\x00 bell\x07 esc\x1b del\x7f", "nul bell esc del"),
        ("nul\x00 é", "nul é"),
        ("icon \ue001\U000f0001 lone \ud800 lost\ufffd é", "icon  lone  lost é"),
        ("co\xadop\u200berate é\ufeff", "cooperate é"),
        ("left\u200e right\u202e\u2066 é", "left right é"),
        ("a\xa0b\u2009c\u3000d\u202fe", "a b c d e"),
        ("\tcode\n    x = 1\ty", "code\n    x = 1\ty"),
        ("e\u0301", "é"),
        ("ﬁnal oﬃce ﬂow", "final office flow"),
        ("ＡＢＣ１２３、ですか？", "ABC123、ですか？"),
        ("ｶﾞﾗｽ", "ガラス"),
        ("x² ½ ㎏ 𝐀 ﷺ", "x² ½ ㎏ 𝐀 ﷺ"),
        ("می\u200cخواهم ab\u200ccd", "می\u200cخواهم abcd"),
        ("ភាសា\u200bខ្មែរ ab\u200bcd", "ភាសា\u200bខ្មែរ abcd"),
        ("a  \n\n\n\n b \t\nc\n", "a\n\n b\nc"),
    ],
)
def test_the_policy(text: str, repaired: str) -> None:
    assert repair(text) == repaired


ODD = (
    "ÃÂâ©€™œ\xa0\x80\x9d\xad\u200b\u200c\u200d\u200eéÉ”“…Šž"
    "\u0301~A\r\n\t ﬁｶﾞ１\ufeffðŸ‘\u0300अक\u093c\u0958กم\ud800\ue000"
)
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(ODD)), max_size=60) | st.text(ODD, max_size=30)


@given(TEXTS, st.integers(0, 2))
def test_repairing_twice_is_repairing_once(text: str, times: int) -> None:
    for _ in range(times):
        text = text.encode("utf-8", "replace").decode("latin-1")
    repaired = repair(text)
    assert repair(repaired) == repaired
    assert unicodedata.is_normalized("NFC", repaired)
    assert not any(unicodedata.category(c) in ("Cc", "Co", "Cs") for c in repaired if c not in "\n\t")
    assert repaired.encode().decode() == repaired


@given(st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20), max_size=80))
def test_printable_ascii_only_loses_outer_space(text: str) -> None:
    assert repair(text) == text.strip()
