"""Documents become token shards: whole, split without overlap, and read by training."""

import gzip
import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from typer.testing import CliRunner

from herdlm.base.errors import InputError
from herdlm.cli.app import app
from herdlm.data.documents import Corpus, parse_corpus
from herdlm.data.tokenize import tokenize
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.tokens.shards import Shard
from tests.run.conftest import ROOT
from tests.scaling.test_anneal_probe import KEYS

TEXTS = [f"Document {n} holds {n * 7} words, or so." for n in range(60)]


@pytest.fixture
def folder(tokenizer, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    return tmp_path


def lines(path, texts, key="text", **more):
    content = "".join(json.dumps({key: text, **more}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def texts_of(tokenizer, shard):
    offsets = shard.offsets.astype(int)
    return [tokenizer.decode(shard.tokens[a:b].tolist()) for a, b in zip(offsets, offsets[1:], strict=False)]


def test_all_documents_are_in_the_shards_once_and_held_out_ones_in_none_of_training(folder, tokenizer):
    path = lines(folder / "a.jsonl.gz", [*TEXTS, " ", TEXTS[0]], key="content")
    counts = tokenize(
        [Corpus(path)], tokenizer=folder / "tokenizer", out=folder / "out", text_key="content", validation_percent=20.0
    )
    web, held_out, anneal = (Shard(folder / "out" / name) for name in ("web", "web-validation", "web-anneal"))
    train, validation = texts_of(tokenizer, web), texts_of(tokenizer, held_out)
    assert sorted(train + validation) == sorted([*TEXTS, TEXTS[0]])
    assert not set(train) & set(validation)
    assert 4 <= len(validation) <= 24
    assert set(texts_of(tokenizer, anneal)) <= set(train)
    assert counts["web"]["documents"] == web.index.documents == len(train)
    assert held_out.index.text_bytes == sum(len(text.encode()) for text in validation)
    assert web.tokens[0] == tokenizer.special("<|begin_of_text|>")
    assert web.tokens[-1] == tokenizer.special("<|end_of_text|>")


def test_names_and_order_of_files_do_not_matter_but_the_seed_does(folder, tokenizer):
    both = [Corpus(lines(folder / "a.jsonl", TEXTS[:30])), Corpus(lines(folder / "b.jsonl", TEXTS[30:]))]
    found = []
    for name, corpora, seed in (("x", both, 0), ("y", both[::-1], 0), ("z", both, 1)):
        tokenize(corpora, tokenizer=folder / "tokenizer", out=folder / name, seed=seed)
        found.append(sorted(texts_of(tokenizer, Shard(folder / name / "web-validation"))))
    assert found[0] == found[1] != found[2]


def test_named_sources_and_a_folder_of_curated_documents(folder, tokenizer):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    curated = folder / "corpus" / "documents"
    curated.mkdir(parents=True)
    rows = [
        {"id": f"d{n}", "text": t, "language": "en", "quality": n / 60, "domain": "web"} for n, t in enumerate(TEXTS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), curated / "part-0.parquet")
    tokenize(
        [Corpus(folder / "corpus", "pages"), Corpus(lines(folder / "b.jsonl", ["a b", "c d", "e f"]), "books")],
        tokenizer=folder / "tokenizer",
        out=folder / "out",
        anneal_percent=10.0,
    )
    names = {path.name for path in (folder / "out").iterdir() if path.is_dir()}
    assert names == {f"{n}{p}" for n in ("pages", "books") for p in ("", "-anneal", "-validation")} | {"web-validation"}
    assert set(texts_of(tokenizer, Shard(folder / "out" / "books"))) < {"a b", "c d", "e f"}
    train = texts_of(tokenizer, Shard(folder / "out" / "pages"))
    best = sorted(train, key=TEXTS.index)[-round(len(train) / 10) :]
    assert sorted(texts_of(tokenizer, Shard(folder / "out" / "pages-anneal"))) == sorted(best)
    everything = [
        shard
        for name in ("pages", "books")
        for shard in texts_of(tokenizer, Shard(folder / "out" / f"{name}-validation"))
    ]
    assert sorted(texts_of(tokenizer, Shard(folder / "out" / "web-validation"))) == sorted(everything)


def test_a_folder_of_plain_texts(folder, tokenizer):
    (folder / "books").mkdir()
    for n in range(4):
        (folder / "books" / f"{n}.txt").write_text(f"Book {n}.\nIn two lines.\n")
    tokenize([Corpus(folder / "books")], tokenizer=folder / "tokenizer", out=folder / "out")
    shards = [Shard(folder / "out" / name) for name in ("web", "web-validation")]
    assert sorted(t for shard in shards for t in texts_of(tokenizer, shard)) == [
        f"Book {n}.\nIn two lines.\n" for n in range(4)
    ]


def test_training_reads_the_shards(folder, tokenizer):
    path = lines(folder / "a.jsonl", TEXTS * 4)
    given = [
        "tokenize",
        str(path),
        "--tokenizer",
        str(folder / "tokenizer"),
        "--out",
        str(folder / "tokens"),
        "--quiet",
    ]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "web: " in done.output
    mix = "[{source = 'web', share = 1.0}]"
    keys = [*KEYS, f"pretrain.mix={mix}", "pretrain.mix_phases=[]"]
    recipe = read_recipe(ROOT / "recipes" / "tiny.toml", keys)
    counts = pretrain(
        recipe.job("small"), tokens=folder / "tokens", tokenizer=folder / "tokenizer", out=folder / "model"
    )
    assert np.isfinite(counts["validation_bits_per_byte"])


def test_what_cannot_be_tokenized_is_refused_and_leaves_no_folder(folder):
    options = dict(tokenizer=folder / "tokenizer", out=folder / "out")
    chat = folder / "chat.jsonl"
    chat.write_text('{"text": "a"}\n{"messages": []}\n')
    with pytest.raises(
        InputError, match=r"chat\.jsonl, line 2, key text: the row has no text there; keys seen: messages"
    ):
        tokenize([Corpus(chat)], **options)
    with pytest.raises(InputError, match="too few documents"):
        tokenize([Corpus(lines(folder / "a.jsonl", ["one"]))], **options)
    with pytest.raises(InputError, match="has no name, but others have"):
        tokenize([Corpus(chat), Corpus(chat, "a")], **options)
    with pytest.raises(InputError, match="web is no name for a source"):
        tokenize([Corpus(chat, "web")], **options)
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="holds no documents"):
        tokenize([Corpus(folder / "empty")], **options)
    assert not (folder / "out").exists()


def test_a_tokenizer_of_another_kind_separates_texts_by_its_end_token(folder):
    alphabet = ["</s>", "a", "b", "c", *sorted({*pre_tokenizers.ByteLevel.alphabet()} - {*"abc"})]
    backend = Backend(models.BPE({letter: id for id, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    (folder / "other").mkdir()
    backend.save(str(folder / "other" / "tokenizer.json"))
    path = lines(folder / "a.jsonl", ["ab", "bc", "ca"])
    with pytest.raises(InputError, match="names no token that ends a text"):
        tokenize([Corpus(path)], tokenizer=folder / "other", out=folder / "out")
    (folder / "other" / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    tokenize([Corpus(path)], tokenizer=folder / "other", out=folder / "out")
    found = [Shard(folder / "out" / name).tokens.reshape(-1, 3).tolist() for name in ("web", "web-validation")]
    assert sorted(found[0] + found[1]) == [[1, 2, 0], [2, 3, 0], [3, 1, 0]]


def test_names_of_corpora(folder):
    (folder / "a=b.jsonl").write_text("")
    assert parse_corpus(str(folder / "a=b.jsonl")) == Corpus(folder / "a=b.jsonl")
    assert parse_corpus("wiki=wiki.jsonl") == Corpus(type(folder)("wiki.jsonl"), "wiki")
