"""Drops answers in another language than the prompt, where the prompt does not ask for another one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from herdlm.align.quality.example import Example, prose
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.base.recipe import Section
from herdlm.curate.steps.language import identify

LETTERS = re.compile(r"[^\W\d_]")
ASKS = re.compile(
    r"translat|traduc|traduz|traduis|[üu]bersetz|перевед|翻译|翻譯|翻訳|訳し|번역|ترجم|"
    r"in (?:another|a foreign) language|language|"
    r"\b(?:how (?:do|would|to) (?:you )?say|word for|phrase for|meaning of|mean in)\b",
    re.I,
)
NAMES = re.compile(
    r"\b(?:english|german|french|spanish|italian|portuguese|dutch|russian|chinese|mandarin|cantonese|japanese|korean|arabic|"
    r"hindi|thai|turkish|polish|swedish|danish|norwegian|finnish|greek|hebrew|latin|vietnamese|indonesian|malay|czech|"
    r"ukrainian|hungarian|romanian|bengali|tamil|telugu|urdu|persian|farsi|tagalog|filipino|swahili|esperanto|irish|gaelic|"
    r"welsh|deutsch|fran[çc]ais|anglais|englisch|ingl[eé]s|espa[ñn]ol|italiano|português|по-английски|английск\w*)\b"
    r"|英[语文語]|中文|日本語|英語",
    re.I,
)
# Pairs of codes that are one language to a reader, or that short texts are often taken for.
ALIKE = (
    {"hr", "sr", "bs", "sh"},
    {"da", "no", "nn"},
    {"id", "ms"},
    {"zh", "wuu", "yue", "ja"},
    {"pt", "gl"},
    {"cs", "sk"},
)


class LanguageConfig(Section):
    """The language of answers."""

    min_letters: int = Field(60, ge=1, description="texts with fewer letters are not judged")
    min_score: float = Field(0.7, ge=0, le=1, description="how certain both languages must be")
    only: tuple[str, ...] = Field((), description="languages to keep, by code; none: all")


class Language(Step):
    """Answers in another language than what they answer; ``only`` keeps some languages."""

    name = "language"
    config: LanguageConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`; sets ``language``."""
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> Drop | None:
        said = "\n".join(turn.prose for turn in example.turns)
        example.language = self._certain(said) or self._certain(prose(example.asked))
        if self.config.only and example.language and example.language not in self.config.only:
            return Drop("another language than wanted", example.language)
        for turn in example.turns:
            asked, answered = self._certain(prose(turn.asked)), self._certain(turn.prose)
            if not asked or not answered or asked == answered or any({asked, answered} <= same for same in ALIKE):
                continue
            if not (ASKS.search(example.asked) or NAMES.search(turn.asked)):
                return Drop("answer in another language", f"{asked} asked, {answered} answered")
        return None

    def _certain(self, text: str) -> str:
        """The language of a text, or "" if it is short or not certain."""
        wide = sum(ord(letter) > 0x2E7F for letter in text)  # a Chinese character says as much as several letters
        if len(LETTERS.findall(text)) + 5 * wide < self.config.min_letters:
            return ""
        language, score = identify(text)
        return language if score >= self.config.min_score else ""
