"""What ranks do in tests of measures: the same measures in every layout and of the whole model."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from herdlm.base.seeds import stream
from herdlm.evaluate.needle import predict_with
from herdlm.evaluate.paired import row_losses
from herdlm.evaluate.perplexity import text_loss
from herdlm.model.config import RopeScaling
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.gather import gather_whole
from herdlm.parallel.layout import Layout
from herdlm.parallel.vocabulary import most_likely
from herdlm.tokens.shards import ShardWriter
from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from tests.parallel.parity import DTYPES, SEQ_LEN, SHAPE, make_model, token_batches

VOCABULARY = SHAPE["vocab_size"]
SCALING = RopeScaling(factor=4.0, original_max_position_embeddings=16)
PROMPTS = ((40, 3), (57, 7), (64, 1))  # tokens and how many places are asked for; few of them can be cut evenly


def shared_folder():
    """One fresh folder for all processes."""
    folders = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(folders)
    return Path(folders[0])


def shard():
    """Random documents of 35 rows: a batch of 32 and one of 3, of which the last row is short."""
    folder, random = shared_folder() / "shard", stream(7, "documents")
    if dist.get_rank() == 0:
        writer = ShardWriter(folder, vocab_size=VOCABULARY, tokenizer="t")
        left = 34 * SEQ_LEN + 20
        while left > 0:
            length = min(int(random.integers(5, 90)), left)
            writer.add(random.integers(0, VOCABULARY, length).tolist(), text_bytes=100)
            left -= length
        writer.close()
    dist.barrier()
    return folder


def measured(model, folder):
    """Everything that is measured of a model, as plain numbers."""
    random = stream(8, "prompts")
    loss = text_loss(model, folder, seq_len=SEQ_LEN, pad=0)
    predict = predict_with(model)
    return {
        "loss": [loss.nats_per_token, loss.bits_per_byte],
        "tokens": loss.tokens,
        "rows": row_losses(model, folder, seq_len=SEQ_LEN, pad=0).tolist(),
        "likeliest": [predict(random.integers(0, VOCABULARY, length).tolist(), count) for length, count in PROMPTS],
    }


def compare(cases):
    """By case the largest relative difference of losses from the whole model's, and whether all else is equal."""
    folder, of_whole, found = shard(), {}, {}
    for name, case in cases.items():
        started = time.monotonic()
        dtype = DTYPES[case.get("dtype", "float64")]
        whole = make_model(dtype, "lm", ())
        whole.set_rope_scaling(SCALING)
        expected = of_whole.get(dtype) or measured(whole, folder)
        of_whole[dtype] = expected
        layout = Layout.make(ParallelConfig(**case["layout"]), whole.config, seq_len=SEQ_LEN)
        model = layout.apply(make_model(dtype, "lm", ()), torch.bfloat16 if case.get("bfloat16") else None)
        model.set_rope_scaling(SCALING)
        seen = measured(model, folder)
        everyone = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, seen)
        found[name] = {
            "loss": max(abs(a / b - 1) for a, b in zip(seen["loss"], expected["loss"], strict=True)),
            "rows": max(abs(a / b - 1) for a, b in zip(seen["rows"], expected["rows"], strict=True)),
            "row_count": len(seen["rows"]),
            "tokens": seen["tokens"] - expected["tokens"],
            "likeliest": seen["likeliest"] == expected["likeliest"],
            "alike": all(other == everyone[0] for other in everyone),
            "scaled": model.shape.rope_scaling == SCALING,
            "seconds": round(time.monotonic() - started, 2),
        }
    return found


class Rows:
    """Two steps of micro-batches with 3 and 2 rows."""

    steps = 2

    def micro_batches(self, step):
        return token_batches(step, (3, 2))


def trained_with_measures_between(layouts):
    """By layout, by how much measuring before and between two trainings changes their weights."""
    folder, found = shard(), {}
    config = TrainConfig(peak_lr=1e-2, precision="float32")
    for keys in layouts:
        weights = []
        for measures in (False, True):
            model = make_model(torch.float32, "lm", ())
            model = Layout.make(ParallelConfig(**keys), model.config, seq_len=SEQ_LEN).apply(model)
            for _ in range(2):
                if measures:
                    measured(model, folder)
                train(model, NextToken(), Rows(), config, quiet=True)
            if measures:
                measured(model, folder)
            weights.append(dict(gather_whole(model)))
        if dist.get_rank() == 0:
            found[str(keys)] = max(float((weights[0][n] - weights[1][n]).abs().max()) for n in weights[0])
    return found


def ties():
    """Places at which the largest logit is there more than once: what is picked of the cut vocabulary and the whole."""
    random = stream(9, "ties")
    ranks, rank, entries = dist.get_world_size(), dist.get_rank(), 19  # 5, 5, 5 and 4
    hidden = torch.from_numpy(random.integers(-2, 3, (300, 3))).float()
    weight = torch.from_numpy(random.integers(-1, 2, (entries, 3))).float()
    logits = hidden @ weight.T
    several = int(((logits == logits.amax(1, keepdim=True)).sum(1) > 1).sum())
    each = -(-entries // ranks)
    mine = weight[rank * each : (rank + 1) * each]
    picked = most_likely(hidden, mine, rank * each, dist.group.WORLD)
    none = most_likely(hidden[:0], mine, rank * each, dist.group.WORLD)
    return {
        "several": several,
        "equal": np.array_equal(picked.numpy(), logits.argmax(1).numpy()),
        "none": len(none),
        "whole": torch.equal(most_likely(hidden, weight, 0, None), logits.argmax(1)),
    }


def several(calls):
    """Many functions in one launch."""
    return [globals()[name](*arguments) for name, arguments in calls]
