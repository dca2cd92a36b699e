"""What a rank does in the parity suite: some steps in a layout, compared with the same steps in one process."""

import contextlib
import time
from functools import cache

import numpy as np
import torch
import torch.distributed as dist

from herdlm.base.seeds import stream
from herdlm.model.config import ModelConfig
from herdlm.model.lora import adapted_modules, add_lora
from herdlm.model.transformer import build, initialize
from herdlm.parallel import context
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.gather import gather_whole
from herdlm.parallel.layout import Layout
from herdlm.tokens.batch import Piece, assemble, lay_out
from herdlm.tokens.teacher import TEACHER_COLUMNS
from herdlm.train.checkpoint import trained
from herdlm.train.config import TrainConfig
from herdlm.train.forward import batch_logprobs
from herdlm.train.loop import make_optimizer
from herdlm.train.objectives import NextToken
from herdlm.train.preferences import DPO, KTO, Reward
from herdlm.train.teacher import Distill

SHAPE = dict(vocab_size=257, dim=32, layers=4, heads=8, kv_heads=4, ffn_dim=48, max_seq_len=64, rope_theta=1000.0)
SEQ_LEN = 64
MAX_NORM = 0.5
OBJECTIVES = {
    "next": NextToken(),
    "dpo": DPO(beta=0.3),
    "norm": DPO(beta=3.0, kind="norm"),
    "simpo": DPO(beta=2.0, kind="simpo", gamma=1.0),
    "apo": DPO(beta=0.05, kind="apo"),
    "kto": KTO(beta=0.05, desirable_weight=1.5),
    "reward": Reward(),
    "distill": Distill(weight=0.7, temperature=2.0),
    "distill, full": Distill(weight=1.0),
}
OPTIMIZER = TrainConfig(peak_lr=1e-2)
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def piece(random, length):
    """A document of random tokens of which about a tenth are no targets and the others have unequal weights."""
    weights = random.uniform(0.5, 2.0, length) * (random.random(length) > 0.1)
    return Piece(random.integers(0, SHAPE["vocab_size"], length + 1), weights.astype(np.float32))


def row_of(random):
    """A packed row with a rest that is padding."""
    pieces, room = [], SEQ_LEN - 3
    while room > 4:
        length = int(random.integers(4, min(room, 40) + 1))
        pieces.append(piece(random, length))
        room -= length
    return pieces


def token_batches(step, rows):
    """Micro-batches of as many packed rows as ``rows`` says."""
    random = stream(1, "rows", step)
    return [assemble([row_of(random) for _ in range(n)], SEQ_LEN, 0) for n in rows]


def pair_batches(step, rows):
    """As :func:`token_batches`, of pairs whose two answers may be in different rows."""
    batches = []
    random = stream(2, "pairs", step)
    for n in rows:
        batch, places = lay_out([[piece(random, 12) for _ in range(4)] for _ in range(n)], SEQ_LEN, 0)
        found = [place for row in places for place in row]
        order = random.permutation(len(found))[: len(found) // 2 * 2].reshape(-1, 2)
        for side, name in enumerate(("chosen", "rejected")):
            batch.columns[name] = torch.tensor([found[i].document for i in order[:, side]])
            batch.columns[f"{name}_end"] = torch.tensor([found[i].end for i in order[:, side]])
            batch.columns[f"reference_{name}"] = torch.from_numpy(random.normal(-60, 3, len(order)))
        batches.append(batch)
    return batches


def thumb_batches(step, rows):
    """As :func:`token_batches`, of answers with a thumb up or down, and mismatched ones in rows of their own."""
    batches = []
    random = stream(4, "thumbs", step)
    for n in rows:
        both = []
        for count in (n, n + 1):
            batch, places = lay_out([[piece(random, 12) for _ in range(4)] for _ in range(count)], SEQ_LEN, 0)
            found = [place for row in places for place in row]
            order = random.permutation(len(found))[: 4 * n - 1]
            batch.columns["answer"] = torch.tensor([found[i].document for i in order])
            batch.columns["reference"] = torch.from_numpy(random.normal(-80, 3, len(order)))
            both.append(batch)
        both[0].columns["label"] = torch.from_numpy(random.random(4 * n - 1) > 0.5)
        both[0].probe = both[1]
        batches.append(both[0])
    return batches


def taught_batches(step, rows, top_k):
    """As :func:`token_batches`, with a teacher's ``top_k`` tokens at every place."""
    generator = torch.Generator().manual_seed(step)
    batches = token_batches(step, rows)
    for batch in batches:
        scores = 3 * torch.randn(*batch.tokens.shape, SHAPE["vocab_size"], generator=generator, dtype=torch.float64)
        logprobs, ids = scores.log_softmax(-1).topk(top_k)
        batch.columns = dict(zip(TEACHER_COLUMNS, (ids, logprobs), strict=True))
    return batches


def make_model(dtype, head, shape):
    model = build(ModelConfig(**(SHAPE | dict(shape) | {"head": head})), dtype=dtype)
    initialize(model, 0, std=0.15)
    random = stream(3, "norms")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name == "score.weight":
                parameter.copy_(torch.from_numpy(1 + 0.2 * random.normal(size=tuple(parameter.shape))))
    return model


def step_batches(objective, step, rows):
    if objective.startswith("distill"):
        return taught_batches(step, rows, SHAPE["vocab_size"] if objective.endswith("full") else 5)
    if objective == "kto":
        return thumb_batches(step, rows)
    return token_batches(step, rows) if objective == "next" else pair_batches(step, rows)


def with_adapters(model, rank):
    """The model, with adapters of that rank unless it is 0, which have values."""
    if rank:
        add_lora(model, rank)
        random = stream(5, "adapters")
        with torch.no_grad():
            for _, module in adapted_modules(model):
                module.lora_b.copy_(torch.from_numpy(0.05 * random.normal(size=tuple(module.lora_b.shape))))
    return model


@cache
def reference(objective, dtype, steps, rows, shape, lora):
    """Loss, every gradient, gradient norm and what is logged, of each step in one process."""
    loss_of = OBJECTIVES[objective]
    model = with_adapters(make_model(DTYPES[dtype], "score" if objective == "reward" else "lm", shape), lora)
    optimizer = make_optimizer(model, OPTIMIZER)
    seen = []
    for step in range(steps):
        batches = step_batches(objective, step, rows)
        batches = loss_of.prepare(batches, lambda given: [batch_logprobs(model, batch) for batch in given])
        divisor = sum(loss_of.normalizer(batch) for batch in batches)
        total, logged = 0.0, {}
        for batch in batches:
            loss, sums = loss_of.loss(model, batch)
            (loss / divisor).backward()
            total += float(loss.detach()) / divisor
            for name, value in sums.items():
                logged[name] = logged.get(name, 0.0) + float(value)
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf")))
        seen.append((total, {n: p.grad.clone() for n, p in trained(model)}, norm, logged))
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
    return seen


def compare(case):
    """The largest relative differences of a case from one process, in any step: loss, norm, worst gradient."""
    started = time.monotonic()
    config = ParallelConfig(**case["layout"])
    objective, dtype = case.get("objective", "next"), case.get("dtype", "float64")
    rows, steps = tuple(case.get("rows", (3, 2))), case.get("steps", 2)
    shape, lora = tuple(sorted(case.get("shape", {}).items())), case.get("lora", 0)
    context.MASK_BELOW = case.get("mask_below", 512)
    first = dist.get_rank() == 0
    expected = reference(objective, dtype, steps, rows, shape, lora) if first else None
    model = with_adapters(make_model(DTYPES[dtype], "score" if objective == "reward" else "lm", shape), lora)
    whole_names = {name for name, _ in trained(model)}
    layout = Layout.make(config, model.config, seq_len=SEQ_LEN)
    parallel = layout.apply(model)
    optimizer = make_optimizer(parallel, OPTIMIZER)
    worst = {"loss": 0.0, "norm": 0.0, "grad": 0.0, "logged": 0.0, "worst": ""}
    for step in range(steps):
        batches = OBJECTIVES[objective].prepare(step_batches(objective, step, rows), parallel.logprobs)
        loss, _, sums = parallel.gradients(OBJECTIVES[objective], batches, contextlib.nullcontext())
        loss, logged = float(loss), {name: float(value) for name, value in sums.items()}
        missing = [name for name, p in trained(parallel) if p.grad is None]
        assert not missing, f"step {step}: no gradient for {missing}"
        gradients = dict(gather_whole(parallel, lambda name, p: p.grad.clone(), only=whole_names.__contains__))
        norm = float(parallel.clip(MAX_NORM))
        optimizer.step()
        optimizer.zero_grad()
        if first:
            true_loss, true_gradients, true_norm, true_logged = expected[step]
            assert list(gradients) == list(true_gradients)
            assert logged.keys() == true_logged.keys()
            worst["loss"] = max(worst["loss"], abs(loss / true_loss - 1))
            worst["norm"] = max(worst["norm"], abs(norm / true_norm - 1))
            for name, value in true_logged.items():
                worst["logged"] = max(worst["logged"], abs(logged[name] - value) / max(abs(value), 1.0))
            for name, true in true_gradients.items():
                assert gradients[name].shape == true.shape, name
                difference = float((gradients[name] - true).abs().max() / true.abs().max())
                if not difference <= worst["grad"]:
                    worst |= {"grad": difference, "worst": f"{name} in step {step}"}
    worst["seconds"] = round(time.monotonic() - started, 2)
    return worst


def compare_all(cases):
    """Each case by name; run by every rank."""
    found = {}
    for name, case in cases.items():
        try:
            found[name] = compare(case)
        except BaseException as error:
            error.add_note(f"in case {name}: {case}")
            raise
    return found
