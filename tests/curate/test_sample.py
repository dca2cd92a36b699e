"""The starter crawl and the script that cut it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from herdlm.curate.config import CurateConfig
from herdlm.curate.pipeline import curate
from tests.curate.crawls import Write, page, record, zipped

SAMPLE = Path(__file__).parents[2] / "sample"


def test_the_crawl_is_the_one_described() -> None:
    crawl = SAMPLE / "starter.warc.gz"
    assert crawl.stat().st_size <= 12_000_000
    assert hashlib.sha256(crawl.read_bytes()).hexdigest() in (SAMPLE / "README.md").read_text()


def test_every_package_of_the_crawl_has_its_licence() -> None:
    licenses = (SAMPLE / "LICENSES.md").read_text()
    with (SAMPLE / "starter.warc.gz").open("rb") as file:
        records = ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=False)
        hosts = {record.headers["WARC-Target-URI"].split("/")[2] for record in records}
    for host in hosts:
        assert host.removesuffix(".example") in licenses
    for text in (SAMPLE / "licenses").iterdir():
        assert f"(licenses/{text.name})" in licenses


def test_cutting_copies_the_pages_that_the_rules_name(write: Write, tmp_path: Path) -> None:
    start = "https://installation-guide-amd64.example/installation-guide-amd64"
    pages = [record(f"{start}/it/{i:02}.html", page(f"Pagina {i}")) for i in range(13)]
    pages += [record(f"{start}/en/{i}.html", page(f"Page {i}")) for i in range(3)]
    pages.append(record("https://elsewhere.example/a.html", page("No rule names this one.")))
    crawl = write("in.warc.gz", zipped(*pages))
    outs = [tmp_path / "a" / "out.warc.gz", tmp_path / "b" / "out.warc.gz"]
    for out in outs:
        out.parent.mkdir()
        subprocess.run([sys.executable, SAMPLE / "cut.py", crawl, out], check=True, capture_output=True)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    with outs[0].open("rb") as file:
        found = {r.headers["WARC-Target-URI"]: r.reader.read() for r in ArchiveIterator(file) if r.is_http}
    assert [url.removeprefix(start) for url in found] == [
        "/it/00.html",
        "/it/06.html",
        "/it/12.html",
        "/en/0.html",
        "/en/1.html",
        "/en/2.html",
    ]
    assert found[f"{start}/en/1.html"] == page("Page 1")


@pytest.mark.slow
def test_every_step_finds_something_in_the_starter_crawl(tmp_path: Path) -> None:
    funnel = curate([str(SAMPLE / "starter.warc.gz")], tmp_path, CurateConfig(), quiet=True)
    assert all(step["documents_dropped"] > 0 for step in funnel["steps"] if step["step"] != "read")
    assert funnel["languages"]["en"]["bytes"] > 5_800_000
    assert all(funnel["languages"][language]["bytes"] > 300_000 for language in ("de", "fr", "es"))
