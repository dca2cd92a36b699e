"""Masks personal data and secrets: finds them by pattern and checksum, inserts placeholders, and counts them by kind.

Precision comes first. A card number needs a network's prefix, its length and its check digit; an account number its
country's length and check digits; a phone number the international form, or a word before it that announces one. What
documentation makes up stays: addresses of reserved domains (RFC 2606), networks that are reserved for documentation
(RFC 5737, RFC 3849) or not routed, test cards of the networks, IBANs of the registry's examples, version numbers of
four parts, and the keys that vendors print as examples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

from pydantic import Field

from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep
from herdlm.curate.steps.pii.finders import mask_cards, mask_emails, mask_ibans, mask_ips, mask_phones
from herdlm.curate.steps.pii.secrets import mask_keys
from herdlm.curate.steps.pii.spans import KINDS
from herdlm.curate.words import split_words

# Maps bytes to classes: capitals, digits, blanks and dashes, others. Below is what card numbers look like then.
_SHAPE = bytes(
    ord("0" if chr(c) in "0123456789" else "A" if "A" <= chr(c) <= "Z" else " " if chr(c) in " -" else "x")
    for c in range(256)
)
_CARD_SHAPES = (b"0" * 13, b"0000 0000 0000 0", b"0000 000000 0")
_PHONE_FILLERS = bytes([*b" ()./-", *range(0x80, 0x100)])


class PiiRule(Section):
    """What to do about one kind of personal data."""

    action: Literal["mask", "keep"] = Field("mask", description="keep: count only")
    max_count: int | None = Field(None, ge=0, description="pages with more are dropped")
    max_per_1000_words: float | None = Field(None, ge=0, description="pages with more are dropped")


class PiiConfig(Section):
    """Rules for personal data and secrets, by kind."""

    email: PiiRule = PiiRule(max_per_1000_words=50)
    phone: PiiRule = PiiRule(max_per_1000_words=50)
    ip: PiiRule = PiiRule(max_per_1000_words=100)
    card: PiiRule = PiiRule(max_count=5)
    iban: PiiRule = PiiRule(max_count=20)
    key: PiiRule = PiiRule()
    min_count: int = Field(5, ge=1, description="pages with fewer of a kind are not dropped for their density")


class Pii(PageStep):
    """Masks personal data and secrets in ``text``, and sets ``pii`` to their number.

    In source code only keys and e-mail addresses are masked, and no file is dropped for them.
    """

    name = "pii"
    settings: PiiConfig

    def run(self, batch: Batch) -> Outcome:
        results = [
            (*mask_pii(text, self.settings, IN_CODE)[:2], None) if kind == "code" else mask_pii(text, self.settings)
            for text, kind in zip(batch["text"], batch["kind"], strict=True)
        ]
        texts, counts, reasons = zip(*results, strict=True)
        return Outcome(reasons, {"text": list(texts), "pii": [sum(by_kind.values()) for by_kind in counts]})


def mask_pii(text: str, config: PiiConfig, kinds: Collection[str] = KINDS) -> tuple[str, dict[str, int], str | None]:
    """Return the text with placeholders, the counts by kind (without zeros), and the reason to drop it or None.

    Reasons are ``too_many_emails`` and the like. Kinds with the action ``keep`` are counted as well. Placeholders
    contain nothing that a second run would find.
    """
    counts: dict[str, int] = {}
    words = 0
    possible = _possible(text)
    for kind, find in _FINDERS.items():
        if kind not in possible or kind not in kinds:
            continue
        rule: PiiRule = getattr(config, kind)
        masked, count = find(text)
        if not count:
            continue
        counts[kind] = count
        if rule.action == "mask":
            text = masked
        if rule.max_count is not None and count > rule.max_count:
            return text, counts, f"too_many_{kind}s"
        if rule.max_per_1000_words is not None and count >= config.min_count:
            words = words or len(split_words(text))
            if count * 1000 > rule.max_per_1000_words * words:
                return text, counts, f"too_many_{kind}s"
    return text, counts, None


def _possible(text: str) -> set[str]:
    """Return the kinds that a text can contain, by the shape of its bytes. Masking never adds to them."""
    raw = text.encode("utf-8", "replace")
    shape = raw.translate(_SHAPE)
    found = {"key", "email", "ip"}  # these check for rare characters themselves
    if b"AA00" in shape:
        found.add("iban")
    if any(card in shape for card in _CARD_SHAPES):
        found.add("card")
    if b"000000" in raw.translate(_SHAPE, _PHONE_FILLERS):
        found.add("phone")
    return found


IN_CODE = frozenset({"key", "email"})
_FINDERS: dict[str, Callable[[str], tuple[str, int]]] = {
    "key": mask_keys,
    "email": mask_emails,
    "iban": mask_ibans,
    "card": mask_cards,
    "ip": mask_ips,
    "phone": mask_phones,
}
