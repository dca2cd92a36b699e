"""Functions that the tests of runners run in other processes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep


@dataclass(frozen=True)
class Item:
    """Something to do; every time it is done, a file in ``folder`` gets a line."""

    number: int
    folder: Path
    deaths: int = 0
    error: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"item {self.number}"


def do(item: Item) -> tuple[int, str]:
    """The item's number, and how many threads libraries may use."""
    log = item.folder / f"{item.number}"
    with log.open("a") as file:
        file.write(f"{time.monotonic()}\n")
    if len(log.read_text().splitlines()) <= item.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if item.error == "input":
        raise InputError(f"{item} is wrong", "Fix it")
    if item.error:
        raise ValueError(item.error)
    time.sleep(item.seconds)
    return item.number, os.environ["OMP_NUM_THREADS"]


def times(folder: Path, number: int) -> int:
    """How often an item was done."""
    log = folder / f"{number}"
    return len(log.read_text().splitlines()) if log.exists() else 0


class DropOdd(PageStep):
    """A step of the user's own: drops pages whose address ends in an odd number."""

    class Settings(Section):
        reason: str

    def run(self, batch: Batch) -> Outcome:
        return Outcome([self.settings.reason if int(url[-1]) % 2 else None for url in batch["url"]])
