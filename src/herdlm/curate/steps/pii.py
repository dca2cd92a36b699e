"""Masks personal data and secrets: finds them by pattern and checksum, inserts placeholders, and counts them by kind.

Precision comes first. A card number needs a network's prefix, its length and its check digit; an account number its
country's length and check digits; a phone number the international form, or a word before it that announces one. What
documentation makes up stays: addresses of reserved domains (RFC 2606), networks that are reserved for documentation
(RFC 5737, RFC 3849) or not routed, test cards of the networks, IBANs of the registry's examples, version numbers of
four parts, and the keys that vendors print as examples.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep
from herdlm.curate.words import split_words

KINDS = ("key", "email", "iban", "card", "ip", "phone")
PLACEHOLDERS = {kind: f"[{kind.upper()}]" for kind in KINDS}

# Patterns begin with their first character, which the scanner can skip to, and look behind afterwards.
_DOMAIN = re.compile(r"@(?:[A-Za-z0-9](?:[\w-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![\w-]|\.\w)")
_PERSON = re.compile(r"(?<![\w.+/=-])[\w.+-]{1,64}$")
_RESERVED_DOMAIN = re.compile(
    r"@(?:.*\.)?(?:example(?:\.\w+)?|test|invalid|localhost|local|localdomain|internal|(?:my|your)\w*\.\w+|domain\.\w+)$",
    re.IGNORECASE,
)
# Endings of files, systemd units and the like, which are not domains after an "@"
_NO_DOMAIN = frozenset(
    {
        "conf",
        "css",
        "device",
        "gif",
        "gz",
        "html",
        "jpeg",
        "jpg",
        "js",
        "json",
        "md",
        "mount",
        "path",
        "php",
        "png",
        "py",
        "rb",
        "service",
        "sh",
        "slice",
        "socket",
        "svg",
        "target",
        "timer",
        "ts",
        "txt",
        "webp",
        "xml",
        "yaml",
        "yml",
    }
)
# Placeholders, and role accounts (RFC 2142)
_NO_PERSON = frozenset(
    {
        "git",
        "user",
        "username",
        "you",
        "your",
        "yourname",
        "name",
        "someone",
        "foo",
        "root",
        "abuse",
        "admin",
        "ftp",
        "hostmaster",
        "mailer-daemon",
        "news",
        "no-reply",
        "nobody",
        "noc",
        "noreply",
        "postmaster",
        "security",
        "support",
        "usenet",
        "uucp",
        "webmaster",
        "www",
    }
)
_LISTS = ("lists.", "list.", "groups.")  # mailing lists, by the start of their domain

_IPV4_INSIDE = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_IPV4 = re.compile(r"[0-9](?<![\w.-].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|[./][0-9])")
_IPV6_INSIDE = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]")
# All assigned addresses begin with 2 or 3 and three more digits
_IPV6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{1,4}(?![\w:])")
_IP_CONTEXT = re.compile(
    r"\b(?:ip|ipv4|address|host|server|client|from|inet|login|adresse|addr)\b\W{0,3}$", re.IGNORECASE
)
_VERSION_CONTEXT = re.compile(
    r"(?:\bv\.?|\bver(?:sion(?:en|e|s)?|sión|são|sione|sie|ze|zione)?\.?|\brelease|\bchapter|\bsection|[<>=~^§#])\s{0,2}$",
    re.IGNORECASE,
)
MAX_VERSION_PART = 31  # dotted quads with parts up to this are taken for versions or section numbers

_CARD = re.compile(
    r"[2-6](?<![\w.,/+=-].)(?<![0-9][ ].)"
    r"(?:[0-9]{12,18}|[0-9]{3}(?:[ -][0-9]{4}){2}[ -][0-9]{1,7}|[0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5})"
    r"(?![\w-]|[ .,][0-9])"
)
# Maps bytes to classes: capitals, digits, blanks and dashes, others. Below is what card numbers look like then.
_SHAPE = bytes(
    ord("0" if chr(c) in "0123456789" else "A" if "A" <= chr(c) <= "Z" else " " if chr(c) in " -" else "x")
    for c in range(256)
)
_CARD_SHAPES = (b"0" * 13, b"0000 0000 0000 0", b"0000 000000 0")
_CARD_PREFIX = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]\d|095|6\d\d|[89]\d\d)\d{10}"
)
_TEST_CARDS = frozenset(
    {
        "4111111111111111",
        "4012888888881881",
        "4242424242424242",
        "4000056655665556",
        "4222222222222",
        "5555555555554444",
        "5105105105105100",
        "2223003122003222",
        "5200828282828210",
        "378282246310005",
        "371449635398431",
        "378734493671000",
        "6011111111111117",
        "6011000990139424",
        "3530111333300000",
        "3566002020360505",
        "30569309025904",
        "38520000023237",
        "36227206271667",
        "5431111111111111",
        "4000000000000002",
    }
)

_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z][0-9]{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        "15": "NO",
        "16": "BE",
        "18": "DK FI FK FO GL NL SD",
        "19": "MK SI",
        "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH CR HR LI LV",
        "22": "BG BH DE GB GE IE ME RS VA",
        "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG",
        "25": "LY PT ST",
        "26": "IS TR",
        "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HN HU LB NI PL SV",
        "29": "BR EG PS QA UA",
        "30": "JO KW MU YE",
        "31": "MT SC",
        "32": "LC",
        "33": "RU",
    }.items()
    for country in countries.split()
}
_EXAMPLE_IBANS = frozenset(
    {
        "GB82WEST12345698765432",
        "GB29NWBK60161331926819",
        "DE89370400440532013000",
        "FR1420041010050500013M02606",
        "NL91ABNA0417164300",
        "CH9300762011623852957",
        "AT611904300234573201",
        "BE68539007547034",
        "ES9121000418450200051332",
        "IT60X0542811101000000123456",
        "PL61109010140000071219812874",
    }
)

_PHONE = re.compile(r"[+(0-9](?<![\w.,:/+=#-].)\+?[0-9]?(?:[ ()./\u2011-]{0,3}[0-9]){6,14}(?![\w]|[.,:/-][0-9])")
_PHONE_FILLERS = bytes([*b" ()./-", *range(0x80, 0x100)])
_PHONE_CONTEXT = re.compile(
    r"(?:\b(?:tel|telephone|t[eé]l[eé]phone|tel[eé]fono|telefone|telefon(?:nummer|as|u)?|phone|mobile|mobil|handy|"
    r"fax|t[eé]l|fon|whatsapp|puh|telefoon|тел|телефон|факс)\b|電話|电话|전화|☎|📞)[^\w\n]{0,4}(?:\w{1,8}[^\w\n]{1,3})?$",
    re.IGNORECASE,
)
_CONTEXT_CHARS = 32

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY(?: BLOCK)?)-----[\s\S]{16,20000}?-----END (?P=kind)-----"
)
# Each pattern, after a literal that must be in the text for it to be tried
_KEYS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("PRIVATE KEY", _PRIVATE_KEY),
    *(
        (literal, re.compile(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])"))
        for literal, pattern in (
            ("AKIA", r"AKIA[A-Z2-7]{16}"),
            ("ASIA", r"ASIA[A-Z2-7]{16}"),
            ("ghp_", r"ghp_[A-Za-z0-9]{36}"),
            ("gho_", r"gho_[A-Za-z0-9]{36}"),
            ("ghs_", r"ghs_[A-Za-z0-9]{36}"),
            ("github_pat_", r"github_pat_[A-Za-z0-9_]{60,90}"),
            ("glpat-", r"glpat-[A-Za-z0-9_-]{20,}"),
            ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{20,}"),
            ("AIza", r"AIza[A-Za-z0-9_-]{35}"),
            ("ya29.", r"ya29\.[A-Za-z0-9_-]{30,}"),
            ("_live_", r"[sr]k_live_[A-Za-z0-9]{20,}"),
            ("sk-", r"sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"),
            ("hf_", r"hf_[A-Za-z]{34}"),
            ("SG.", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
            ("npm_", r"npm_[A-Za-z0-9]{36}"),
            ("pypi-", r"pypi-AgE[A-Za-z0-9_-]{50,}"),
            ("eyJ", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"),
            ("AccountKey=", r"AccountKey=[A-Za-z0-9+/]{86}=="),
        )
    ),
)
_VALUE = re.compile(r"[:=](?:>|=)?[ ]{0,2}[\"']?(?P<secret>[A-Za-z0-9+/_.=-]{20,200})")
_SECRET_CONTEXT = re.compile(
    r"(?:secret|token|passw(?:or)?d|api[_-]?key|access[_-]?key|private[_-]?key)\w{0,12}[\"']?\s{0,2}:?$", re.IGNORECASE
)
MIN_KEY_CHARS = 20
_KEY_SHAPE = bytes(ord("k" if re.fullmatch("[A-Za-z0-9+/_.=-]", chr(c)) else " ") for c in range(256))
_KEY_RUN = b"k" * MIN_KEY_CHARS
MIN_SECRET_DIGITS = 3
MIN_SECRET_BITS = 3.5  # Shannon entropy per character; at most 4 for random hexadecimal digits, 6 for random base64


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
    """Masks personal data and secrets in ``text``, and sets ``pii`` to their number."""

    name, prose_only = "pii", True
    settings: PiiConfig

    def run(self, batch: Batch) -> Outcome:
        results = [mask_pii(text, self.settings) for text in batch["text"]]
        texts, counts, reasons = zip(*results, strict=True)
        return Outcome(reasons, {"text": list(texts), "pii": [sum(by_kind.values()) for by_kind in counts]})


def mask_pii(text: str, config: PiiConfig) -> tuple[str, dict[str, int], str | None]:
    """Return the text with placeholders, the counts by kind (without zeros), and the reason to drop it or None.

    Reasons are ``too_many_emails`` and the like. Kinds with the action ``keep`` are counted as well. Placeholders
    contain nothing that a second run would find.
    """
    counts: dict[str, int] = {}
    words = 0
    possible = _possible(text)
    for kind, find in _FINDERS.items():
        if kind not in possible:
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


def _replace(
    pattern: re.Pattern[str], kind: str, text: str, is_one: Callable[[re.Match[str]], bool], group: str | int = 0
) -> tuple[str, int]:
    """Replace the matches of a pattern (or of a group) that pass the check. Return the text and their number."""
    spans = [match.span(group) for match in pattern.finditer(text) if is_one(match)]
    return _put(PLACEHOLDERS[kind], text, spans), len(spans)


def _put(placeholder: str, text: str, spans: Sequence[tuple[int, int]]) -> str:
    if not spans:
        return text
    pieces: list[str] = []
    position = 0
    for start, end in spans:
        pieces += [text[position:start], placeholder]
        position = end
    return "".join([*pieces, text[position:]])


def _keys(text: str) -> tuple[str, int]:
    total = 0
    runs = _long_runs(text)
    held = "\n".join(runs)
    for literal, pattern in _KEYS:
        if literal in (text if literal == "PRIVATE KEY" else held):
            text, count = _replace(pattern, "key", text, _is_key)
            total += count
    if any(sum(map(str.isdigit, run)) >= MIN_SECRET_DIGITS for run in runs):
        text, count = _replace(_VALUE, "key", text, _is_secret, "secret")
        total += count
    return text, total


def _long_runs(text: str) -> list[str]:
    """Return the runs of at least ``MIN_KEY_CHARS`` characters of keys. Every key except a PEM block is in one."""
    raw = text.encode("utf-8", "replace")
    shape = raw.translate(_KEY_SHAPE) + b" "
    runs, end = [], 0
    while (start := shape.find(_KEY_RUN, end)) >= 0:
        end = shape.find(b" ", start)
        runs.append(raw[start:end].decode())
    return runs


def _is_key(match: re.Match[str]) -> bool:
    return "EXAMPLE" not in match[0] and "..." not in match[0]


def _is_secret(match: re.Match[str]) -> bool:
    before = match.string[max(match.start() - _CONTEXT_CHARS, 0) : match.start()]
    return bool(_SECRET_CONTEXT.search(before)) and _is_random(match["secret"])


def _is_random(secret: str) -> bool:
    """Return whether a string looks random: letters and digits mixed, high entropy, not an example, path or code."""
    if "EXAMPLE" in secret.upper() or secret.count(".") > 1 or "://" in secret or secret.count("/") > len(secret) // 8:
        return False
    if sum(map(str.isdigit, secret)) < MIN_SECRET_DIGITS or sum(map(str.isalpha, secret)) < 3:
        return False
    return entropy(secret) >= MIN_SECRET_BITS


def entropy(text: str) -> float:
    """Return the Shannon entropy of a text's characters, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _emails(text: str) -> tuple[str, int]:
    if "@" not in text:
        return text, 0
    spans = []
    for domain in _DOMAIN.finditer(text):
        person = _PERSON.search(text[max(domain.start() - 65, 0) : domain.start()])
        if person and _is_personal(person[0], domain[0]):
            spans.append((domain.start() - len(person[0]), domain.end()))
    return _put(PLACEHOLDERS["email"], text, spans), len(spans)


def _is_personal(person: str, domain: str) -> bool:
    """Return whether an address can be a person's; ``domain`` begins with "@"."""
    if domain.rsplit(".", 1)[1].lower() in _NO_DOMAIN or person.lower() in _NO_PERSON:
        return False
    return not domain[1:].lower().startswith(_LISTS) and not _RESERVED_DOMAIN.search(domain)


def _ips(text: str) -> tuple[str, int]:
    count = 0
    if _IPV4_INSIDE.search(text):
        text, count = _replace(_IPV4, "ip", text, _is_public_ipv4)
    if _IPV6_INSIDE.search(text):
        text, more = _replace(_IPV6, "ip", text, _is_public_ipv6)
        count += more
    return text, count


def _is_public_ipv4(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or _is_made_up(match[0].split(".")):
        return False
    before = match.string[max(match.start() - _CONTEXT_CHARS, 0) : match.start()]
    if _IP_CONTEXT.search(before):
        return True
    return max(address.packed) > MAX_VERSION_PART and not _VERSION_CONTEXT.search(before)


def _is_made_up(parts: Sequence[str]) -> bool:
    """Return whether an address looks made up, like 111.22.33.44 or 123.123.123.123."""
    return all(len(part) > 1 for part in parts) and (len(set(parts)) == 1 or all(len(set(part)) == 1 for part in parts))


def _is_public_ipv6(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    return address.is_global and address.packed[0] >> 5 == 1  # 2000::/3, all assigned addresses


def _cards(text: str) -> tuple[str, int]:
    return _replace(_CARD, "card", text, _is_card)


def _is_card(match: re.Match[str]) -> bool:
    number = match[0].replace(" ", "").replace("-", "")
    return bool(_CARD_PREFIX.fullmatch(number)) and number not in _TEST_CARDS and luhn(number)


def luhn(number: str) -> bool:
    """Return whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0


def _ibans(text: str) -> tuple[str, int]:
    return _replace(_IBAN, "iban", text, _is_iban)


def _is_iban(match: re.Match[str]) -> bool:
    number = match[0].replace(" ", "")
    return _IBAN_LENGTHS.get(number[:2]) == len(number) and number not in _EXAMPLE_IBANS and mod_97(number)


def mod_97(iban: str) -> bool:
    """Return whether an account number's check digits are right (ISO 13616, by ISO/IEC 7064 MOD 97-10)."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


def _phones(text: str) -> tuple[str, int]:
    return _replace(_PHONE, "phone", text, _is_phone)


def _is_phone(match: re.Match[str]) -> bool:
    number = match[0]
    digits = "".join(filter(str.isdigit, number))
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 3 or "55501" in digits:  # 555-01xx is reserved for fiction
        return False
    if "+" in number[:2]:
        return len(digits) >= 8 and digits[0] != "0"
    before = match.string[max(match.start() - _CONTEXT_CHARS, 0) : match.start()]
    return bool(_PHONE_CONTEXT.search(before))


_FINDERS: dict[str, Callable[[str], tuple[str, int]]] = {
    "key": _keys,
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "ip": _ips,
    "phone": _phones,
}
