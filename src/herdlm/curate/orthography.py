"""How languages are written: codes, mean word lengths, ends of sentences, and which have no spaces between words.

To support a language better, add it to ``MEAN_WORD_CHARS`` and to ``stopwords.py``. Without an entry, its words are
assumed to have ``DEFAULT_MEAN_WORD_CHARS`` characters, and the stop-word rule does not apply.
"""

# ruff: noqa: RUF001
from __future__ import annotations

# The languages that lid.176 identifies: ISO 639-1 codes, or 639-3 where there is none
_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy
da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy
ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min
mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm
ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep
vi vls vo wa war wuu xal xmf yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())

# Written without spaces between words. What counts as a word in these scripts: see ``words.py``
UNSPACED = frozenset({"bo", "ja", "km", "lo", "my", "th", "wuu", "yue", "zh"})
UNSPACED_WORD_CHARS = 2  # the mean length of their words, where each character is counted as a word

# Characters per word, including punctuation that touches it. The first set was measured on translated software manuals
# (medians over pages). The second is estimated from it and from related languages.
_MEASURED = """
ar 5.3; ca 5.5; cs 6.1; da 6.0; de 6.6; el 5.9; en 5.3; es 5.5; fa 4.9; fr 5.6; id 6.4; it 5.8; ko 3.7; nl 5.8;
no 5.9; pl 6.6; pt 5.5; ro 5.7; ru 6.5; sv 5.9; tr 6.8; vi 3.9
"""
_ESTIMATED = """
af 5.5; az 7.0; be 6.6; bg 5.8; bn 5.2; bs 5.9; ckb 6.2; cy 5.2; eo 5.7; et 7.0; eu 7.0; fi 7.8; ga 5.2; gl 5.5;
gu 5.2; he 4.6; hi 4.7; hr 5.9; hu 6.7; hy 7.0; is 5.8; ka 7.6; kk 7.3; kn 7.7; lt 6.9; lv 6.7; mk 5.6; ml 9.3;
mr 5.7; ms 6.3; ne 5.8; nn 5.8; pa 4.5; sh 5.9; si 5.8; sk 6.1; sl 5.8; sq 5.5; sr 5.8; sw 5.9; ta 8.0; te 7.5;
tl 5.4; uk 6.5; ur 4.4; uz 7.0
"""
MEAN_WORD_CHARS = {
    language: float(chars) for language, chars in map(str.split, (_MEASURED + ";" + _ESTIMATED).split(";"))
}
DEFAULT_MEAN_WORD_CHARS = 6.0


def word_length_ratio(language: str) -> float:
    """Return the length of a language's words relative to English, for which published thresholds were chosen."""
    return MEAN_WORD_CHARS.get(language, DEFAULT_MEAN_WORD_CHARS) / MEAN_WORD_CHARS["en"]


# What ends a sentence, and what can close after it. Thai and Lao end sentences with a space, Tibetan with a stroke.
_ENDS = {
    "": ".!?",
    **dict.fromkeys(("ja", "zh", "yue", "wuu"), "。\uff01\uff1f\uff61"),
    **dict.fromkeys(("hi", "mr", "ne", "bn", "as", "pa", "gu", "or", "sa", "mai", "bh"), "।॥"),
    **dict.fromkeys(("ar", "fa", "ur", "ps", "ckb", "sd", "ug", "arz", "pnb", "azb", "mzn"), "؟۔؛"),
    "el": ";\u037e",
    "hy": "։:",
    "my": "။၊",
    "km": "។៕",
    "bo": "།",
    "am": "።፧",
}
_CLOSING = "\")'”’»›“‘…:」』）】\uff09\uff1a;"
SENTENCES_END_IN_SPACES = frozenset({"th", "lo"})


def sentence_ends(language: str) -> str:
    """Return the characters that end a sentence."""
    return _ENDS[""] + (_ENDS.get(language, "") if language else "")


def line_ends(language: str) -> tuple[str, ...]:
    """Return what a line of running text can end with: the end of a sentence, or what closes or announces one."""
    return tuple(dict.fromkeys(sentence_ends(language) + _CLOSING))
