"""Calls between the process of the tests and the process of the candidate, with values as literals in JSON.

Each message is a line: a request (``op``, ``args``, ``kwargs``) or a reply (``value`` or ``error``). While one side
waits for a reply it answers the other's requests, so calls may nest. Values cross by copy:

- None, bool, int, float, str: themselves; larger integers, complex, bytes, bytearray, tuple, list, set, frozenset,
  dict, deque, range, Decimal, Fraction, dates and times: ``[tag, ...]``. Objects of a subclass cross as their base.
- Lists, dicts and sets of a message are numbered in the order in which they begin. ``["R", n]`` is one that came
  before, so shared and cyclic ones stay so.
- A reply says which containers of its request were changed, and their new contents. They may refer to the request's
  containers, so a function that sorts its argument and returns it does that here, too.
- Everything else is the business of the two sides: handles and modules from the candidate, functions from the tests.
"""

from __future__ import annotations

import builtins
import datetime
import decimal
import fractions
import json
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO

LONGEST_LINE = 2**26
SMALL = 2**63
TYPES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object, type, type(None))
DATES = (datetime.datetime, datetime.date, datetime.time)


class ChannelError(Exception):
    """The other side is gone, or wrote what is no message."""


class Message:
    """The containers of one request and its reply, by number."""

    def __init__(self) -> None:
        self.containers: list[Any] = []
        self.numbers: dict[int, int] = {}

    def add(self, container: Any) -> None:
        self.numbers[id(container)] = len(self.containers)
        self.containers.append(container)


def shallow(container: Any) -> Any:
    """A copy that shows by identity whether a container was changed."""
    if isinstance(container, dict):
        return list(container.items())
    return list(container)


def same(container: Any, before: list[Any]) -> bool:
    """Whether a container still holds the very objects that :func:`shallow` saw, in their order."""
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        pairs = zip(container.items(), before, strict=True)
        return all(key is old_key and value is old for (key, value), (old_key, old) in pairs)
    return all(item is old for item, old in zip(container, before, strict=True))


class Channel:
    """One end. A side of the channel derives from it."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self.reader, self.writer = reader, writer

    def perform(self, op: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Do what the other side asks for."""
        raise NotImplementedError

    def encode_other(self, value: Any) -> list[Any]:
        """Encode a value that has no literal; raise TypeError for one that must not cross."""
        raise NotImplementedError

    def decode_other(self, tag: str, fields: list[Any]) -> Any:
        """The value that the other side's ``encode_other`` made ``[tag, *fields]`` of."""
        raise NotImplementedError

    def encode_error(self, error: BaseException) -> list[Any]:
        """An exception by the names of its class and of the class's nearest built-in base, with its arguments."""
        kind = type(error)
        base = next(c for c in kind.__mro__ if getattr(builtins, c.__name__, None) is c)
        try:
            arguments = [self.encode(argument, Message()) for argument in error.args]
        except Exception:
            arguments = [str(error)]
        return [kind.__name__, base.__name__, arguments]

    def decode_error(self, fields: list[Any], op: str) -> BaseException:
        """The exception to raise for one that the other side reported."""
        raise NotImplementedError

    def request(self, op: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> Any:
        """Have the other side do something; returns its result or raises its exception."""
        message = Message()
        encoded = [self.encode(value, message) for value in args]
        named = [[name, self.encode(value, message)] for name, value in (kwargs or {}).items()]
        self.send({"op": op, "args": encoded, "kwargs": named})
        while "op" in (reply := self.receive()):
            self.answer(reply)
        try:
            value = self.decode(reply["value"], message) if "value" in reply else None
            for number, content in reply["changed"]:
                self.replace(message.containers[number], content, message)
            error = self.decode_error(reply["error"], op) if "error" in reply else None
        except RecursionError:
            raise
        except Exception as wrong:
            raise ChannelError(f"a reply that cannot be read: {wrong}") from None
        if error is not None:
            raise error
        return value

    def answer(self, request: dict[str, Any]) -> None:
        """Do what the other side asks for, and reply."""
        message = Message()
        try:
            args = [self.decode(value, message) for value in request["args"]]
            kwargs = {name: self.decode(value, message) for name, value in request["kwargs"]}
        except Exception as wrong:
            raise ChannelError(f"a request that cannot be read: {wrong}") from None
        before = [shallow(container) for container in message.containers]
        reply: dict[str, Any] = {}
        try:
            value = self.perform(request["op"], args, kwargs)
            reply["value"] = self.encode(value, message)
        except ChannelError:
            raise
        except BaseException as error:  # also SystemExit: the tests have to see it
            reply = {"error": self.encode_error(error)}
            message.containers = message.containers[: len(before)]
            message.numbers = {id(container): number for number, container in enumerate(message.containers)}
        reply["changed"] = [
            [number, self.content(message.containers[number], message)]
            for number, old in enumerate(before)
            if not same(message.containers[number], old)
        ]
        self.send(reply)

    def send(self, message: dict[str, Any]) -> None:
        try:
            self.writer.write(json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n")
            self.writer.flush()
        except OSError:
            raise ChannelError("the other side has ended") from None

    def receive(self) -> dict[str, Any]:
        line = self.reader.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise ChannelError("the other side has ended" if len(line) < LONGEST_LINE else "a message that is too long")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise ChannelError("the other side wrote what is no message")
        return message

    def encode(self, value: Any, message: Message) -> Any:
        """A value as JSON."""
        kind = type(value)
        # By identity: a class of the candidate's may have a metaclass that equals everything.
        if value is None or kind is bool or kind is str or kind is float or (kind is int and -SMALL < value < SMALL):
            return value
        if (number := message.numbers.get(id(value))) is not None:
            return ["R", number]
        for base, encode in ENCODERS.items():
            if isinstance(value, base):
                if base in (list, dict, set):
                    message.add(value)
                return encode(self, value, message)
        if value is Ellipsis:
            return ["..."]
        if isinstance(value, type) and any(value is known for known in TYPES):
            return ["N", value.__name__]
        return self.encode_other(value)

    def content(self, container: Any, message: Message) -> list[Any]:
        """What a container holds, without hooks of its class."""
        if isinstance(container, dict):
            return [[self.encode(k, message), self.encode(v, message)] for k, v in dict.items(container)]
        items = list.__iter__(container) if isinstance(container, list) else set.__iter__(container)
        return [self.encode(item, message) for item in items]

    def decode(self, value: Any, message: Message) -> Any:
        """The value of what :meth:`encode` returned."""
        if not isinstance(value, list):
            return value
        tag, *fields = value
        if tag == "R":
            return message.containers[fields[0]]
        if tag in EMPTY:
            container = EMPTY[tag]()
            message.add(container)
            self.replace(container, fields[0], message)
            return container
        if tag in FIXED:
            return FIXED[tag]([self.decode(item, message) for item in fields[0]])
        if tag in SIMPLE:
            return SIMPLE[tag](*fields)
        return self.decode_other(tag, fields)

    def replace(self, container: Any, content: list[Any], message: Message) -> None:
        """Give a container new contents, in place."""
        if isinstance(container, dict):
            pairs = [(self.decode(key, message), self.decode(value, message)) for key, value in content]
            container.clear()
            container.update(pairs)
            return
        items = [self.decode(item, message) for item in content]
        container.clear()
        if isinstance(container, list):
            container.extend(items)
        else:
            container.update(items)


def _items(iterate: Callable[[Any], Any], tag: str) -> Callable[[Channel, Any, Message], Any]:
    return lambda channel, value, message: [tag, [channel.encode(item, message) for item in iterate(value)]]


def _content(tag: str) -> Callable[[Channel, Any, Message], Any]:
    return lambda channel, value, message: [tag, channel.content(value, message)]


def _date(kind: Any) -> Callable[[Channel, Any, Message], Any]:
    return lambda channel, value, message: [kind.__name__, kind.isoformat(value)]


def _text(channel: Channel, value: str, message: Message) -> Any:
    return str.__str__(value)


def _number(channel: Channel, value: int, message: Message) -> Any:
    whole = int.__index__(value)
    return whole if -SMALL < whole < SMALL else ["I", hex(whole)]


ENCODERS: dict[type, Callable[[Channel, Any, Message], Any]] = {
    str: _text,
    int: _number,
    float: lambda c, value, m: float.__float__(value),
    list: _content("L"),
    dict: _content("D"),
    set: _content("S"),
    tuple: _items(tuple.__iter__, "T"),
    frozenset: _items(frozenset.__iter__, "Z"),
    deque: _items(deque.__iter__, "Q"),
    complex: lambda c, value, m: ["C", value.real, value.imag],
    bytes: lambda c, value, m: ["B", bytes.hex(value)],
    bytearray: lambda c, value, m: ["A", bytearray.hex(value)],
    range: lambda c, value, m: ["range", value.start, value.stop, value.step],
    decimal.Decimal: lambda c, value, m: ["decimal", decimal.Decimal.__str__(value)],
    fractions.Fraction: lambda c, value, m: ["fraction", hex(value.numerator), hex(value.denominator)],
    datetime.timedelta: lambda c, value, m: ["timedelta", value.days, value.seconds, value.microseconds],
    **{kind: _date(kind) for kind in DATES},
}
EMPTY: dict[str, Callable[[], Any]] = {"L": list, "D": dict, "S": set}
FIXED: dict[str, Callable[[list[Any]], Any]] = {"T": tuple, "Z": frozenset, "Q": deque}
SIMPLE: dict[str, Callable[..., Any]] = {
    "N": lambda name: next(kind for kind in TYPES if kind.__name__ == name),
    "I": lambda text: int(text, 16),
    "C": complex,
    "B": bytes.fromhex,
    "A": bytearray.fromhex,
    "...": lambda: Ellipsis,
    "range": range,
    "decimal": decimal.Decimal,
    "fraction": lambda above, below: fractions.Fraction(int(above, 16), int(below, 16)),
    "timedelta": datetime.timedelta,
    **{kind.__name__: kind.fromisoformat for kind in DATES},
}
