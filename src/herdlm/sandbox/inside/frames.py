"""Messages between processes that trust each other: a length in eight bytes, then JSON."""

from __future__ import annotations

import json
import os
from typing import Any

LONGEST = 2**28


def read_exactly(descriptor: int, count: int) -> bytes:
    """Read ``count`` bytes. Raises EOFError if the other side closes before."""
    parts = []
    while count:
        part = os.read(descriptor, min(count, 2**20))
        if not part:
            raise EOFError("the other side closed the connection")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_frame(descriptor: int) -> dict[str, Any]:
    """The next message."""
    length = int.from_bytes(read_exactly(descriptor, 8), "little")
    if length > LONGEST:
        raise EOFError(f"a message of {length} bytes")
    return unpack(read_exactly(descriptor, length))


def unpack(body: bytes) -> dict[str, Any]:
    """A message from its bytes, without their length."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise EOFError("a message that is not an object")  # noqa: TRY004 - for the reader, the same as its end
    return message


def pack(message: dict[str, Any]) -> bytes:
    """A message as bytes."""
    body = json.dumps(message).encode()
    return len(body).to_bytes(8, "little") + body


def write_all(descriptor: int, content: bytes) -> None:
    """Write all bytes."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
