"""The account of a corpus as a page: complete, escaped, and sufficient in itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from herdlm.curate.config import CurateConfig
from herdlm.curate.pipeline import curate
from herdlm.report.corpus_page import render_corpus_page, write_corpus_page
from tests.curate.crawls import article, page, record, small_crawl, zipped

HOSTILE = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects the text, the tags and the addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("account")
    hostile = page(article("en", "h"), HOSTILE.replace("<", "&lt;"), article("en", "h2"))
    records = [*small_crawl(), record(f"https://y.example/{HOSTILE}", hostile)]
    (folder / "c.warc.gz").write_bytes(zipped(*records))
    out = folder / "out"
    out.mkdir()
    curate([str(folder / "c.warc.gz")], out, CurateConfig(workers=1), quiet=True)
    write_corpus_page(out)
    return out


def test_the_page_tells_all_of_the_funnel(corpus: Path) -> None:
    funnel = json.loads((corpus / "funnel.json").read_text())
    text = (corpus / "account.html").read_text()
    words = " ".join(Reader(text).words)
    for step in funnel["steps"]:
        assert f"{step['documents_out']} left, {step['documents_dropped']} dropped" in words
        for reason in step["dropped"]:
            assert reason.replace("_", " ") in words
    assert f"{funnel['output']['documents']} documents" in words
    samples = json.loads((corpus / "samples.json").read_text())
    assert len(samples["read"]["kept"]) == 9
    assert [each["reason"] for each in samples["near_duplicates"]["dropped"]] == ["similar_text"]
    for sides in samples.values():
        for each in (*sides["kept"], *sides["dropped"]):
            assert each["url"] in words


def test_nothing_of_a_web_page_becomes_markup_and_nothing_is_loaded(corpus: Path) -> None:
    text = (corpus / "account.html").read_text()
    read = Reader(text)
    assert HOSTILE in " ".join(read.words)  # it is there, as text
    assert "script" not in read.tags
    assert read.tags.isdisjoint({"img", "link", "iframe", "object"})
    assert all(link.startswith("#") for link in read.links)
    assert not re.search(r"url\(|@import", text)
    assert "default-src &#x27;none&#x27;" in text


def test_equal_data_give_equal_pages(corpus: Path) -> None:
    funnel, samples = (json.loads((corpus / name).read_text()) for name in ("funnel.json", "samples.json"))
    assert render_corpus_page(funnel, samples) == (corpus / "account.html").read_text()
