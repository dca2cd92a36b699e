"""Every example runs as its docstring says, on a piece of the sample crawl and the model that the second one trains."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = 150


def example(name, folder, *arguments):
    """Run an example in ``folder``; returns what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples write: the first :data:`PAGES` pages of the sample crawl lie there."""
    folder = tmp_path_factory.mktemp("examples")
    rest, end = (ROOT / "sample" / "starter.warc.gz").read_bytes(), 0
    crawl = rest
    for _ in range(PAGES + 1):  # each record is a gzip member of its own
        member = zlib.decompressobj(31)
        member.decompress(rest)
        rest = member.unused_data
        end = len(crawl) - len(rest)
    (folder / "crawl.warc.gz").write_bytes(crawl[:end])
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    """What the first example printed."""
    return example("curate", folder, "crawl.warc.gz", "corpus")


@pytest.fixture(scope="module")
def model(folder, corpus):
    """What the second example printed."""
    return example("train", folder, "corpus", "model", 40)


def test_curate_names_reasons_and_keeps_documents(corpus):
    assert "dropped by exact_duplicates: same_text" in corpus
    kept, pages = (int(word) for word in corpus.split("kept ")[1].split()[:3:2])
    assert 0 < kept < pages == PAGES


def test_train_learns_something(model):
    assert float(model.split("loss ")[1].split()[0]) < 6.8  # of ln 1024 = 6.93


def test_generate_keeps_to_the_schema(folder, model):
    printed = example("generate", folder, "model")
    assert printed.count("greedy: ") == printed.count("sampled: ") == 3
    assert "JSON: {'package': " in printed


def test_serve_answers_the_openai_client(folder, model):
    printed = example("serve", folder, "model")
    assert "24 tokens: " in printed
    assert "streamed: " in printed


def test_compare_measures_what_fp8_changes(folder, model):
    printed = example("compare", folder, "model", ROOT / "README.md", "comparison")
    assert "nats per token" in printed
    assert any((folder / "comparison").glob("*.html"))


def test_examples_are_short_and_listed():
    listed = (ROOT / "examples" / "README.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 40, path
        assert f"`{path.name} " in listed
