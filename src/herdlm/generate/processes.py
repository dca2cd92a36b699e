"""Starts the processes of a parallel engine on this machine.

    python -m herdlm.generate.processes ORDER    # a worker; only the first process starts it

The first process is the caller's own. A worker ends when the first process closes the engine or dies.
"""

from __future__ import annotations

import atexit
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from herdlm.base.errors import HerdError
from herdlm.base.parent import end_with
from herdlm.generate.fp8.load import shape_of
from herdlm.generate.load import compute_type, load_model, pick_device
from herdlm.generate.parallel import ModelShard, check_layout, run_worker
from herdlm.parallel.config import Sizes
from herdlm.parallel.loopback import loopback_store, on_loopback
from herdlm.parallel.mesh import Mesh, make_mesh

IDLE = datetime.timedelta(days=3650)  # between two requests; a dead process is noticed by its connection
START = datetime.timedelta(minutes=10)


def start_processes(folder: Path, tensor_parallel: int, pipeline_parallel: int, device: str, dtype: str) -> Mesh:
    """Start the workers and return the mesh of all processes, of which this is the first.

    Args:
        device, dtype: as for :func:`herdlm.generate.load.load_model`. Process r uses GPU r, or GPU N + r if the device
            is cuda:N. On a CPU the processes share this process's threads.

    Raises:
        InputError: the model cannot be divided so, or there is no such device.
        HerdError: this process already has a parallel model; it can have only one.
    """
    check_layout(shape_of(folder), tensor_parallel, pipeline_parallel)
    if dist.is_initialized():
        raise HerdError("this process has a parallel model already", "Start another process for each parallel model")
    world = tensor_parallel * pipeline_parallel
    places = [_place(device, rank) for rank in range(world)]  # check all devices before starting anything
    store = loopback_store(world, START)
    threads = max(torch.get_num_threads() // world, 1)
    torch.set_num_threads(threads)
    on_loopback()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    for rank in range(1, world):
        order = {
            "folder": str(folder),
            "rank": rank,
            "tp": tensor_parallel,
            "pp": pipeline_parallel,
            "port": store.port,
            "device": places[rank],
            "dtype": dtype,
            "parent": os.getpid(),
        }
        command = [sys.executable, "-m", "herdlm.generate.processes", json.dumps(order)]
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)  # noqa: S603 - this very program
        atexit.register(_end, child)
    return _join(store, 0, tensor_parallel, pipeline_parallel, places[0])


def _place(device: str, rank: int) -> str:
    picked = pick_device(device)
    return str(pick_device(f"cuda:{(picked.index or 0) + rank}")) if picked.type == "cuda" else picked.type


def _join(store: TCPStore, rank: int, tp: int, pp: int, device: str) -> Mesh:
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=tp * pp, timeout=IDLE)
    return make_mesh(Sizes(tp=tp, cp=1, pp=pp, dp_replicate=1, dp_shard=1), torch.device(device))


def _end(child: subprocess.Popen[bytes]) -> None:
    """At the exit of the first process, end a worker that has not ended itself."""
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main() -> None:
    """Run as a worker."""
    order = json.loads(sys.argv[1])
    end_with(order["parent"])
    store = TCPStore("127.0.0.1", order["port"], order["tp"] * order["pp"], is_master=False, timeout=START)
    mesh = _join(store, order["rank"], order["tp"], order["pp"], order["device"])
    model = load_model(Path(order["folder"]), order["device"], order["dtype"])
    part = ModelShard(model, compute_type(model, order["dtype"]), mesh, free_original=True)
    code = 0
    try:
        run_worker(part)
    except RuntimeError as error:  # of a transfer: a process of this model is gone, and the others are useless
        print(f"process {order['rank']} of a parallel model ends: {str(error).splitlines()[0]}", file=sys.stderr)  # noqa: T201
        code = 1
    sys.stderr.flush()
    os._exit(code)  # without the interpreter's clean-up, in which gloo's threads can abort the process


if __name__ == "__main__":
    main()
