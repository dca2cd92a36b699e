"""The process of the tests, in which the candidate's functions and classes are handles.

The tests compare values that have been copied into this process, with this process's own operators. So nothing that the
candidate does to its interpreter, and no object that it returns, makes a comparison true. A handle equals no literal.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import linecache
import os
import sys
import types
from collections.abc import Container
from typing import Any, NoReturn

from herdlm.sandbox.inside.channel import Channel, ChannelError, Message
from herdlm.sandbox.inside.frames import write_all

REASON_CHARACTERS = 2000


class Handle:
    """An object that stays in the candidate's process."""

    def __init__(self, channel: TestChannel, number: int, kind: str) -> None:
        object.__setattr__(self, "_Handle__channel", channel)
        object.__setattr__(self, "_Handle__number", number)
        object.__setattr__(self, "_Handle__kind", kind)

    def __ask(self, op: str, *args: Any) -> Any:
        return object.__getattribute__(self, "_Handle__channel").request(op, [self, *args])

    def __ask_for(self, kind: type, op: str, *args: Any) -> Any:
        if type(answer := self.__ask(op, *args)) is not kind:
            raise TypeError(f"the candidate's object gave {type(answer).__name__}, not {kind.__name__}")
        return answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return object.__getattribute__(self, "_Handle__channel").request("call", [self, *args], kwargs)

    def __getattr__(self, name: str) -> Any:
        return self.__ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__ask("set", name, value)

    def __delattr__(self, name: str) -> None:
        self.__ask("delete", name)

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_Handle__number"))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance_of_handle(other) and self.__ask("equal", other) is True)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: object) -> bool:
        return self.__ask("less", other) is True if isinstance_of_handle(other) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.__ask("less or equal", other) is True if isinstance_of_handle(other) else NotImplemented

    def __contains__(self, item: object) -> bool:
        return item in list(self)

    def __iter__(self) -> Any:
        return self if object.__getattribute__(self, "_Handle__kind") == "iterator" else self.__ask("iterate")

    def __next__(self) -> Any:
        return self.__ask("next")

    def __len__(self) -> int:
        return self.__ask_for(int, "length")  # type: ignore[no-any-return]

    def __getitem__(self, key: Any) -> Any:
        return self.__ask("item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__ask("set item", key, value)

    def __bool__(self) -> bool:
        return self.__ask_for(bool, "true")  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return self.__ask_for(str, "text")  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return self.__ask_for(str, "representation")  # type: ignore[no-any-return]

    def __instancecheck__(self, value: object) -> bool:
        return isinstance_of_handle(value) and self.__ask("is instance", value) is True


def isinstance_of_handle(value: object) -> bool:
    """Whether a value is a handle; the check looks at its type alone, which no candidate can give."""
    return type(value) is Handle


class TestChannel(Channel):
    """The tests' end. It takes no requests but calls of functions that the tests passed as arguments."""

    __test__ = False  # not a class of tests for pytest

    def __init__(self, reader: Any, writer: Any) -> None:
        super().__init__(reader, writer)
        self.handles: dict[int, Handle] = {}
        self.functions: list[Any] = []
        self.exceptions: dict[tuple[str, str], type[BaseException]] = {}
        self.class_handles: dict[type[BaseException], int] = {}
        self.broken = ""

    def request(self, op: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> Any:
        try:
            return super().request(op, args, kwargs)
        except ChannelError as error:  # remembered, since tests may catch exceptions
            self.broken = str(error)
            raise

    def perform(self, op: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        function, *rest = args
        if op != "call" or not any(function is known for known in self.functions):
            raise ChannelError("the candidate asked for what it may not have")
        return function(*rest, **kwargs)

    def encode_other(self, value: Any) -> list[Any]:
        if isinstance_of_handle(value):
            return ["H", object.__getattribute__(value, "_Handle__number")]
        if isinstance(value, type) and value in self.class_handles:
            return ["H", self.class_handles[value]]
        if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
            self.functions.append(value)
            return ["F", len(self.functions) - 1]
        raise TypeError(f"an object of type {type(value).__name__} cannot be passed to the candidate's process")

    def decode_other(self, tag: str, fields: list[Any]) -> Any:
        if tag == "H":
            number, kind = int(fields[0]), str(fields[1])
            return self.handles.setdefault(number, Handle(self, number, kind))
        if tag == "F":
            return self.functions[fields[0]]
        if tag == "E":
            known = self.exception(str(fields[0]), str(fields[1]))
            self.class_handles[known] = int(fields[2])
            return known
        if tag == "M":
            return module(str(fields[0]))
        raise ChannelError("a value that is none")

    def exception(self, name: str, base: str) -> type[BaseException]:
        """The class of an exception of the candidate's: built in, or one of our own with the same name and base."""
        built_in: type[BaseException] = getattr(builtins, base)
        if not issubclass(built_in, BaseException):
            raise ChannelError(f"{base} is no exception")
        if name == base:
            return built_in
        known = self.exceptions.get((name, base))
        if known is None:
            known = self.exceptions[name, base] = type(name, (built_in,), {})
        return known

    def decode_error(self, fields: list[Any], op: str) -> BaseException:
        kind = self.exception(str(fields[0]), str(fields[1]))
        arguments = [self.decode(argument, Message()) for argument in fields[2]]
        if issubclass(kind, StopIteration) and op != "next":
            # It would end the tests' own loops early, as if they had passed.
            return RuntimeError("the candidate raised StopIteration")
        try:
            return kind(*arguments)
        except Exception:  # a class that wants other arguments than it keeps
            return kind.__new__(kind)


def module(name: str) -> Any:
    """A module that the candidate imported, imported anew in this process; None for one that is not here."""
    try:
        return importlib.import_module(name)
    except Exception:
        return None


def attributes_of(names: Container[str], tests: str) -> dict[str, set[str]]:
    """Which attributes the tests read of names."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(tests, "tests.py")):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            found.setdefault(node.value.id, set()).add(node.attr)
    return found


def trusted_modules(names: Container[str], tests: str) -> dict[str, Any]:
    """What the tests read attributes of by names of modules of the standard library, such as math.isclose.

    It is the module or, as after ``from datetime import datetime``, what the module has by its own name.
    """
    found = {}
    for name, attributes in attributes_of(names, tests).items():
        whole = module(name)
        for known in (whole, getattr(whole, name, None)):
            if all(hasattr(known, attribute) for attribute in attributes):
                found[name] = known
                break
    return found


def namespace_of(exported: list[list[Any]], prelude: str, entry_point: str | None, tests: str) -> dict[str, Any]:
    """The names that the tests see: the candidate's, except those of built-in functions, and the prelude's own.

    Modules whose functions the tests call are the real ones, even if the candidate calls something else by their names.
    """
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    candidates: dict[str, Any] = {}
    for name, value in exported:
        if type(name) is not str or name.startswith("__"):
            continue
        candidates[name] = value
        if not hasattr(builtins, name) or name == entry_point:
            names[name] = value
    names.update(trusted_modules((candidates.keys() & sys.stdlib_module_names) - {entry_point}, tests))
    if prelude:
        exec(compile(prelude, "prelude", "exec", dont_inherit=True), names)  # noqa: S102
        if entry_point is not None:
            if entry_point in candidates:
                names[entry_point] = candidates[entry_point]
            else:
                names.pop(entry_point, None)
    return names


def described(error: BaseException) -> str:
    """An exception in one line, without asking the candidate what it says."""
    if isinstance(error, AssertionError) and not error.args:
        return "an assertion failed"
    texts = [str(argument) for argument in error.args if not isinstance_of_handle(argument)]
    return f"{type(error).__name__}: {', '.join(texts)}"


def judge(frame: dict[str, Any], channel: TestChannel) -> str:
    """Run the tests; returns "" if they pass, and otherwise why they do not."""
    try:
        channel.request("run", [])
    except ChannelError:
        return "the code ended its process"
    except BaseException as error:
        return f"the code raised {described(error)}"
    try:
        names = namespace_of(channel.request("export", []), frame["prelude"], frame["entry_point"], frame["tests"])
        linecache.cache["tests.py"] = (len(frame["tests"]), None, frame["tests"].splitlines(True), "tests.py")
        exec(compile(frame["tests"], "tests.py", "exec", dont_inherit=True), names)  # noqa: S102
    except BaseException as error:
        if channel.broken:
            return f"the candidate's process is lost: {channel.broken}"
        line = failing_line(error, frame["tests"])
        return described(error) + (f" at {line}" if line else "")
    return f"the candidate's process is lost: {channel.broken}" if channel.broken else ""


def failing_line(error: BaseException, tests: str) -> str:
    """The line of the tests in which an exception came up."""
    found, step, lines = "", error.__traceback__, tests.splitlines()
    while step is not None:
        if step.tb_frame.f_code.co_filename == "tests.py" and step.tb_lineno <= len(lines):
            found = f"line {step.tb_lineno}: {lines[step.tb_lineno - 1].strip()}"
        step = step.tb_next
    return found


def run(frame: dict[str, Any], replies: int, requests: int, verdict: int) -> NoReturn:
    """Run the tests and write the verdict: ``passed``, or ``failed`` and the reason."""
    sys.path[0:1] = []  # the folder that holds herdlm
    channel = TestChannel(os.fdopen(replies, "rb"), os.fdopen(requests, "wb"))
    reason = judge(frame, channel)
    text = f"failed {reason}" if reason else "passed"
    write_all(verdict, text[:REASON_CHARACTERS].encode("utf-8", "replace"))
    os._exit(0)
