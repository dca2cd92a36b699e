"""Makes a labeled set of texts with personal data in twelve languages, by a seed.

    python benchmarks/pii_set.py --seed 1 --out set.jsonl

Every line has ``language``, ``text`` and ``spans``: [start, end, kind]. Two thirds of the sentences have personal data,
one third what looks like it (versions, dates, object identifiers, part numbers, prices, hashes). The formats are those
of the countries, written from their public numbering plans, and not from the patterns of herdlm. Names, numbers and
keys are drawn, and belong to nobody on purpose. One seed is for development, another for the figures that are reported.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

# {} is where the personal data stands
SENTENCES = {
    "en": [
        "Write to {} if anything is unclear.",
        "You can reach the office at {} on weekdays.",
        "We noted {} on the form.",
    ],
    "de": [
        "Schreiben Sie an {}, wenn etwas unklar ist.",
        "Das Büro ist unter {} zu erreichen.",
        "Wir haben {} notiert.",
    ],
    "fr": ["Écrivez à {} en cas de doute.", "Le bureau répond au {} en semaine.", "Nous avons noté {} sur la fiche."],
    "es": ["Escriba a {} si algo no está claro.", "La oficina atiende en {} entre semana.", "Anotamos {} en la ficha."],
    "it": [
        "Scrivete a {} se qualcosa non è chiaro.",
        "L'ufficio risponde al {} nei giorni feriali.",
        "Abbiamo annotato {}.",
    ],
    "pt": [
        "Escreva para {} em caso de dúvida.",
        "O escritório atende no {} durante a semana.",
        "Anotamos {} na ficha.",
    ],
    "nl": [
        "Schrijf naar {} als iets onduidelijk is.",
        "Het kantoor is bereikbaar op {}.",
        "We noteerden {} op het formulier.",
    ],
    "pl": [
        "Napisz na {}, jeśli coś jest niejasne.",
        "Biuro odpowiada pod {} w dni robocze.",
        "Zapisaliśmy {} w formularzu.",
    ],
    "tr": ["Bir şey açık değilse {} adresine yazın.", "Ofise hafta içi {} üzerinden ulaşılır.", "Forma {} yazdık."],
    "ru": ["Пишите на {}, если что-то неясно.", "Офис отвечает по {} в будни.", "Мы записали {} в анкету."],
    "ja": ["不明な点は {} までご連絡ください。", "事務所の窓口は {} です。", "用紙に {} と書きました。"],
    "ko": ["궁금한 점은 {} 로 보내 주세요.", "사무실은 평일에 {} 로 연락할 수 있습니다.", "양식에 {} 라고 적었습니다."],
}
PHONE_WORDS = {
    "en": "phone", "de": "Telefon", "fr": "téléphone", "es": "teléfono", "it": "telefono", "pt": "telefone",
    "nl": "telefoon", "pl": "telefon", "tr": "telefon", "ru": "телефон", "ja": "電話", "ko": "전화",
}  # fmt: skip
# 9 is any digit; the rest is as written
PHONES = {
    "en": ["(312) 469-9999", "312-469-9999", "+1 415 639 9999", "1-646-239-9999", "020 7946 9999"],
    "de": ["+49 30 9999999", "030 9999999", "0171/9999999"],
    "fr": ["+33 1 42 99 99 99", "01 42 99 99 99", "06.42.99.99.99"],
    "es": ["+34 91 999 99 99", "912 99 99 99"],
    "it": ["+39 06 9999 9999", "06 9999 9999", "347 999 9999"],
    "pt": ["+351 21 999 9999", "(11) 3999-9999", "21 999 9999"],
    "nl": ["+31 20 999 9999", "020-9999999"],
    "pl": ["+48 22 999 99 99", "22 999 99 99"],
    "tr": ["+90 212 999 99 99", "(0212) 999 99 99"],
    "ru": ["+7 495 999-99-99", "8 (495) 999-99-99"],
    "ja": ["+81 3-9999-9999", "03-9999-9999"],
    "ko": ["+82 2-9999-9999", "02-9999-9999", "010-9999-9999"],
}
COUNTRIES = {"DE": 18, "FR": 23, "ES": 20, "NL": 14, "PL": 24, "PT": 21}  # digits after the check digits
DOMAINS = (
    "posteo.de",
    "orange.fr",
    "gmail.com",
    "telefonica.es",
    "libero.it",
    "sapo.pt",
    "ziggo.nl",
    "wp.pl",
    "mail.ru",
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
LOOKALIKES: list[Callable[[Random], str]] = [
    lambda r: f"version {r.randint(1, 9)}.{r.randint(0, 99)}.{r.randint(0, 20)}.{r.randint(0, 9)}",
    lambda r: f"Outlook {r.randint(10, 16)}.0.{r.randint(1, 99)}.{r.randint(1, 99)}",
    lambda r: f"OID 2.5.29.{r.randint(1, 60)}",
    lambda r: f"{r.randint(1990, 2025)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}",
    lambda r: f"{r.randint(1, 28)}.{r.randint(1, 12)}.{r.randint(1990, 2025)}",
    lambda r: f"{r.randint(1900, 1950)}-{r.randint(1951, 2000)}",
    lambda r: f"{r.randint(1, 9)} {r.randint(100, 999)} {r.randint(100, 999)}",
    lambda r: f"{r.randint(100, 999)}-{r.randint(10, 99)}-{r.randint(1000, 9999)}-X",
    lambda r: f"ISBN 978-{r.randint(0, 9)}-{r.randint(100, 999)}-{r.randint(10000, 99999)}-{r.randint(0, 9)}",
    lambda r: f"192.168.{r.randint(0, 255)}.{r.randint(1, 254)}",
    lambda r: f"{r.randint(1, 9)}:{r.randint(10, 59)}:{r.randint(10, 59)}",
    lambda r: f"@user{r.randint(1, 99)}",
    lambda r: "".join(r.choices("0123456789abcdef", k=40)),
    lambda r: f"{r.randint(10, 99)}.{r.randint(100000, 999999)}, {r.randint(10, 99)}.{r.randint(100000, 999999)}",
]  # fmt: skip


def luhn_digit(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def draw(kind: str, language: str, r: Random) -> str:
    """Return a piece of personal data, as people write it."""
    if kind == "email":
        name = "".join(r.choices("abcdefghiklmnoprstuvw", k=r.randint(3, 8)))
        return f"{name}{r.choice(('.', '_', ''))}{r.choice(('miller', 'rossi', 'kaya', '84'))}@{r.choice(DOMAINS)}"
    if kind == "phone":
        return "".join(str(r.randint(0, 9)) if sign == "9" else sign for sign in r.choice(PHONES[language]))
    if kind == "ip":
        return f"{r.choice((5, 31, 62, 77, 82, 91, 109, 176, 185, 213))}." + ".".join(
            str(r.randint(1, 254)) for _ in "abc"
        )
    if kind == "card":
        body = r.choice("45") + r.choice("12345") + "".join(r.choices("0123456789", k=13))
        number = body + luhn_digit(body)
        return number if r.random() < 0.3 else " ".join(number[i : i + 4] for i in range(0, 16, 4))
    if kind == "iban":
        country, length = r.choice(sorted(COUNTRIES.items()))
        account = ("ABNA" if country == "NL" else "") + "".join(
            r.choices("0123456789", k=length - (4 if country == "NL" else 0))
        )
        digits = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
        number = f"{country}{98 - int(digits) % 97:02}{account}"
        return number if r.random() < 0.3 else " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    token = "".join(r.choices(LETTERS, k=36))
    return r.choice(
        (f"ghp_{token}", f"AKIA{''.join(r.choices('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', k=16))}", f"sk-{token}xY")
    )


def make(seed: int, per_kind: int = 8) -> list[dict[str, Any]]:
    """Return a set: by language and kind, ``per_kind`` texts with personal data, and half as many without."""
    r = Random(seed)
    rows: list[dict[str, Any]] = []
    for language, sentences in SENTENCES.items():
        for kind in ("email", "phone", "ip", "card", "iban", "key"):
            for _ in range(per_kind):
                value, sentence = draw(kind, language, r), r.choice(sentences)
                if kind == "phone" and r.random() < 0.7:
                    sentence = sentence.replace("{}", f"{PHONE_WORDS[language]} {{}}")
                if kind == "ip" and r.random() < 0.5:
                    sentence = sentence.replace("{}", "IP {}")
                start = sentence.index("{}")
                text = sentence.replace("{}", value)
                rows.append({"language": language, "text": text, "spans": [[start, start + len(value), kind]]})
            for _ in range(per_kind // 2):
                text = r.choice(sentences).replace("{}", r.choice(LOOKALIKES)(r))
                rows.append({"language": language, "text": text, "spans": []})
    r.shuffle(rows)
    return rows


def main() -> None:
    """Write the set of a seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = [json.dumps(row, ensure_ascii=False) for row in make(options.seed)]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
