"""Starts one command on several processes of this machine, and turns the failure of any into a single error.

torchrun's agent starts and watches the processes. When one fails, the others fail after it, because their peer is
gone. Each process therefore records its error in a folder that the launcher named, and the launcher reports the first.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from herdlm.base.errors import HerdError, storage_error
from herdlm.parallel.loopback import INTERFACES, on_loopback

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
UNSHARED = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # "1": torchrun's agent opens no store of its own, at a port of all
STORE = "HERDLM_STORE"  # environment variable: the file through which the processes of a group find each other
FOLDER = "HERDLM_ERROR_FOLDER"  # environment variable: where a process of the group records its error


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """The error that ended one process.

    Attributes:
        seconds: when it was raised, since the epoch.
        expected: whether it is an error for the user, of which the message suffices; else there is ``trace`` to show.
    """

    rank: int
    seconds: float
    expected: bool
    what: str
    remedy: str
    exit_code: int
    trace: str

    def error(self) -> HerdError:
        """The recorded error, to raise in the launcher."""
        error = HerdError(self.what, self.remedy)
        error.exit_code = self.exit_code
        return error


def launch(processes: int, arguments: list[str], threads: int, module: str = "herdlm.cli") -> None:
    """Run ``python -m MODULE`` with ``arguments`` on ``processes`` ranks and wait for all of them.

    Args:
        arguments: with ``--debug`` among them, torchrun logs and each process prints its own traceback.
        threads: of each process.

    Raises:
        HerdError: a process failed. Its message and exit code are those of the first process that did.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    if "--debug" not in arguments:
        for name in ("torch.distributed.run", "torch.distributed.elastic"):
            _silence(name)
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="herdlm-errors-") as folder:
        # The processes find each other through files that only this user can read: no port is open to others.
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={folder}/agents", "--rdzv-conf=store_type=file"]
        command = [
            "--nnodes=1",
            *meeting,
            "--rdzv-id=herdlm",
            f"--nproc-per-node={processes}",
            "-m",
            module,
            *arguments,
        ]
        os.environ |= {FOLDER: folder, STORE: f"{folder}/ranks", UNSHARED: "1", "OMP_NUM_THREADS": str(threads)}
        on_loopback()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}  # torchrun's agent sets its own
        try:
            run(parse_args(command))  # type: ignore[no-untyped-call]
            if ended := _records(Path(folder)):
                raise ended[0].error()  # a run that was asked to end did so without failing
        except ChildFailedError as failure:
            codes = {rank: child.exitcode for rank, child in failure.failures.items()}
            raise _first_error(Path(folder), codes, processes) from None
        except SignalException as stopped:
            sys.exit(128 + int(stopped.sigval))
        finally:
            for name in (FOLDER, STORE, UNSHARED, *INTERFACES):
                if name in before:
                    os.environ[name] = before[name]
                else:
                    os.environ.pop(name, None)
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def recorded_errors() -> Iterator[None]:
    """Record an error that leaves the block, before the other processes notice that this one is gone."""
    try:
        yield
    except Exception as error:
        record_error(error)
        raise


def record_error(error: Exception) -> bool:
    """Record the error that ends this process for its launcher; returns whether there is a launcher to report it."""
    folder = os.environ.get(FOLDER)
    if folder is None or "RANK" not in os.environ:
        return False
    rank = int(os.environ["RANK"])
    path = Path(folder) / f"{rank}.json"
    if not path.exists():
        trace = "".join(traceback.format_exception(error))
        known = storage_error(error) if isinstance(error, OSError) else error
        if isinstance(known, HerdError):
            record = ErrorRecord(rank, time.time(), True, known.what, known.remedy, known.exit_code, trace)
        else:
            record = ErrorRecord(rank, time.time(), False, f"{type(error).__name__}: {error}", "", 1, trace)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(record)), encoding="utf-8")
        partial.replace(path)
    return True


def _silence(name: str) -> None:
    """Stop the logger ``name`` and those below it, each of which torch gave a level of its own."""
    for logger in (name, *(other for other in logging.root.manager.loggerDict if other.startswith(f"{name}."))):
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)


def _records(folder: Path) -> list[ErrorRecord]:
    """What the processes recorded: errors for the user first, then by time."""
    records = [ErrorRecord(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    return sorted(records, key=lambda record: (not record.expected, record.seconds))


def _first_error(folder: Path, codes: dict[int, int], processes: int) -> HerdError:
    """The error to report: the first one for the user, else the first signal, else the first of any kind."""
    records = _records(folder)
    if records and records[0].expected:
        return records[0].error()
    # The agent ends the remaining processes by SIGTERM, so that one says nothing.
    for rank, code in sorted(codes.items()):
        if code < 0 and code != -signal.SIGTERM:
            return HerdError(
                f"process {rank} of {processes} was ended by {signal.Signals(-code).name}",
                "If memory ran out, lower rows_per_micro_batch; run again to continue from the last checkpoint",
            )
    if records:
        sys.stderr.write(records[0].trace)
        return HerdError(f"process {records[0].rank} of {processes} failed with {records[0].what}")
    return HerdError(f"the processes ended with exit codes {sorted(codes.values())}", "See what they printed above")
