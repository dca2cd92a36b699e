"""Parameters of instructions that count something, measured on a finished text."""

from __future__ import annotations

import re
from typing import Any

from herdlm.align.synth.constraints import kinds
from herdlm.align.synth.constraints.draft import Draft, content_words
from herdlm.align.synth.draw import Draw
from herdlm.verifiers.english import count_words, sentences, tokens

Kwargs = dict[str, Any]


def word_count(draw: Draw, draft: Draft) -> Kwargs:
    """A bound on the words below or above what there are."""
    count = count_words(draft.text)
    if draw.chance(0.6):
        least = int(count * (0.7 + 0.3 * draw.random.random()))
        return {"relation": "at least", "num_words": max(5, least - least % (10 if least > 40 else 5))}
    most = int(count * (1.05 + 0.5 * draw.random.random())) + 1
    return {"relation": "less than", "num_words": most + -most % (10 if most > 40 else 5)}


def sentence_count(draw: Draw, draft: Draft) -> Kwargs:
    """A bound on the sentences."""
    count = len(sentences(draft.text))
    if count >= 2 and draw.chance(0.6):
        return {"relation": "at least", "num_sentences": max(2, count - draw.number(0, 2))}
    return {"relation": "less than", "num_sentences": count + draw.number(1, 3)}


def existence(draw: Draw, draft: Draft) -> Kwargs | None:
    """Words that the text has."""
    words = content_words(draft.text.lower() if draft.text.isupper() else draft.text)
    chosen = draw.some(words, draw.number(1, 3))
    return {"keywords": chosen} if chosen else None


def frequency(draw: Draw, draft: Draft) -> Kwargs | None:
    """A word that the text has more than once, or not too often."""
    text = draft.text.lower()
    words = content_words(text, least=4)
    whole = {word: len(re.findall(rf"\b{word}\b", text)) for word in words}  # the verifier counts parts of words, too
    often = [word for word, count in whole.items() if count >= 2]
    if often and draw.chance(0.7):
        word = draw.one(often)
        count = whole[word]
        return {"keyword": word, "relation": "at least", "frequency": draw.number(2, count)}
    if not words:
        return None
    word = draw.one(words)
    return {"keyword": word, "relation": "less than", "frequency": len(re.findall(word, text)) + draw.number(1, 3)}


def forbidden(draw: Draw, draft: Draft) -> Kwargs | None:
    """Words of the topic that the text does not have."""
    known = " ".join((*draft.topic.facts, *draft.unused)).lower()
    words = [word for word in content_words(known) if not re.search(rf"\b{word}\b", draft.text, re.IGNORECASE)]
    chosen = draw.some([*words, "very", "really", "thing", "interesting", "important"][:20], draw.number(1, 4))
    chosen = [word for word in chosen if not re.search(rf"\b{word}\b", draft.text, re.IGNORECASE)]
    return {"forbidden_words": chosen} if chosen else None


def letter(draw: Draw, draft: Draft) -> Kwargs:
    """How often a letter occurs."""
    text = draft.text.lower()
    rare, common = draw.one("jkqvwxzbgpy"), draw.one("aeioutnsrlhdcm")
    count = text.count(common)
    if count >= 2 and draw.chance(0.65):
        return {
            "letter": common,
            "let_relation": "at least",
            "let_frequency": max(2, count - draw.number(0, count // 3)),
        }
    return {"letter": rare, "let_relation": "less than", "let_frequency": text.count(rare) + draw.number(2, 4)}


def capital_word_count(draw: Draw, draft: Draft) -> Kwargs:
    """A bound on the words in capitals."""
    count = sum(token.isupper() for token in tokens(draft.text))
    if count >= 2 and draw.chance(0.6):
        return {"capital_relation": "at least", "capital_frequency": max(2, count - draw.number(0, 1))}
    return {"capital_relation": "less than", "capital_frequency": count + draw.number(2, 4)}


MEASURED = {
    kinds.WORDS: word_count,
    kinds.SENTENCES: sentence_count,
    "keywords:existence": existence,
    "keywords:frequency": frequency,
    "keywords:forbidden_words": forbidden,
    "keywords:letter_frequency": letter,
    kinds.CAPITAL_WORDS: capital_word_count,
}
"""How the parameters of each kind are measured."""
