"""Documents become sources by language and domain: each in one, held out and annealed within its kind."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from herdlm.base.errors import InputError
from herdlm.tokens.documents import read_documents, split_documents
from herdlm.tokens.sources import SourceConfig, check_sources, shard_names, source_of

SPLIT = dict(seed=3, validation_percent=10.0, anneal_percent=25.0, max_text_megabytes={})


def source(**keys):
    return SourceConfig(**keys)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """400 documents of two languages and two domains; German scores lower than English throughout."""
    rows = [
        dict(
            id=f"d{n}",
            text=f"text {n} " * (1 + n % 5),
            language=("en", "de")[n % 2],
            domain=("code", "web")[n // 2 % 2],
            quality=(0.5 if n % 2 == 0 else 0.1) + n / 2000,
        )
        for n in range(400)
    ]
    path = tmp_path_factory.mktemp("corpus") / "documents.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path, {row["id"]: row for row in rows}


def drawn(purpose, id):
    """The number from 0 to 1 that decides about a document: shards made long ago must be made again alike."""
    digest = hashlib.blake2b(f"{SPLIT['seed']}\x1f{purpose}\x1f{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def test_hashes_of_ids_decide_what_is_held_out_and_what_a_limit_cuts(corpus):
    path, rows = corpus
    percent = 100.2 * sorted(drawn("validation", id) for id in rows)[40]  # a hair above that document's own
    split = split_documents(read_documents(path), path, **SPLIT | {"validation_percent": percent})
    assert split.validation == {id for id in rows if 100 * drawn("validation", id) < percent}
    assert len(split.validation) >= 41
    assert split.train == rows.keys() - split.validation
    assert not split.cut
    limit = 0.002  # of the 3.7 kB of German text
    limited = split_documents(read_documents(path), path, **SPLIT | {"max_text_megabytes": {"de": limit}})
    kept, size = set(), 0.0
    for id in sorted((id for id in rows if rows[id]["language"] == "de"), key=lambda id: drawn("order", id)):
        size += len(rows[id]["text"]) / 1e6
        if size <= limit:
            kept.add(id)
    assert 0 < len(kept) < 200
    assert {id for id in limited.train | limited.validation if rows[id]["language"] == "de"} == kept
    assert limited.cut == {"de": 200 - len(kept)}


def test_a_document_is_in_the_source_its_recipe_says(corpus):
    path, rows = corpus
    sources = {"german": source(languages=("de",)), "code": source(languages=("en",), domains=("code",))}
    split = split_documents(read_documents(path), path, **SPLIT, sources=sources)
    assert split.outside == {"web, en": 100}
    assert set(split.source.values()) == {"german", "code"}
    for id, row in rows.items():
        expected = "german" if row["language"] == "de" else "code" if row["domain"] == "code" else None
        assert split.source.get(id) == expected
        assert bool(split.shards(id)) == (expected is not None)
        if id in split.validation:
            assert split.shards(id) == ["web-validation", f"{expected}-validation"]
        elif expected:
            assert split.shards(id) == ([expected, f"{expected}-anneal"] if id in split.anneal else [expected])


def test_the_rest_takes_what_the_others_leave(corpus):
    path, rows = corpus
    sources = {"other": source(), "code": source(domains=("code",))}
    split = split_documents(read_documents(path), path, **SPLIT, sources=sources)
    assert not split.outside
    assert all(split.source[id] == ("code" if row["domain"] == "code" else "other") for id, row in rows.items())


def test_the_annealing_set_has_the_best_of_each_domain_and_language(corpus):
    path, rows = corpus
    plain = split_documents(read_documents(path), path, **SPLIT)
    assert {rows[id]["language"] for id in plain.anneal} == {"en"}  # by score alone German has none
    sources = {"all": source(), "code": source(domains=("code",), anneal_percent=50.0)}
    split = split_documents(read_documents(path), path, **SPLIT, sources=sources)
    for language in ("en", "de"):
        for domain, percent in (("code", 50), ("web", 25)):
            kind = [id for id in split.train if (rows[id]["language"], rows[id]["domain"]) == (language, domain)]
            best = sorted(kind, key=lambda id: rows[id]["quality"], reverse=True)[: round(len(kind) * percent / 100)]
            assert set(best) == split.anneal & set(kind)


def test_without_sources_nothing_of_a_domain_is_asked(corpus, tmp_path):
    """The split of a corpus with domains is that of the same corpus without them."""
    path, _ = corpus
    pq.write_table(pq.read_table(path).drop_columns(["domain"]), tmp_path / "documents.parquet")
    assert split_documents(
        read_documents(tmp_path / "documents.parquet"), tmp_path / "documents.parquet", **SPLIT
    ) == split_documents(read_documents(path), path, **SPLIT)
    assert {document.domain for document in read_documents(tmp_path / "documents.parquet")} == {"general"}
    sources = {"general": source(domains=("general",))}
    assert not split_documents(
        read_documents(tmp_path / "documents.parquet"), tmp_path / "documents.parquet", **SPLIT, sources=sources
    ).outside


def test_a_source_without_documents_is_named(corpus):
    with pytest.raises(InputError, match=r"tokens.sources.maths takes 0 documents of .* and 0 for validation"):
        split_documents(
            read_documents(corpus[0]),
            corpus[0],
            **SPLIT,
            sources={"maths": source(domains=("maths",)), "rest": source()},
        )


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            {"a": source(languages=("de", "en")), "b": source(languages=("en",), domains=("code",))},
            r"a and b both take documents of language en and domain code",
        ),
        ({"a": source(languages=("de",)), "b": source(domains=("code",))}, "language de and domain code"),
        ({"a": source(), "b": source()}, "a and b both take what the others leave"),
        ({"skills": source()}, "skills is no name for a source"),
        ({"web-de": source()}, "no name for a source"),
        ({"x-anneal": source()}, "no name for a source"),
        ({"a/b": source()}, "no name for a source"),
    ],
)
def test_sources_that_cannot_be_told_apart_are_refused(sources, message):
    with pytest.raises(ValueError, match=message):
        check_sources(sources)


def test_sources_that_share_nothing_are_fine():
    sources = {"a": source(languages=("de", "fr"), domains=("code",)), "b": source(languages=("de",), domains=("web",))}
    check_sources(sources)
    assert source_of(sources, "de", "web") == "b"
    assert source_of(sources, "en", "web") is None
    assert shard_names(sources) == ("a", "a-anneal", "b", "b-anneal")
    assert shard_names({}) == ("web", "web-anneal")
    with pytest.raises(ValidationError, match="languages names one twice"):
        source(languages=("de", "de"))
