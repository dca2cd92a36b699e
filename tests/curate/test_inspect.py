"""herdlm inspect, as a user calls it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import warm
from tests.curate.crawls import small_crawl, zipped


def herdlm(*arguments: object) -> subprocess.CompletedProcess[str]:
    return warm.run("herdlm.cli", *arguments)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "c.warc.gz").write_bytes(zipped(*small_crawl()))
    done = herdlm("curate", folder / "c.warc.gz", "--out", folder / "out", "--set", "curate.workers=1")
    assert done.returncode == 0, done.stderr
    assert "3 documents of 10 pages" in done.stdout
    assert {path.name for path in (folder / "out").iterdir()} == {
        "documents",
        "dropped",
        "funnel.json",
        "hosts.json",
        "samples.json",
        "timing.json",
        "account.html",
        "manifest.json",
    }
    return folder / "out"


def test_kept_and_dropped_documents(corpus: Path) -> None:
    kept = json.loads(herdlm("inspect", corpus, "--json").stdout)
    assert [row["url"][-4:] for row in kept] == ["en-a", "en-b", "de-a"]
    assert len(json.loads(herdlm("inspect", corpus, "--json", "--limit", 2).stdout)) == 2
    assert [r["language"] for r in json.loads(herdlm("inspect", corpus, "--json", "--language", "de").stdout)] == ["de"]
    (dropped,) = json.loads(herdlm("inspect", corpus, "--dropped", "--reason", "same_text", "--json").stdout)
    assert (dropped["step"], dropped["duplicate_of"]) == ("exact_duplicates", kept[0]["id"])
    shown = herdlm("inspect", corpus, "--dropped", "--step", "language").stdout
    assert "dropped by language: other_language" in shown
    assert "https://x.example/ja-a  ja" in shown


def test_what_is_not_there_is_told_with_what_is(corpus: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([corpus, "--dropped", "--reason", "boring"], "reasons there: http_status, no_text, not_html, other_language"),
        ([corpus, "--language", "fr"], "languages there: de, en"),
        ([corpus, "--reason", "same_text"], "Add --dropped"),
        ([tmp_path], "is not a corpus"),
    ):
        told = herdlm("inspect", *arguments)
        assert told.returncode == 2
        assert message in told.stderr
