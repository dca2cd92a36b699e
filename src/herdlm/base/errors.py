"""Errors that a user can act on.

Every error states what happened, where (file, key or address), and the remedy. The command line prints it on one line
and exits with ``exit_code``; ``--debug`` shows the traceback.
"""

from __future__ import annotations

import errno
from typing import Any

LONGEST = 2000  # characters of what happened


class HerdError(Exception):
    """A failure with a remedy. ``str(error)`` is one line: what happened, then what to do."""

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        if len(what) > LONGEST:  # it quotes a file, in which a value may be as long as the file
            what = f"{what[:LONGEST]}..."
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}. {remedy}" if remedy else what)


class InputError(HerdError):
    """The user's input is wrong: a recipe key, a file, an address."""

    exit_code = 2


class DamagedError(InputError):
    """A file is missing, incomplete, or differs from what its manifest or format states."""


def storage_error(error: OSError) -> HerdError:
    """An operating-system error as one a user can act on."""
    where = error.filename or "the output folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"no space left on the disk of {where}", "Free space and run again: finished stages are kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"{where} may not be written or read: {error.strerror}", "Check its permissions")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT):
        return InputError(f"{str(where)[:300]}: {error.strerror}", "Check the path")
    return HerdError(f"{where}: {error.strerror or error}", "Run again; finished stages are kept")


def memory_error(error: BaseException) -> HerdError | None:
    """An error of a lack of memory, of the processor's or a GPU's, as one a user can act on; None for any other."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        where = "memory"
    elif type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in text:
        where = "the GPU's memory"
    elif isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text):
        where = "memory"
    else:
        return None
    what = f"{where} is full{f' ({text[:160]})' if text else ''}"
    return HerdError(what, "Make batches, rows, workers or the model smaller, or use a larger machine; then run again")


def error_to_json(error: Exception) -> dict[str, Any]:
    """An error for a message to another process."""
    if isinstance(error, HerdError):
        return {"input": isinstance(error, InputError), "what": error.what, "remedy": error.remedy}
    return {"input": False, "what": f"{type(error).__name__}: {error}", "remedy": ""}


def error_from_json(row: dict[str, Any]) -> HerdError:
    """The error of a message."""
    return (InputError if row["input"] else HerdError)(row["what"], row["remedy"])
