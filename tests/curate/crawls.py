"""Small crawls, written byte by byte so that tests can damage them where they like."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random

Write = Callable[[str, bytes], Path]  # writes a file of the given name and content under a temporary folder

WORDS = {
    "en": "the of and to in that is was with which harbour boat morning people waited because nothing would answer "
    "town storm evening children remember work empty house street before after never again found letter",
    "de": "der die das und nicht mit auf ist war von Hafen Männer gewartet hatten weil niemand Antwort Stadt Sturm "
    "Abend Kinder erinnerten Arbeit leer Haus Straße vorher danach niemals wieder gefunden Brief",
    "fr": "le la les et dans que est pas pour qui port bateau matin gens attendaient parce rien réponse ville tempête "
    "soir enfants souvenaient travail vide maison rue avant après jamais encore trouvé lettre",
    "ja": "港は 静かな 船が 入って 男たちは 何も 言わなかった 嵐の 後に 町の 誰も 答えを 持って いない 家に 帰り "
    "子供たちが 走った 仕事が 年を 覚えている 人も いた 朝から 待っていた",
}


def article(language: str, key: str) -> str:
    """A paragraph of ten sentences in ``language``; two of different ``key`` share next to no five words in a row."""
    draw = Random(f"{language} {key}")
    words = WORDS[language].split()
    space, stop = ("", "。") if language == "ja" else (" ", ". ")
    sentences = (space.join(draw.choices(words, k=12)) for _ in range(10))
    return "".join(sentence[0].upper() + sentence[1:] + stop for sentence in sentences).strip()


def page(*paragraphs: str, title: str = "A page", head: str = "") -> bytes:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return (
        f"<!DOCTYPE html><html><head><title>{title}</title>{head}</head>"
        f"<body><main><article><h1>{title}</h1>{body}</article></main></body></html>"
    ).encode()


def record(
    url: str,
    payload: bytes,
    *,
    kind: str = "response",
    status: str = "200 OK",
    media: str = "text/html",
    extra: str = "",
) -> bytes:
    """One WARC record with its digest."""
    block, block_type = payload, "application/warc-fields"
    if kind == "response":
        block_type = "application/http; msgtype=response"
        block = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\n\r\n".encode() + payload
    digest = base64.b32encode(hashlib.sha1(block).digest()).decode()
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{len(url):012d}>\r\nWARC-Block-Digest: sha1:{digest}\r\n"
        f"Content-Type: {block_type}\r\n{extra}Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def zipped(*records: bytes) -> bytes:
    """Records as a .warc.gz has them: a gzip member each."""
    return b"".join(gzip.compress(each, mtime=0) for each in records)


def small_crawl() -> list[bytes]:
    """Pages of which every step has one to drop; three that stay (en-a, en-b, de-a)."""
    english, near = article("en", "a"), article("en", "a").replace("harbour", "haven", 1)
    return [
        record("", b"software: test\r\n", kind="warcinfo", media=""),
        record("https://x.example/en-a", page(english, article("en", "a2"), article("en", "a3"))),
        record("https://x.example/missing", page("Not here."), status="404 Not Found"),
        record("https://x.example/image", b"\x89PNG", media="image/png"),
        record("https://x.example/en-a-again", page(english.upper(), article("en", "a2"), article("en", "a3"))),
        record("https://x.example/en-a-edited", page(near, article("en", "a2"), article("en", "a3"))),
        record("https://x.example/en-b", page(article("en", "b"), article("en", "b2"))),
        record("https://x.example/de-a", page(article("de", "a"), article("de", "a2"))),
        record("https://x.example/ja-a", page(article("ja", "a"), article("ja", "a2"))),
        record("https://x.example/short", page("There is nothing on this page, and that is all of it.")),
        record("https://x.example/empty", b"<html><body></body></html>"),
    ]
