"""Finds e-mail and IP addresses, card, account and phone numbers, by pattern and checksum."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from herdlm.curate.steps.pii.spans import CONTEXT_CHARS, PLACEHOLDERS, put, replace

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
    r"(?:\b(?:ips?|ipv4|address(?:es)?|hosts?|servers?|clients?|from|inet|login|ping|gateway|dns|nameserver|proxy|peer|"
    r"remote|adresse|addr|dirección|direccion|indirizzo|endereço|adres|adresa|адрес|adresi)\b|地址|アドレス|주소)"
    r"\W{0,3}(?:(?:is|was|ist|est|es|è|é|jest|[=:])\W{0,3})?$",
    re.IGNORECASE,
)
_PORT = re.compile(r":[0-9]{2,5}\b")
_VERSION_CONTEXT = re.compile(
    r"(?:\bv\.?|\b(?:versi(?:on|ón|ó|one|oni)(?:en|e|s)?|versão|versões|wersj\w|verze|versie|версия|версии|sürüm\w*|ver|"
    r"release[sd]?|build|firmware|driver|kernel|update[sd]?|upgrade[sd]?|chapters?|sections?|clauses?|articles?|"
    r"kapitel|abschnitt|oid|extension|rule)\b\.?|版本|バージョン|버전|[<>=~^§#])(?:\W{0,3}\w{1,8}){0,2}\W{0,3}$",
    re.IGNORECASE,
)
MAX_VERSION_PART = 31  # parts up to this are more often those of versions, sections or object identifiers
MIN_LARGE_PARTS = 3  # that a dotted quad needs without a word that tells: nine in ten addresses have them
_CARD = re.compile(
    r"[2-6](?<![\w.,/+=-].)(?<![0-9][ ].)"
    r"(?:[0-9]{12,18}|[0-9]{3}(?:[ -][0-9]{4}){2}[ -][0-9]{1,7}|[0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5})"
    r"(?![\w-]|[ .,][0-9])"
)
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
_PHONE_CONTEXT = re.compile(
    r"(?:\b(?:tel|telephone|t[eé]l[eé]phone|tel[eé]fono|telefone|telefon(?:nummer|as|u)?|phone|mobile|mobil|handy|"
    r"fax|t[eé]l|fon|whatsapp|puh|telefoon|тел|телефон|факс)\b|電話|电话|전화|☎|📞)[^\w\n]{0,4}(?:\w{1,8}[^\w\n]{1,3})?$",
    re.IGNORECASE,
)


# Without a country code: an area code and an exchange that can be, divided as Americans do it
_AMERICAN = re.compile(
    r"(?:1[ .-])?(?:\([2-9](?!11)\d\d\)[ -]?|[2-9](?!11)\d\d([-.]))[2-9](?!11)\d\d(?(1)\1|[ .-])\d{4}"
)
_DATE = re.compile(
    r"(?:1[89]|20)\d\d[-./ ](?:0?[1-9]|1[0-2])[-./ ]\d|\d{1,2}[-./ ]\d{1,2}[-./ ](?:1[89]|20)\d\d\b"
    r"|(?:1[89]|20)\d\d ?[-/] ?(?:1[89]|20)\d\d$"
)


def mask_emails(text: str) -> tuple[str, int]:
    if "@" not in text:
        return text, 0
    spans = []
    for domain in _DOMAIN.finditer(text):
        person = _PERSON.search(text[max(domain.start() - 65, 0) : domain.start()])
        if person and _is_personal(person[0], domain[0]):
            spans.append((domain.start() - len(person[0]), domain.end()))
    return put(PLACEHOLDERS["email"], text, spans), len(spans)


def _is_personal(person: str, domain: str) -> bool:
    """Return whether an address can be a person's; ``domain`` begins with "@"."""
    if domain.rsplit(".", 1)[1].lower() in _NO_DOMAIN or person.lower() in _NO_PERSON:
        return False
    return not domain[1:].lower().startswith(_LISTS) and not _RESERVED_DOMAIN.search(domain)


def mask_ips(text: str) -> tuple[str, int]:
    count = 0
    if _IPV4_INSIDE.search(text):
        text, count = replace(_IPV4, "ip", text, _is_public_ipv4)
    if _IPV6_INSIDE.search(text):
        text, more = replace(_IPV6, "ip", text, _is_public_ipv6)
        count += more
    return text, count


def _is_public_ipv4(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or _is_made_up(match[0].split(".")):
        return False
    before = match.string[max(match.start() - CONTEXT_CHARS, 0) : match.start()]
    if _IP_CONTEXT.search(before) or _PORT.match(match.string, match.end()):
        return True
    large = sum(part > MAX_VERSION_PART for part in address.packed)
    return large >= MIN_LARGE_PARTS and not _VERSION_CONTEXT.search(before)


def _is_made_up(parts: Sequence[str]) -> bool:
    """Return whether an address looks made up, like 111.22.33.44 or 123.123.123.123."""
    return all(len(part) > 1 for part in parts) and (len(set(parts)) == 1 or all(len(set(part)) == 1 for part in parts))


def _is_public_ipv6(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    return address.is_global and address.packed[0] >> 5 == 1  # 2000::/3, all assigned addresses


def mask_cards(text: str) -> tuple[str, int]:
    return replace(_CARD, "card", text, _is_card)


def _is_card(match: re.Match[str]) -> bool:
    number = match[0].replace(" ", "").replace("-", "")
    return bool(_CARD_PREFIX.fullmatch(number)) and number not in _TEST_CARDS and luhn(number)


def luhn(number: str) -> bool:
    """Return whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0


def mask_ibans(text: str) -> tuple[str, int]:
    return replace(_IBAN, "iban", text, _is_iban)


def _is_iban(match: re.Match[str]) -> bool:
    number = match[0].replace(" ", "")
    return _IBAN_LENGTHS.get(number[:2]) == len(number) and number not in _EXAMPLE_IBANS and mod_97(number)


def mod_97(iban: str) -> bool:
    """Return whether an account number's check digits are right (ISO 13616, by ISO/IEC 7064 MOD 97-10)."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


def mask_phones(text: str) -> tuple[str, int]:
    return replace(_PHONE, "phone", text, _is_phone)


def _is_phone(match: re.Match[str]) -> bool:
    number = match[0]
    digits = "".join(filter(str.isdigit, number))
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 3 or "55501" in digits:  # 555-01xx is reserved for fiction
        return False
    if _DATE.match(number):
        return False
    if _AMERICAN.fullmatch(number):
        return True
    if "+" in number[:2]:
        return len(digits) >= 8 and digits[0] != "0"
    before = match.string[max(match.start() - CONTEXT_CHARS, 0) : match.start()]
    return bool(_PHONE_CONTEXT.search(before))
