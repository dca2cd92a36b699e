"""A teacher's columns on disk: what is read is what was written, for these rows and this teacher and no other."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches
from herdlm.tokens.teacher import TEACHER_COLUMNS, TaughtBatches, TeacherColumns, TeacherKey
from herdlm.train.teacher import taught, teach
from tests.conftest import small_model
from tests.train.test_loop import Split
from tests.train.test_objectives import DIALOGS

KEY = TeacherKey("a hash", 400, 7, 2.0, "float32")


@pytest.fixture
def batches(tokenizer):
    return Split(DialogBatches(ChatFormat.of(tokenizer), DIALOGS * 3, seq_len=64, rows_per_step=3, epochs=2, seed=5))


def test_columns_are_the_teachers_distribution_at_every_target(batches, tmp_path):
    teacher = small_model(seed=3)
    read = teach(teacher, batches, TeacherColumns(tmp_path / "columns", KEY), quiet=True)
    assert read.steps == batches.steps
    for step in range(batches.steps):
        for given, batch in zip(batches.micro_batches(step), read.micro_batches(step), strict=True):
            assert torch.equal(batch.tokens, given.tokens) and torch.equal(batch.weights, given.weights)
            expected = taught(teacher, given, 7, 2.0)
            here = given.weights > 0
            for name in TEACHER_COLUMNS:
                assert torch.equal(batch.columns[name], expected.columns[name])
                assert batch.columns[name].shape == (*given.tokens.shape, 7)
                assert not batch.columns[name][~here].any()
            hidden = teacher(given.tokens, given.positions, _attention(given))
            whole = torch.log_softmax(teacher.logits(hidden) / 2.0, -1)[here]
            ids, logprobs = (batch.columns[name][here] for name in TEACHER_COLUMNS)
            torch.testing.assert_close(logprobs, whole.gather(1, ids))
            assert torch.equal(ids[:, 0], whole.argmax(-1))
            assert (logprobs.exp().sum(-1) < 1).all()  # of the whole vocabulary, not of the seven


def assert_same(one, two, step, batches):
    """That two folders hold the same of a step."""
    given = batches.micro_batches(step)
    for mine, other in zip(one.read(step, given), two.read(step, given), strict=True):
        assert np.array_equal(mine, other)


def _attention(batch):
    from herdlm.model.attention import DocumentAttention

    return DocumentAttention(batch.documents)


def test_a_teacher_that_was_cut_off_goes_on_with_what_is_missing(batches, tmp_path, monkeypatch):
    whole = TeacherColumns(tmp_path / "whole", KEY)
    teach(small_model(seed=3), batches, whole, quiet=True)
    columns, written = TeacherColumns(tmp_path / "cut", KEY), []
    write = TeacherColumns.write

    def cut(self, step, *arguments):
        written.append(step)
        if len(written) == 3:
            raise KeyboardInterrupt
        write(self, step, *arguments)

    monkeypatch.setattr(TeacherColumns, "write", cut)
    with pytest.raises(KeyboardInterrupt):
        teach(small_model(seed=3), batches, columns, quiet=True)
    half = columns.path(1).read_bytes()
    columns.path(1).write_bytes(half[: len(half) // 2])  # as a power cut may leave it
    teach(small_model(seed=3), batches, columns, quiet=True)
    assert written == [0, 1, 2, 1, 2, *range(3, batches.steps)]
    for step in range(batches.steps):
        assert_same(columns, whole, step, batches)


def test_processes_share_the_work_and_a_part_of_the_run_may_be_taught(batches, tmp_path):
    whole = TeacherColumns(tmp_path / "whole", KEY)
    teach(small_model(seed=3), batches, whole, quiet=True)
    columns = TeacherColumns(tmp_path / "shared", KEY)
    for rank in (1, 0):
        teach(small_model(seed=3), batches, columns, first_step=1, rank=rank, ranks=2, quiet=True)
    found = sorted(path.name for path in columns.folder.glob("*.safetensors"))
    assert found == [whole.path(step).name for step in range(1, batches.steps)]
    with pytest.raises(InputError, match="has no columns of step 0"):
        TaughtBatches(batches, columns).micro_batches(0)
    assert_same(columns, whole, 1, batches)


@pytest.mark.parametrize("name", ["teacher", "vocab_size", "top_k", "temperature", "precision"])
def test_another_teacher_or_another_reading_of_it_is_refused(tmp_path, name):
    TeacherColumns(tmp_path, KEY)
    other = {"teacher": "another", "vocab_size": 401, "top_k": 8, "temperature": 1.0, "precision": "bfloat16"}
    with pytest.raises(InputError, match=f"columns with {name} .*, but this run needs {other[name]}"):
        TeacherColumns(tmp_path, replace(KEY, **{name: other[name]}))


@pytest.mark.parametrize("name", ["tokens", "targets", "weights", "documents"])
def test_columns_of_other_rows_are_refused(batches, tmp_path, name):
    columns = TeacherColumns(tmp_path, KEY)
    teach(small_model(), batches, columns, quiet=True)
    given = batches.micro_batches(1)
    columns.read(1, given)
    getattr(given[0], name)[0, 3] += 1
    with pytest.raises(InputError, match="was made for other rows than those of step 1"):
        columns.read(1, given)
    assert not columns.has(1, given)


def test_damage_is_told(batches, tmp_path):
    columns = TeacherColumns(tmp_path, KEY)
    read = teach(small_model(), batches, columns, quiet=True)
    content = bytearray(columns.path(0).read_bytes())
    content[-3] ^= 1
    columns.path(0).write_bytes(bytes(content))
    with pytest.raises(DamagedError, match="is not what was written"):
        read.micro_batches(0)
    (tmp_path / "teacher.json").write_text("{")
    with pytest.raises(DamagedError, match="cannot be read"):
        TeacherColumns(tmp_path, KEY)


def test_files_are_plain_safetensors_as_small_as_the_vocabulary_allows(batches, tmp_path):
    for vocab_size, dtype in ((400, np.uint16), (128_256, np.uint32)):
        columns = TeacherColumns(tmp_path / str(vocab_size), replace(KEY, vocab_size=vocab_size))
        teach(small_model(), batches, columns, quiet=True)
        tensors = load_file(columns.path(0))
        assert tensors["ids"].dtype == dtype and tensors["logprobs"].dtype == np.float32
        assert json.loads((columns.folder / "teacher.json").read_text())["top_k"] == 7
