"""Shards, packing and the pre-training loader: nothing lost, nothing twice, any row without those before it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.batch import Piece, assemble, lay_out
from herdlm.tokens.mixture import Mixture, PretrainBatches
from herdlm.tokens.packing import OPEN_ROWS, pack_short, pack_whole
from herdlm.tokens.permutation import _mixed, permuted
from herdlm.tokens.rows import Source, open_rows
from herdlm.tokens.shards import Shard, ShardWriter

PAD = 0


def write_shard(folder, documents, targets=None):
    writer = ShardWriter(folder, vocab_size=60_000, tokenizer="t", with_targets=targets is not None)
    for number, document in enumerate(documents):
        writer.add(document, text_bytes=3 * len(document), targets=targets[number] if targets else None)
    return writer.close()


documents_strategy = st.lists(st.integers(2, 30), min_size=1, max_size=12)


def make_documents(lengths):
    """Documents of the given lengths whose tokens are all different, so that each can be followed."""
    starts = np.cumsum([1, *lengths])
    return [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=False)]


@given(lengths=documents_strategy, seq_len=st.integers(3, 16))
@settings(max_examples=50, deadline=None)
def test_rows_of_prose_hold_every_token_once_an_epoch(tmp_path_factory, lengths, seq_len):
    folder = tmp_path_factory.mktemp("shard")
    write_shard(folder, make_documents(lengths))
    source = open_rows(Source("web", folder, 1.0), seq_len, seed=3)
    per_epoch = -(-sum(lengths) // seq_len)
    for epoch in range(3):
        rows = [source.row(epoch * per_epoch + n) for n in range(per_epoch)]
        assert sorted(int(t) for row in rows for p in row for t in p.tokens[:-1]) == list(range(1, sum(lengths) + 1))
    assert source.epoch_of(3 * per_epoch) == 3.0
    # Any row can be made alone, in any order, by a loader that has made no other.
    fresh = open_rows(Source("web", folder, 1.0), seq_len, seed=3)
    for n in reversed(range(2 * per_epoch)):
        assert [p.tokens.tolist() for p in fresh.row(n)] == [p.tokens.tolist() for p in source.row(n)]


def test_rows_of_one_long_document_are_spread_over_the_epoch(tmp_path):
    write_shard(tmp_path, make_documents([4000, 4000]))
    source = open_rows(Source("web", tmp_path, 1.0), 16, seed=0)
    firsts = [int(source.row(n)[0].tokens[0]) > 4000 for n in range(500)]
    for begin in range(0, 500, 50):
        assert 10 < sum(firsts[begin : begin + 50]) < 40
    assert firsts != [int(source.row(500 + n)[0].tokens[0]) > 4000 for n in range(500)]  # shuffled anew


@given(length=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_a_permutation_reaches_every_place_once(length, seed):
    assert sorted(permuted(place, length, seed) for place in range(length)) == list(range(length))


def test_a_permutation_mixes_by_splitmix64_as_published():
    """The first numbers of the reference implementation from the state 1234567; other ones would reorder every run."""
    step = 0x9E3779B97F4A7C15
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [_mixed(1234567 + n * step) for n in range(4)] == published


@given(lengths=documents_strategy, seq_len=st.integers(3, 16))
@settings(max_examples=50, deadline=None)
def test_every_target_is_the_next_token_of_the_same_document(tmp_path_factory, lengths, seq_len):
    folder = tmp_path_factory.mktemp("shard")
    documents = make_documents(lengths)
    write_shard(folder, documents)
    follows = {a: b for d in documents for a, b in zip(d, d[1:], strict=False)}
    ends = {d[-1] for d in documents}
    source = open_rows(Source("web", folder, 1.0, loss_weight=2.5), seq_len, seed=0)
    predicted = set()
    for n in range(source.rows_per_epoch):
        batch = assemble([source.row(n)], seq_len, PAD)
        for token, target, weight in zip(batch.tokens[0], batch.targets[0], batch.weights[0], strict=True):
            if token == PAD or int(token) in ends:
                assert weight == 0
            else:
                assert weight == 2.5
                assert follows[int(token)] == int(target)
                predicted.add(int(token))
    assert predicted == set(follows)


@given(lengths=st.lists(st.integers(2, 17), min_size=1, max_size=12), seed=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_documents_with_answers_stay_whole(tmp_path_factory, lengths, seed):
    folder = tmp_path_factory.mktemp("shard")
    documents = make_documents(lengths)
    write_shard(folder, documents, targets=[[False] + [True] * (len(d) - 1) for d in documents])
    source = open_rows(Source("skills", folder, 1.0), 16, seed)
    seen, number = [], 0
    while len(seen) < 2 * len(documents):
        row = source.row(number)
        seen += [tuple(piece.tokens[:-1].tolist()) for piece in row]
        number += 1
    whole = sorted(tuple(d[:-1]) for d in documents)
    assert sorted(seen[: len(documents)]) == whole
    assert sorted(seen[len(documents) : 2 * len(documents)]) == whole


@given(lengths=st.lists(st.integers(1, 20), max_size=40))
def test_packing_keeps_every_item_once_and_within_capacity(lengths):
    rows = pack_whole(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 20 for row in rows)
    last = {i: r for r, row in enumerate(rows) for i in row}
    assert all(last[i] >= max(last[j] for j in range(i + 1)) - OPEN_ROWS for i in range(len(lengths)))


@given(lengths=st.lists(st.integers(1, 192), min_size=1, max_size=12), seq_len=st.sampled_from([192, 256, 384, 1000]))
def test_short_rows_are_as_many_and_divide_as_long_ones_do(lengths, seq_len):
    rows, length = pack_short(lengths, seq_len)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert max(sum(lengths[i] for i in row) for row in rows) <= length <= seq_len
    assert len(rows) == len(pack_whole(lengths, seq_len))
    assert all(length % pieces == 0 for pieces in (2, 4, 6, 8, 16, 32, 64, 125) if seq_len % pieces == 0)


def test_rows_are_cut_down_to_what_their_items_need():
    assert pack_short([70, 30], 1024) == ([[0, 1]], 128)
    assert pack_short([300, 400, 250, 180], 1024) == ([[0, 2], [1, 3]], 640)


def test_an_item_that_fills_a_row_to_the_brim_goes_into_it():
    assert pack_whole([5, 6, 3, 2, 8], 8) == [[0, 2], [1, 3], [4]]


def test_an_item_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="item 1 has 9 tokens"):
        pack_whole([3, 9], 8)


def test_layout_restarts_positions_and_numbers_documents():
    pieces = [Piece(np.array([5, 6, 7]), np.ones(2, np.float32)), Piece(np.array([8, 9]), np.ones(1, np.float32))]
    batch, places = lay_out([pieces, pieces[:1]], 4, PAD)
    assert batch.tokens.tolist() == [[5, 6, 8, 0], [5, 6, 0, 0]]
    assert batch.targets.tolist() == [[6, 7, 9, 0], [6, 7, 0, 0]]
    assert batch.documents.tolist() == [[0, 0, 1, 2], [3, 3, 4, 4]]
    assert batch.positions.tolist() == [[0, 1, 0, 0], [0, 1, 0, 1]]
    assert [[(p.document, p.end) for p in row] for row in places] == [[(0, 1), (1, 2)], [(3, 5)]]


def test_a_mixture_gives_each_source_its_share_at_every_moment(tmp_path):
    for name in ("a", "b", "c"):
        write_shard(tmp_path / name, make_documents([40, 50]))
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    mixture = Mixture([Source(n, tmp_path / n, s) for n, s in shares.items()], seq_len=8, seed=1, pad=PAD)
    mixture._choose(500)
    for rows in range(1, 500):
        for number, share in enumerate(shares.values()):
            assert abs(mixture._counts[rows, number] - rows * share) <= 1.0


def test_epochs_are_counted_from_where_the_mixture_begins(tmp_path):
    for name in ("a", "b"):
        write_shard(tmp_path / name, make_documents([40, 50, 38]))  # 16 rows of 8
    sources = [Source("a", tmp_path / "a", 0.75), Source("b", tmp_path / "b", 0.25)]
    for read in ({}, {"a": 5, "b": 300}):
        mixture = Mixture(sources, seq_len=8, seed=1, pad=PAD, read=read)
        assert mixture.epochs(64) == {"a": 3.0, "b": 1.0}
        assert mixture.epochs(0) == {"a": 0.0, "b": 0.0}


def test_a_batch_does_not_depend_on_how_it_is_reached(tmp_path):
    for name in ("a", "b"):
        write_shard(tmp_path / name, make_documents([40, 50, 33]))

    def mixture():
        return Mixture([Source(n, tmp_path / n, 1.0) for n in ("a", "b")], seq_len=8, seed=1, pad=PAD)

    walked = mixture()
    whole = [walked.batch(row, 4) for row in range(0, 40, 4)]
    jumped = mixture().batch(36, 4)
    assert torch.equal(jumped.tokens, whole[-1].tokens)
    halves = [mixture().batch(36, 2), mixture().batch(38, 2)]
    assert torch.equal(torch.cat([h.tokens for h in halves]), jumped.tokens)


def test_phases_follow_each_other(tmp_path):
    write_shard(tmp_path / "a", make_documents([40]))
    write_shard(tmp_path / "b", make_documents([40]))
    phases = [(Mixture([Source(n, tmp_path / n, 1.0)], seq_len=8, seed=1, pad=PAD), 3) for n in ("a", "b")]
    batches = PretrainBatches(phases, rows_per_step=4, rows_per_micro_batch=3)
    assert batches.steps == 6
    assert [len(part.tokens) for part in batches.micro_batches(0)] == [3, 1]
    assert torch.equal(batches.micro_batches(3)[0].tokens, phases[1][0].batch(0, 3).tokens)
    with pytest.raises(IndexError):
        batches.micro_batches(6)


def test_damage_is_noticed_when_a_shard_is_opened(tmp_path):
    write_shard(tmp_path, make_documents([10, 12]))
    path = tmp_path / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DamagedError, match=r"tokens\.bin has 42 bytes where the index says 44"):
        Shard(tmp_path)
    with pytest.raises(InputError, match=r"holds no index\.json"):
        Shard(tmp_path / "nowhere")


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    writer = ShardWriter(tmp_path, vocab_size=128_256, tokenizer="t")
    writer.add([0, 128_255], text_bytes=9)
    writer.close()
    assert Shard(tmp_path).tokens.tolist() == [0, 128_255]
    assert (tmp_path / "tokens.bin").stat().st_size == 8


def test_a_row_far_out_is_found_without_those_before_it(tmp_path, monkeypatch):
    """The choice of sources repeats, so row 10**12 costs what row 0 does, and shares hold all the way."""
    monkeypatch.setattr(Mixture, "PERIOD", 64)
    for name in ("a", "b"):
        write_shard(tmp_path / name, make_documents([40, 50, 33]))
    sources = [Source("a", tmp_path / "a", 0.75), Source("b", tmp_path / "b", 0.25)]
    mixture = Mixture(sources, seq_len=8, seed=1, pad=PAD)
    counts = {"a": 0, "b": 0}
    for row in range(300):
        assert mixture.read_after(row) == counts
        mixture.batch(row, 1)
        name = "ab"[int(mixture._choices[row % 64])]
        counts[name] += 1
    assert mixture.read_after(10**12) == {"a": 750_000_000_000, "b": 250_000_000_000}
    fresh = Mixture(sources, seq_len=8, seed=1, pad=PAD)
    assert torch.equal(mixture.batch(10**12, 2).tokens, fresh.batch(10**12, 2).tokens)
    further = Mixture(sources, seq_len=8, seed=1, pad=PAD, read=mixture.read_after(64))
    assert torch.equal(further.batch(0, 5).tokens, mixture.batch(64, 5).tokens)
