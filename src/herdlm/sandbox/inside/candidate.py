"""The process in which a model's code runs: as a script, or as a candidate whose functions the tests call."""

from __future__ import annotations

import atexit
import builtins
import linecache
import operator
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from herdlm.sandbox.inside.channel import Channel, ChannelError


def clean_interpreter(path: str) -> None:
    """Make this forked interpreter look like one that was just started on the script at ``path``."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "herdlm"]:
        del sys.modules[name]
    sys.argv = [path]
    sys.path[0:1] = [str(Path(path).parent)]  # in place of the folder that holds herdlm
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the interpreter's own, never closed
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    linecache.clearcache()


def print_traceback(error: BaseException) -> None:
    """Print an exception as Python does, without our own frames."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    traceback.print_exception(type(error), error.with_traceback(frames), frames)


def run_script(path: str, program: str) -> NoReturn:
    """Run a program as ``__main__`` and exit as Python would."""
    clean_interpreter(path)
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=builtins)
    sys.modules["__main__"] = main
    status = 0
    try:
        exec(compile(program, path, "exec", dont_inherit=True), main.__dict__)  # noqa: S102 - what a sandbox is for
    except SystemExit as end:
        status = exit_status(end)
    except BaseException as error:
        print_traceback(error)
        status = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as the interpreter does at its end
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        status = status or 120
    os._exit(status)


def exit_status(end: SystemExit) -> int:
    """The exit status that Python gives for sys.exit(code)."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    sys.stderr.write(f"{end.code}\n")
    return 1


def export(namespace: dict[str, Any]) -> list[list[Any]]:
    """Names and values that the code defined at its top level."""
    return [[name, value] for name, value in namespace.items() if not name.startswith("__")]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *args, **kwargs: function(*args, **kwargs),
    "get": getattr,
    "set": setattr,
    "delete": delattr,
    "equal": lambda one, other: bool(one == other),
    "less": lambda one, other: bool(one < other),
    "less or equal": lambda one, other: bool(one <= other),
    "iterate": iter,
    "next": next,
    "length": len,
    "item": operator.getitem,
    "set item": operator.setitem,
    "true": bool,
    "text": str,
    "representation": repr,
    "is instance": lambda kind, value: isinstance(value, kind),
}


class Callback:
    """A function of the tests."""

    def __init__(self, channel: CandidateChannel, number: int) -> None:
        self._channel, self._number = channel, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.request("call", [self, *args], kwargs)


class CandidateChannel(Channel):
    """The candidate's end. What has no literal stays here, and the tests get a handle: its number."""

    namespace: dict[str, Any]

    def __init__(self, reader: Any, writer: Any) -> None:
        super().__init__(reader, writer)
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    def perform(self, op: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if op == "export":
            return export(self.namespace)
        return OPERATIONS[op](*args, **kwargs)

    def encode_other(self, value: Any) -> list[Any]:
        if isinstance(value, Callback):
            return ["F", value._number]
        if isinstance(value, types.ModuleType):
            return ["M", value.__name__]
        if isinstance(value, type) and issubclass(value, BaseException):
            base = next(c for c in value.__mro__ if getattr(builtins, c.__name__, None) is c)
            return ["E", value.__name__, base.__name__, self.number(value)]
        return ["H", self.number(value), "iterator" if isinstance(value, Iterator) else type(value).__name__]

    def number(self, value: Any) -> int:
        number = self.numbers.setdefault(id(value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        return number

    def decode_other(self, tag: str, fields: list[Any]) -> Any:
        return self.objects[fields[0]] if tag == "H" else Callback(self, fields[0])

    def decode_error(self, fields: list[Any], op: str) -> BaseException:
        kind = getattr(builtins, fields[1])
        return kind(*fields[2])  # type: ignore[no-any-return]


def serve(code: str, folder: str, requests: int, replies: int) -> None:
    """Run the code, then do what the tests ask for until they end."""
    path = str(Path(folder, "candidate.py"))
    clean_interpreter(path)
    channel = CandidateChannel(os.fdopen(requests, "rb"), os.fdopen(replies, "wb"))
    module = types.ModuleType("candidate")
    module.__dict__.update(__file__=path, __builtins__=builtins)
    sys.modules["candidate"] = module
    channel.namespace = module.__dict__
    channel.receive()
    try:
        exec(compile(code, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what a sandbox is for
    except BaseException as error:
        channel.send({"error": channel.encode_error(error), "changed": []})
        os._exit(1)
    channel.send({"value": None, "changed": []})
    while True:
        try:
            channel.answer(channel.receive())
        except ChannelError:
            os._exit(0)
