"""Starts the processes of a parallel engine on this machine.

    python -m herdlm.generate.processes FOLDER ...    # one that follows; started by the first process only

The first process is the caller's own. One that follows ends when the first closes the engine, or is gone.
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
from herdlm.parallel.mesh import Mesh, make_mesh

IDLE = datetime.timedelta(days=3650)  # between two requests; a process that is gone is noticed by its connection
START = datetime.timedelta(minutes=10)


def start_processes(folder: Path, tensor_parallel: int, pipeline_parallel: int, device: str, dtype: str) -> Mesh:
    """Start all processes but this one, the first; the mesh of all of them.

    Args:
        device, dtype: as of :func:`herdlm.generate.load.load_model`. Process r takes the GPU of number r, or N + r
            where the device is cuda:N. On a CPU the threads of this process are shared out between all.

    Raises:
        InputError: the model cannot be divided so, or there is no such device.
        HerdError: this process already has a parallel model: there can be one at a time.
    """
    check_layout(shape_of(folder), tensor_parallel, pipeline_parallel)
    if dist.is_initialized():
        raise HerdError(
            "this process has a parallel model already", "Serve each parallel model by a process of its own"
        )
    world = tensor_parallel * pipeline_parallel
    places = [_place(device, rank) for rank in range(world)]  # all are looked up before anything starts
    store = TCPStore("127.0.0.1", 0, world, is_master=True, wait_for_workers=False, timeout=START)
    threads = max(torch.get_num_threads() // world, 1)
    torch.set_num_threads(threads)
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
    """At the end of the first process: whoever has not ended by itself is ended."""
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main() -> None:
    """Follow the first process."""
    order = json.loads(sys.argv[1])
    end_with(order["parent"])
    store = TCPStore("127.0.0.1", order["port"], order["tp"] * order["pp"], is_master=False, timeout=START)
    mesh = _join(store, order["rank"], order["tp"], order["pp"], order["device"])
    model = load_model(Path(order["folder"]), order["device"], order["dtype"])
    part = ModelShard(model, compute_type(model, order["dtype"]), mesh, free_original=True)
    try:
        run_worker(part)
    except RuntimeError as error:  # of the transfer: a process of this model is gone, and the rest are of no use
        sys.exit(f"process {order['rank']} of a parallel model ends: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
