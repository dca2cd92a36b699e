"""Learning from a teacher: the objective against the formula, however a step is cut, and what it is good for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from herdlm.base.events import read_events
from herdlm.evaluate.divergence import divergence
from herdlm.model.attention import DocumentAttention
from herdlm.parallel.batches import split_rows
from herdlm.tokens.batch import Piece, assemble
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches
from herdlm.tokens.teacher import TEACHER_COLUMNS, TeacherColumns, TeacherKey
from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from herdlm.train.teacher import Distill, taught, teach
from tests.conftest import small_model
from tests.tokens.test_teacher import Split
from tests.train.test_objectives import DIALOGS

CONFIG = TrainConfig(peak_lr=1e-2, warmup_steps=3, precision="float32", checkpoint_every_steps=4)


def batches(tokenizer, epochs=4):
    return DialogBatches(ChatFormat.of(tokenizer), DIALOGS * 3, seq_len=64, rows_per_step=3, epochs=epochs, seed=5)


def columns(folder, top_k=8, temperature=1.0):
    return TeacherColumns(folder, TeacherKey("a hash", 400, top_k, temperature, "float32"))


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("top_k", [8, 400])
@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (0.4, 2.0)])
def test_loss_and_gradients_equal_the_formula_written_out(tokenizer, top_k, weight, temperature):
    teacher, student = small_model(seed=3).double(), small_model().double()
    (given,) = batches(tokenizer).micro_batches(0)
    generator = torch.Generator().manual_seed(0)
    given.weights *= torch.rand(given.weights.shape, generator=generator) + 0.5
    batch = taught(teacher, given, top_k, temperature)
    objective = Distill(weight, temperature)
    loss, seen = objective.loss(student, batch)
    ours = torch.autograd.grad(loss, list(student.parameters()))

    def logits(model):
        hidden = model(given.tokens, given.positions, DocumentAttention(given.documents))
        return model.logits(hidden)

    here, counted = given.weights > 0, given.weights[given.weights > 0]
    theirs, mine = logits(teacher)[here].detach(), logits(student)[here]
    p, q = ((scores / temperature).softmax(-1) for scores in (theirs, mine))
    ids = p.topk(top_k).indices
    if top_k < 400:
        p, q = (torch.cat((c.gather(1, ids), 1 - c.gather(1, ids).sum(1, keepdim=True)), 1) for c in (p, q))
    crossed = -(p * q.log()).sum(1)
    nll = F.cross_entropy(mine, given.targets[here], reduction="none")
    expected = (counted * (weight * temperature**2 * crossed + (1 - weight) * nll)).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for one, true in zip(ours, torch.autograd.grad(expected, list(student.parameters())), strict=True):
        assert (one - true).abs().max() <= 1e-12 * true.abs().max()
    kl = F.kl_div(q.log(), p, reduction="none").sum(1).detach()
    assert seen["teacher_kl"] == pytest.approx(float((kl * counted).sum()), rel=1e-9)
    assert seen["next_token_loss"] == pytest.approx(float((nll * counted).sum().detach()), rel=1e-12)
    assert objective.normalizer(batch) == NextToken().normalizer(given)


def test_accumulation_equals_the_big_batch(tokenizer, tmp_path):
    ends = []
    for name, data in (("whole", batches(tokenizer)), ("split", Split(batches(tokenizer)))):
        read = teach(small_model(seed=3).double(), data, columns(tmp_path / name), quiet=True)
        student = small_model().double()
        train(student, Distill(0.7), read, CONFIG, quiet=True)
        ends.append(weights(student))
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-6, atol=1e-8, msg=name)


def test_a_batch_is_cut_into_rows_with_its_columns(tokenizer):
    batch = taught(small_model(seed=3), batches(tokenizer).micro_batches(0)[0], 5, 1.0)

    class Mesh:
        class sizes:  # noqa: N801
            dp = 1

    rows = list(split_rows(batch, Mesh, 1))
    assert len(rows) == len(batch.tokens) > 1
    for name in TEACHER_COLUMNS:
        assert torch.equal(torch.cat([row.columns[name] for row in rows]), batch.columns[name])


@pytest.mark.parametrize("cut_at", [1, 4, 7])
def test_a_cut_off_run_goes_on_to_bitwise_the_same_weights(tokenizer, tmp_path, cut_at):
    data = batches(tokenizer, epochs=8)
    read = teach(small_model(seed=3), data, columns(tmp_path / "columns"), quiet=True)
    undisturbed, resumed = small_model(), small_model()
    train(undisturbed, Distill(), read, CONFIG, work=tmp_path / "whole", quiet=True)

    class Cut:
        steps = read.steps

        def micro_batches(self, step):
            if step == cut_at:
                raise KeyboardInterrupt
            return read.micro_batches(step)

    with pytest.raises(KeyboardInterrupt):
        train(small_model(), Distill(), Cut(), CONFIG, work=tmp_path / "cut", quiet=True)
    train(resumed, Distill(), read, CONFIG, work=tmp_path / "cut", quiet=True)
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(resumed)[name]), name
    events = list(read_events(tmp_path / "cut" / "events.jsonl", "step"))
    assert [event["step"] for event in events] == list(range(1, read.steps + 1))
    assert all(event["loss"] >= 0.5 * event["next_token_loss"] and event["teacher_kl"] >= 0 for event in events)


class Chain:
    """Text from a random chain of tokens: what comes next depends on the last token alone."""

    def __init__(self, steps, seed, rows=4, length=32):
        self.steps, self.seed, self.rows, self.length = steps, seed, rows, length
        generator = torch.Generator().manual_seed(0)
        self.chances = (2.5 * torch.randn(64, 64, generator=generator)).softmax(-1)

    def micro_batches(self, step):
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        tokens = [torch.randint(64, (self.rows,), generator=generator)]
        for _ in range(self.length):
            tokens.append(torch.multinomial(self.chances[tokens[-1]], 1, generator=generator)[:, 0])
        rows = torch.stack(tokens, 1).numpy()
        return [assemble([[Piece(row, np.ones(self.length, np.float32))] for row in rows], self.length, 0)]


@torch.no_grad()
def held_out_loss(model):
    held_out = [batch for step in range(20) for batch in Chain(20, seed=9).micro_batches(step)]
    total = sum(float(NextToken().loss(model, batch)[0]) for batch in held_out)
    return total / sum(NextToken().normalizer(batch) for batch in held_out), held_out


@pytest.mark.slow
def test_a_student_is_nearer_to_its_teacher_and_better_than_with_as_many_steps_of_text_alone(tmp_path):
    config = TrainConfig(peak_lr=1e-2, warmup_steps=5, precision="float32", anneal_steps=10, weight_decay=0.0)
    teacher = small_model(vocab_size=64)
    train(teacher, NextToken(), Chain(400, seed=1, rows=8), config, quiet=True)
    lesson = Chain(60, seed=2)
    key = TeacherKey("a hash", 64, 16, 1.0, "float32")
    read = teach(teacher, lesson, TeacherColumns(tmp_path, key), quiet=True)
    losses, distances = {}, {}
    for name, objective in (("text", NextToken()), ("taught", Distill(0.9))):
        student = small_model(vocab_size=64, dim=16, layers=1, seed=5)
        train(student, objective, read, config, quiet=True)
        losses[name], held_out = held_out_loss(student)
        distances[name] = divergence(teacher, student, held_out).kl
    assert held_out_loss(teacher)[0] < min(losses.values())
    assert losses["taught"] < losses["text"] - 0.02
    assert distances["taught"] < 0.9 * distances["text"]
