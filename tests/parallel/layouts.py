"""What ranks do in tests of training, export, saved activations and compilation."""

import sys
import tempfile
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils.flop_counter import FlopCounterMode

from herdlm.base.errors import HerdError
from herdlm.model.adapter_folder import load_adapter
from herdlm.model.hf import load_folder, save_folder
from herdlm.model.lora import add_lora, merge_lora
from herdlm.model.transformer import Transformer
from herdlm.parallel.collectives import autograd_all_gather
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.gather import fill, save_whole, save_whole_adapter
from herdlm.parallel.layout import Layout
from herdlm.parallel.linear import column_parallel
from herdlm.parallel.schedule import make_schedule
from herdlm.tokens.batch import TENSORS, Batch
from herdlm.train.config import TrainConfig
from herdlm.train.fp8 import use_fp8
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from tests.parallel.parity import SEQ_LEN, make_model, token_batches
from tests.train.test_device_reads import Device

CONFIG = TrainConfig(
    peak_lr=3e-3, warmup_steps=2, precision="float32", max_grad_norm=0.5, average_last=0.5, average_count=3
)


class Rows:
    """Six steps of micro-batches with 3 and 2 rows."""

    steps = 6

    def micro_batches(self, step):
        return token_batches(step, (3, 2))


class OneStep(Rows):
    """The first of these steps."""

    steps = 1


def train_and_export(layouts, dtype="float64", precision="float32"):
    """Train in each layout with the loop, export, and compare the folder with one process's: differences by layout."""
    found = {}
    config = CONFIG.model_copy(update={"precision": precision})
    alone = make_model(getattr(torch, dtype), "lm", ())
    expected = train(alone, NextToken(), Rows(), config, quiet=True)
    for keys in layouts:
        model = make_model(getattr(torch, dtype), "lm", ())
        layout = Layout.make(ParallelConfig(**keys), model.config, seq_len=SEQ_LEN)
        if precision == "fp8":
            use_fp8(model)
        parallel = layout.apply(model, None if precision == "float32" else torch.bfloat16)
        result = train(parallel, NextToken(), Rows(), config, quiet=True)
        folders = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(folders)
        save_whole(parallel, Path(folders[0]) / "model")
        if dist.get_rank() == 0:
            exported = dict(load_folder(Path(folders[0]) / "model", dtype=getattr(torch, dtype)).named_parameters())
            assert exported.keys() == dict(alone.named_parameters()).keys()
            weights = max(
                float((exported[n] - p).detach().abs().max() / p.detach().abs().max())
                for n, p in alone.named_parameters()
            )
            assert result.averaged == expected.averaged == 3
            assert result.tokens == expected.tokens
            found[str(keys)] = {"weights": weights, "loss": abs(result.last_loss / expected.last_loss - 1)}
    return found


def filled_from_nothing(keys):
    """Build on the meta device, lay out, fill: the exported weights are those the filling function gave."""
    source = make_model(torch.float32, "lm", ())
    values = dict(source.named_parameters())
    with torch.device("meta"):
        model = Transformer(source.config)
    parallel = Layout.make(ParallelConfig(**keys), model.config).apply(model)
    for stage in parallel.stages.values():
        stage.to_empty(device="cpu")
    fill(parallel, lambda name: values[name].detach())
    held = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parallel.parameters())
    folders = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(folders)
    save_whole(parallel, Path(folders[0]) / "model")
    if dist.get_rank() == 0:
        save_folder(source, Path(folders[0]) / "source")
        names = ("config.json", "model.safetensors")
        assert all(
            (Path(folders[0]) / "model" / n).read_bytes() == (Path(folders[0]) / "source" / n).read_bytes()
            for n in names
        )
    dist.barrier()
    return {"held": held, "whole": sum(p.numel() for p in values.values())}


def refusals():
    """What training on many processes refuses, as the text of its errors."""
    told = []
    model = make_model(torch.float32, "lm", ())
    layout = Layout.make(ParallelConfig(tp=2), model.config, seq_len=SEQ_LEN)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    parallel = layout.apply(model)
    try:
        train(parallel, NextToken(), Rows(), CONFIG, quiet=True)
    except HerdError as error:
        told.append(str(error))
    model = make_model(torch.float32, "lm", (("dim", 32), ("ffn_dim", 64)))
    use_fp8(model)
    try:
        layout.apply(model)
    except HerdError as error:
        told.append(str(error))
    return told


def saved_bytes():
    """Bytes that autograd keeps for the backward pass of column-parallel products, gathered again or not."""
    group = dist.group.WORLD
    ranks, rows, length, dim = dist.get_world_size(), 2, 64, 32
    x = torch.randn(rows, length // ranks, dim, requires_grad=True)
    linears = tuple(torch.nn.Linear(dim, 16, bias=False) for _ in range(3))
    weights = tuple(linear.weight for linear in linears)
    of_weights = {w.untyped_storage().data_ptr() for w in weights}
    kept = {}

    def count(run):
        seen = {}

        def pack(tensor):
            if tensor.untyped_storage().data_ptr() not in of_weights:
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = run()
        kept_now = sum(seen.values())
        torch.autograd.backward([y.sum() for y in out])
        return kept_now

    kept["gathered again"] = count(lambda: column_parallel(x, linears, group, None))
    again = [t.grad.clone() for t in (x, *weights)]
    for t in (x, *weights):
        t.grad = None

    def plain():
        whole = autograd_all_gather(x, group)
        return [torch.nn.functional.linear(whole, w) for w in weights]

    kept["gathered once"] = count(plain)
    for one, two in zip(again, (t.grad for t in (x, *weights)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    kept["whole input"] = rows * length * dim * 4
    return kept


def checkpointing_costs():
    """By kind of checkpointing, bytes a forward pass keeps and matrix FLOPs of it and its backward pass."""
    costs = {}
    for mode in ("none", "selective", "layer"):
        model = make_model(torch.float32, "lm", ())
        config = ParallelConfig(tp=2, activation_checkpointing=mode)
        parallel = Layout.make(config, model.config, seq_len=SEQ_LEN).apply(model)
        seen = {}

        def pack(tensor, seen=seen):
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            seen[local.untyped_storage().data_ptr()] = local.untyped_storage().nbytes()
            return tensor

        shard = parallel.shard(token_batches(0, (4,)))[0]
        with FlopCounterMode(display=False) as flops:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                out = parallel.stages[0](shard.batch.tokens, shard.batch.positions, shard.attend(parallel.mesh))
            out.sum().backward()
        costs[mode] = {"bytes": sum(seen.values()), "flops": flops.get_total_flops()}
    return costs


def compiled(breaks):
    """The loss of a step with compiled layers and without, and warnings."""

    def refuse(*args, **named):
        raise RuntimeError("no compiler here")

    compiler = torch.compile
    losses, messages = [], []
    for compile_layers in (False, True):
        model = make_model(torch.float32, "lm", (("layers", 1),))
        layout = Layout.make(ParallelConfig(tp=2, compile=compile_layers), model.config, seq_len=SEQ_LEN)
        torch.compile = (lambda function: refuse) if breaks else compiler
        parallel = layout.apply(model)
        torch.compile = compiler
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = train(parallel, NextToken(), Rows(), CONFIG, quiet=True)
        messages += [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
        losses.append(result.last_loss)
    return losses, messages


def traced_files(layouts):
    """The files whose code runs in a training step of these layouts, on any rank."""
    seen, before = set(), sys.gettrace()
    make_schedule.cache_clear()

    def trace(frame, event, argument):
        seen.add(frame.f_code.co_filename)

    for keys in layouts:
        model = make_model(torch.float32, "lm", ())
        parallel = Layout.make(ParallelConfig(**keys), model.config, seq_len=SEQ_LEN).apply(model)
        sys.settrace(trace)
        try:
            train(
                parallel,
                NextToken(),
                OneStep(),
                TrainConfig(peak_lr=1e-3, precision="float32", prefetch_steps=0),
                quiet=True,
            )
        finally:
            sys.settrace(before)
    ranks = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, sorted(seen))
    return sorted(set().union(*ranks))


def device_reads(layouts):
    """What a step of each layout reads from the device before its end, on any rank."""
    reads = []
    for keys in layouts:
        model = make_model(torch.float32, "lm", ())
        parallel = Layout.make(ParallelConfig(**keys), model.config, seq_len=SEQ_LEN).apply(model)
        device, to, to_list = Device(parallel), Batch.to, torch.Tensor.tolist

        def moved(batch, where, to=to, device=device):
            batch = to(batch, where)
            for name in TENSORS:
                setattr(batch, name, device.add(getattr(batch, name).clone()))
            return batch

        def listed(tensor, to_list=to_list, device=device):
            if device.holds([tensor]):
                device.reads.append("tolist")
            return to_list(tensor)

        Batch.to, torch.Tensor.tolist = moved, listed
        try:
            with device:
                loss, _, _ = parallel.gradients(NextToken(), token_batches(0, (3, 2, 2)), nullcontext())
                norm = parallel.clip(0.5)
        finally:
            Batch.to, torch.Tensor.tolist = to, to_list
        reads += device.reads
        assert float(loss) > 0 and float(norm) > 0
    ranks = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, reads)
    return [read for each in ranks for read in each]


def several(calls):
    """The results of functions of this module, called one after the other with arguments."""
    return [globals()[name](*arguments) for name, arguments in calls]


def adapters(layouts):
    """Train adapters in each layout; compare the merged folder and the adapter's file with one process's."""
    found = {}
    alone = make_model(torch.float64, "lm", ())
    add_lora(alone, 3)
    train(alone, NextToken(), Rows(), CONFIG, quiet=True)
    names = {name: value.detach().clone() for name, value in alone.named_parameters() if ".lora_" in name}
    merged = dict(merge_lora(alone).named_parameters())
    for keys in layouts:
        model = make_model(torch.float64, "lm", ())
        add_lora(model, 3)
        parallel = Layout.make(ParallelConfig(**keys), model.config, seq_len=SEQ_LEN).apply(model)
        train(parallel, NextToken(), Rows(), CONFIG, quiet=True)
        folders = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(folders)
        folder = Path(folders[0])
        save_whole(parallel, folder / "model")
        save_whole_adapter(parallel, folder / "adapter")
        if dist.get_rank() == 0:
            whole = dict(load_folder(folder / "model", dtype=torch.float64).named_parameters())
            again = make_model(torch.float64, "lm", ())
            load_adapter(again, folder / "adapter")
            read = dict(again.named_parameters())
            pairs = [(whole[n], p) for n, p in merged.items()] + [(read[n], p) for n, p in names.items()]
            found[str(keys)] = max(float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in pairs)
        dist.barrier()
    return found
