"""What a rank of a real run allocates: peaks by the allocator's own events, and what the forward pass keeps."""

import contextlib

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from herdlm.model.config import ModelConfig
from herdlm.model.transformer import build, initialize
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.layout import Layout
from herdlm.tokens.batch import Piece, assemble
from herdlm.train.config import TrainConfig
from herdlm.train.loop import OneProcess, make_optimizer
from herdlm.train.objectives import NextToken


def batches(model, seq_len, rows):
    """Micro-batches of as many rows as ``rows`` says, of one document each."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.ones(seq_len).numpy()

    def row():
        return [Piece(torch.randint(model.vocab_size, (seq_len + 1,), generator=generator).numpy(), weights)]

    return [assemble([row() for _ in range(count)], seq_len, 0) for count in rows]


def peak(profiled):
    """The most bytes above the start that were allocated at a time, by the allocator's events."""
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measure(case):
    """By rank: peak bytes of a step above weights and optimizer state, and bytes that one forward pass keeps."""
    shape = ModelConfig(**case["model"])
    config = ParallelConfig(**case["layout"])
    model = build(shape)
    initialize(model, 0)
    precise = case.get("precision", "float32") == "float32"
    autocast = contextlib.nullcontext() if precise else torch.autocast("cpu", torch.bfloat16)
    if dist.is_initialized() and dist.get_world_size() > 1:
        layout = Layout.make(config, shape, seq_len=case["seq_len"])
        module = layout.apply(model, None if precise else torch.bfloat16)
        parameters = list(module.parameters())
    else:
        from herdlm.parallel.blocks import apply_checkpointing

        for layer in model.model.layers.children():
            apply_checkpointing(layer, config.activation_checkpointing)
        module, parameters = OneProcess(model), list(model.parameters())
    optimizer = make_optimizer(module.model if isinstance(module, OneProcess) else module, TrainConfig(peak_lr=1e-3))
    rows = batches(shape, case["seq_len"], case["rows"])

    def step():
        optimizer.zero_grad(set_to_none=True)
        module.gradients(NextToken(), rows, autocast)
        module.clip(1.0)
        optimizer.step()

    step()
    optimizer.zero_grad(set_to_none=True)
    kept = {}
    owned = {getattr(p, "_local_tensor", p) for p in parameters}
    owned = {p.untyped_storage().data_ptr() for p in owned if p.untyped_storage().nbytes()}

    def pack(value):
        local = getattr(value, "_local_tensor", value)
        if local.untyped_storage().data_ptr() not in owned:
            kept.setdefault((local.untyped_storage().data_ptr(), local.untyped_storage().nbytes()), (tuple(local.shape), str(local.dtype)[6:]))
        return value

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    if case.get("list"):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            step()
    state = 0
    for p in parameters:
        local = p.to_local() if hasattr(p, "to_local") else p
        state += local.numel() * local.element_size() * 3
    found = {"peak": peak(profiled), "state": state, "kept": [[size, *what] for (_, size), what in kept.items()]}
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return [found]
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, found)
    return every
