"""The lineage of an artifact: a diamond of stages back to a file outside, and what breaks it."""

import shutil

import pytest

from herdlm.base.artifact import InputEntry, publish
from herdlm.base.errors import DamagedError, InputError
from herdlm.run.lineage import as_json, lines, trace


def make(run, name, *inputs, text=""):
    """Publish a stage made from other stages, or from the file outside."""
    working = run / f".{name}"
    working.mkdir(parents=True)
    (working / "file").write_text(text or name)
    entries = {
        each.stage: InputEntry(path=f"stages/{each.stage}", content=each.content) for each in inputs if each != "crawl"
    }
    if "crawl" in inputs:
        entries["crawl"] = InputEntry(path="/data/crawl.warc", content="c" * 64)
    return publish(
        working,
        run / "stages" / name,
        kind=f"{name}s",
        stage=name,
        fingerprint="",
        inputs=entries,
        recipe={},
        seeds={},
        counts={},
        seconds=1.5,
        code={},
    )


@pytest.fixture
def run(tmp_path):
    document = make(tmp_path, "document", "crawl")
    tokenizer = make(tmp_path, "tokenizer", document)
    make(tmp_path, "token", document, tokenizer)
    return tmp_path


def test_an_ancestor_of_several_is_listed_once(run):
    hashes = {name: trace(run / "stages" / name).content for name in ("document", "tokenizer", "token")}
    assert list(lines(trace(run / "stages" / "token" / "file"))) == [
        f"stages/token  [tokens] sha256 {hashes['token'][:16]}",
        f"  stages/document  [documents] sha256 {hashes['document'][:16]}",
        f"    /data/crawl.warc  [source] sha256 {'c' * 16}",
        f"  stages/tokenizer  [tokenizers] sha256 {hashes['tokenizer'][:16]}",
        f"    stages/document  [documents] sha256 {hashes['document'][:16]} (listed above)",
    ]
    found = as_json(trace(run / "stages" / "token"))
    document, tokenizer = found["origins"]
    assert (document["seen"], document["seconds"], document["content"]) == (False, 1.5, hashes["document"])
    assert document["origins"][0] == {
        "path": "/data/crawl.warc",
        "kind": "source",
        "content": "c" * 64,
        "seconds": None,
        "seen": False,
        "origins": [],
    }
    assert tokenizer["origins"] == [document | {"seen": True, "origins": []}]


def test_an_ancestor_that_is_gone_or_made_again_is_an_error(run):
    shutil.rmtree(run / "stages" / "document")
    with pytest.raises(DamagedError, match="stage token was made from document, which the run lacks"):
        trace(run / "stages" / "token")
    make(run, "document", "crawl", text="others")
    with pytest.raises(DamagedError, match="stage token was made from another document than the run holds now"):
        trace(run / "stages" / "token")


def test_a_path_in_no_artifact_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        trace(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"is not in an artifact: there is no manifest\.json in it or above"):
        trace(tmp_path)
