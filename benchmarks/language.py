"""Accuracy and speed of language identification on translated manuals, whose addresses name their languages.

    HERDLM_DATA=FOLDER python benchmarks/language.py [--against py3langid]

FOLDER/web/handbooks.warc.gz holds translations of two manuals page by page. Untranslated pages and paragraphs fall back
to English, so a page is set aside when more than half of its word 3-grams stand in the English page of the same name
too (commands and their output do in every translation), or when it has fewer than 100 characters. The answers "no" and
"nn" both count for Bokmål.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fastwarc.warc import ArchiveIterator
from versions import ABSENT, version

from herdlm.curate.steps.extract import extract
from herdlm.curate.steps.language import LanguageConfig, identify, threshold
from herdlm.curate.steps.repair import repair

_LANGUAGE = re.compile(r"/html/([a-z]{2})-[A-Z]{2}/(.*)|-amd64/([a-z]{2})(?:_[A-Z]{2})?/(.*)")
SAME = {"nb": "no", "nn": "no"}
MAX_ENGLISH = 0.5
MIN_CHARS = 100


def pages(path: Path) -> list[tuple[str, str, str]]:
    """Language, name and text of each page."""
    found = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file, parse_http=True):
            address = _LANGUAGE.search(record.headers.get("WARC-Target-URI", ""))
            if record.http_headers is None or address is None:
                continue
            manual, name = ("handbook", address[2]) if address[1] else ("guide", address[4])
            text, reason = extract(record.reader.read(), "", True)
            if reason is None:
                found.append((address[1] or address[3], f"{manual}/{name}", repair(text)))
    return found


def trigrams(text: str) -> list[tuple[str, ...]]:
    words = text.lower().split()
    return list(zip(words, words[1:], words[2:], strict=False))


def translated(all_pages: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Language and text of the pages that are in the language their address names."""
    english = {name: set(trigrams(text)) for language, name, text in all_pages if language == "en"}
    kept = []
    for language, name, text in all_pages:
        grams = trigrams(text)
        shared = sum(gram in english.get(name, ()) for gram in grams)
        if len(text) >= MIN_CHARS and (language == "en" or shared <= MAX_ENGLISH * len(grams)):
            kept.append((SAME.get(language, language), text))
    return kept


def measure(name: str, identifier: Callable[[str], tuple[str, float]], texts: list[tuple[str, str]]) -> None:
    identifier("warm up")
    start = time.process_time()
    answers = [identifier(text) for _, text in texts]
    milliseconds = 1000 * (time.process_time() - start) / len(texts)
    wrong = Counter(
        (meant, found) for (meant, _), (found, _) in zip(texts, answers, strict=True) if SAME.get(found, found) != meant
    )
    accuracy = 1 - sum(wrong.values()) / len(texts)
    print(f"{name}: accuracy {accuracy:.4f}, {milliseconds:.3f} ms of CPU time per page; {len(texts)} pages")
    print("  wrong, as meant -> found:", ", ".join(f"{a} -> {b} {n}" for (a, b), n in wrong.most_common(8)) or "none")
    config = LanguageConfig()
    low = Counter(
        meant for (meant, _), (found, score) in zip(texts, answers, strict=True) if score < threshold(found, config)
    )
    print("  below their threshold:", ", ".join(f"{language} {n}" for language, n in low.most_common()) or "none")


def py3langid() -> Callable[[str], tuple[str, float]]:
    """py3langid by the mean of three windows of 600 characters."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    classifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def identifier(text: str) -> tuple[str, float]:
        step = max(len(text) - 600, 0) / 2
        windows = [text[round(i * step) : round(i * step) + 600] for i in range(3)] if len(text) > 1800 else [text]
        votes: Counter[str] = Counter()
        for window in windows:
            language, probability = classifier.classify(window)
            votes[language] += probability / len(windows)
        return votes.most_common(1)[0]

    return identifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", choices=["py3langid"], help="measure this library on the same pages too")
    arguments = parser.parse_args()
    data = os.environ.get("HERDLM_DATA")
    if not data:
        raise SystemExit("HERDLM_DATA is not set; name the folder that holds web/handbooks.warc.gz")
    everything = pages(Path(data) / "web" / "handbooks.warc.gz")
    texts = translated(everything)
    print(f"{len(everything)} pages, {len(texts)} in {len({language for language, _ in texts})} languages")
    measure("herdlm", identify, texts)
    if arguments.against:
        if version(arguments.against) == ABSENT:
            print(f"{arguments.against}: {ABSENT}: skipped")
        else:
            measure(arguments.against, py3langid(), texts)


if __name__ == "__main__":
    main()
