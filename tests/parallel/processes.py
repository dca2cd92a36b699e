"""Starts gloo processes for a test: a process that forks its ranks before torch has any threads."""

import datetime
import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

from tests import warm


def launch(target, world, *arguments, seconds=240):
    """Run ``module:function`` on ``world`` processes with JSON ``arguments``; what the first one returned.

    Any process that raises ends all of them, and its traceback is the error.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = warm.run(
            "tests.parallel.processes",
            *(target, world, folder, json.dumps(arguments)),
            env={"TORCH_CPP_LOG_LEVEL": "ERROR"},
            shared=("torch.distributed", target.partition(":")[0]),
            seconds=seconds,
        )
        result = Path(folder) / "result.json"
        if done.returncode or not result.exists():
            raise AssertionError(f"{target} on {world} processes ended with {done.returncode}:\n{done.stderr[-6000:]}")
        sys.stderr.write(done.stderr)
        return json.loads(result.read_text())


def _rank(rank, world, target, folder, arguments):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    code = 1
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/meeting",
            rank=rank,
            world_size=world,
            timeout=datetime.timedelta(seconds=60),
        )
        module, _, name = target.partition(":")
        result = getattr(importlib.import_module(module), name)(*arguments)
        dist.barrier()
        if rank == 0:
            Path(folder, "result.json").write_text(json.dumps(result))
        code = 0
    except BaseException:
        sys.stderr.write(f"rank {rank} of {world}:\n{traceback.format_exc()}\n")
    sys.stderr.flush()
    os._exit(code)


def main():
    import signal

    target, world, folder, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    importlib.import_module(target.partition(":")[0])
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            _rank(rank, world, target, folder, arguments)
        children.append(child)
    code = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not code:
            code = 1
            for other in children:
                os.kill(other, signal.SIGKILL)
    sys.exit(code)


if __name__ == "__main__":
    main()
