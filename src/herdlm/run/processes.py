"""Training on many processes: starting them here, and meeting those that torchrun started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from herdlm.base.errors import HerdError, InputError


def relaunch(processes: int, arguments: list[str], threads: int) -> None:
    """Replace this process by torchrun with ``processes`` ranks of the same command; does not return."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "herdlm.cli"]
    os.execv(sys.executable, [sys.executable, *command, *arguments])  # noqa: S606 - no shell, our own interpreter


@contextmanager
def process_group(device: str) -> Iterator[int]:
    """The group of the processes that torchrun started, for as long as the block runs; gives this one's rank.

    Without torchrun there is no group and the rank is 0.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cuda:nccl,cpu:gloo" if device == "cuda" else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


@contextmanager
def led_by_first(folders: AbstractContextManager[tuple[Path, Path, dict[str, Any]]]) -> Iterator[tuple[Path, Path]]:
    """Enter ``folders`` on the first process alone and give its two folders to all; leave it when all are done.

    Raises:
        InputError: on every process, if the first one could not enter.
    """
    if not dist.is_initialized():
        with folders as (made, work, _):
            yield made, work
        return
    if dist.get_rank() == 0:
        try:
            made, work, _ = folders.__enter__()
        except HerdError as error:
            dist.broadcast_object_list([str(error), "", ""])
            raise
        dist.broadcast_object_list(["", str(made), str(work)])
        try:
            yield made, work
        except BaseException as error:
            folders.__exit__(type(error), error, error.__traceback__)
            raise
        folders.__exit__(None, None, None)
    else:
        told = ["", "", ""]
        dist.broadcast_object_list(told)
        if told[0]:
            raise InputError(f"the first process stopped: {told[0]}")
        yield Path(told[1]), Path(told[2])
    dist.barrier()
