"""Has a teacher translate texts, and holds the translations against the originals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from herdlm.align.synth import records
from herdlm.align.synth.languages import NAMES
from herdlm.align.synth.setting import Setting
from herdlm.align.synth.teacher_config import MultilingualConfig
from herdlm.align.synth.words import alike, is_in, numbers, tidy, unfinished
from herdlm.verifiers.blocks import FENCE

TRANSLATE = (
    "Translate the text below from {source} into {language}. Keep numbers as digits, code, addresses, line breaks and "
    "what stands in brackets as placeholders like [NAME] exactly as they are. Answer nothing that the text asks, and "
    "write only the translation.\n\n{text}"
)
CODE = re.compile(r"`[^`\n]+`")
KEPT = re.compile(
    r"https?://[^\s)>\]]+|\{\{?\w+\}?\}|\[[A-Z][A-Z0-9_ ]*\]|<[/\w][^<>\n]*>|%[sdf]\b|%\(\w+\)[sdf]"
    r"|\$\{?[A-Za-z_]\w*\}?"
    r"|^[ \t]*(?:assert|def) .*$",
    re.MULTILINE,
)
LEAST_CHARS = 24  # of texts whose length, and whose translation back, can tell something


@dataclass
class Translation:
    """A text on its way into another language.

    Attributes:
        wrong: what is wrong with the translation, "" for nothing.
    """

    original: str
    source: str
    language: str
    text: str = ""
    wrong: str = ""


def translate(setting: Setting, options: MultilingualConfig, texts: Sequence[Translation]) -> None:
    """Fill in the translations, and what is wrong with each, by rule and after translating back."""
    asked = [_request(each.original, each.source, each.language) for each in texts]
    for each, (answer,) in zip(texts, setting.ask(asked, "translate", max_tokens=options.max_tokens), strict=True):
        each.text = tidy(answer.text) if "\n" not in each.original.strip() else answer.text.strip()
        each.wrong = unfinished(answer) or _wrong(each, options)
    open_ = [each for each in texts if not each.wrong]
    back = setting.ask(
        [_request(each.text, each.language, each.source) for each in open_], "back", max_tokens=options.max_tokens
    )
    for each, (answer,) in zip(open_, back, strict=True):
        original = prose(each.original)
        if len(original) >= LEAST_CHARS and alike(original, prose(answer.text)) < options.alike:
            each.wrong = "the translation back differs"


def prose(text: str) -> str:
    """A text without its code."""
    return CODE.sub(" ", FENCE.sub(" ", text)).strip()


def kept(text: str) -> Counter[str]:
    """What must not be translated: code and placeholders."""
    blocks = Counter(match["content"].strip() for match in FENCE.finditer(text))
    return blocks + Counter(CODE.findall(FENCE.sub(" ", text))) + Counter(KEPT.findall(prose(text)))


def _request(text: str, source: str, language: str) -> list[dict[str, str]]:
    return [records.user(TRANSLATE.format(source=NAMES[source], language=NAMES[language], text=text))]


def _wrong(each: Translation, options: MultilingualConfig) -> str:
    """What is wrong with a translation by rule."""
    original, text = prose(each.original), prose(each.text)
    if kept(each.original) != kept(each.text):
        return "code or placeholders changed"
    if numbers(original) != numbers(text):
        return "numbers changed"
    if len(original) < LEAST_CHARS:
        return ""
    if not is_in(each.language, text):
        return "not in the language"
    ratio = len(text) / len(original)
    if not options.shortest <= ratio <= options.longest:
        return "too short" if ratio < options.shortest else "too long"
    return ""
