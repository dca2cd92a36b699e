"""Changes files as damage and malice do: bytes anywhere, and values in JSON and TOML that no reader expects."""

import json
import re
from random import Random
from typing import Any

# What a value is replaced by, as text: within the forms of JSON and beyond.
NASTY = [
    "null", "true", "-1", "0", "1", "0.5", "-0.0", "2147483648", "9223372036854775807", "9223372036854775808",
    "1000000000000000000", "1" + "0" * 40, "9" * 5000, "1e999", "-1e999", "1e308", "1e-320", "NaN", "Infinity",
    '""', '"x"', '"\\ud800"', '"a\\u0000b"', '"../../x"', '"/etc/hostname"', '"' + "x" * 100_000 + '"',
    '"\\u0301\\u200d"',
    "[]", "{}", "[null]", "[[]]", "{\"a\": 1}", "[" * 300 + "]" * 300, "[" * 100_000, '{"a":' * 100_000,
    "[" + "1," * 20_000 + "1]", '["a", 1, null, {}]', '"NaN"', '"1"', "'", "\\", "\x00",
]  # fmt: skip
LINES = ["[a.b]", "[[herd.models]]", ".".join("a" * 400) + " = 1", 'name = "../.."', 'extends = "\\u0000"', "[data]"]
LINES += ["x = " + "[" * 2000, "pretrain = false", 'extends = "/"', "a = 0x" + "f" * 500]
MARK = "@@{}@@"


def bytes_changed(content: bytes, draw: Random) -> bytes:
    """Some bytes flipped, cut, doubled, put in or taken away."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        at = draw.randrange(len(data) + 1)
        length = draw.choice([1, 2, 8, 100, 5000])
        kind = draw.randrange(8)
        if kind == 0 or not data:
            data[at:at] = draw.randbytes(length)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + 8] = draw.choice([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f"])
        elif kind == 5:
            data[at:at] = draw.choice(NASTY).encode("utf-8", "surrogatepass")
        else:
            at = min(at, len(data) - 1)
            data[at] ^= 1 << draw.randrange(8)
    return bytes(data)


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key in list(value)[:200]:
            found += _places(value[key], (*path, key))
    elif isinstance(value, list):
        for number in range(min(len(value), 20)):
            found += _places(value[number], (*path, number))
    return found


def json_changed(content: bytes, draw: Random) -> bytes:
    """Values of a JSON object replaced by nasty ones, or keys dropped and added; now and then bytes."""
    if draw.random() < 0.2:
        return bytes_changed(content, draw)
    value = json.loads(content)
    put: dict[str, str] = {}
    for number in range(draw.choice([1, 1, 2, 4])):
        places = _places(value)
        if not places:
            break
        # Short paths are the keys that a reader looks at; a vocabulary has thousands of others.
        path = draw.choice([p for p in places if len(p) <= draw.choice([1, 2, 2, 9])] or places)
        parent = value
        for step in path[:-1]:
            parent = parent[step]
        kind = draw.randrange(8)
        mark = MARK.format(number)
        if kind == 0:
            del parent[path[-1]]
        elif kind == 1 and isinstance(parent, dict):
            parent[draw.choice(["x", "\0", "a" * 1000, str(path[-1]).upper()])] = parent[path[-1]]
        else:
            parent[path[-1]] = mark
            put[mark] = draw.choice(NASTY)
    text = json.dumps(value)
    for mark, nasty in put.items():
        text = text.replace(f'"{mark}"', nasty)
    return text.encode("utf-8", "surrogatepass")


def toml_changed(content: bytes, draw: Random) -> bytes:
    """Values of a recipe replaced by nasty ones, lines dropped, doubled and put in; now and then bytes."""
    if draw.random() < 0.2:
        return bytes_changed(content, draw)
    lines = content.decode().split("\n")
    for _ in range(draw.choice([1, 1, 2, 4])):
        keyed = [number for number, line in enumerate(lines) if re.match(r"\s*[\w.\"-]+\s*=", line)]
        kind = draw.randrange(8)
        if kind == 0:
            del lines[draw.randrange(len(lines))]
        elif kind == 1:
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
        elif kind == 2:
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(LINES))
        elif keyed:
            at = draw.choice(keyed)
            lines[at] = lines[at].partition("=")[0] + "= " + draw.choice(NASTY)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def lines_changed(content: bytes, draw: Random) -> bytes:
    """Lines of JSON replaced by changed ones, dropped and doubled; now and then bytes anywhere."""
    if draw.random() < 0.3:
        return bytes_changed(content, draw)
    lines = content.split(b"\n")
    for _ in range(draw.choice([1, 1, 3])):
        at = draw.randrange(len(lines))
        kind = draw.randrange(6)
        if kind == 0:
            del lines[at]
            lines = lines or [b""]
        elif kind == 1:
            lines.insert(at, lines[at])
        elif lines[at].strip():
            try:
                lines[at] = json_changed(lines[at], draw)
            except (ValueError, RecursionError):
                lines[at] = bytes_changed(lines[at], draw)
    return b"\n".join(lines)
