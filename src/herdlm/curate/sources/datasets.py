"""Finds the data files of a dataset's folder: one of the Hugging Face Hub, or one that `save_to_disk` wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any

from herdlm.base.errors import InputError

CARD = "README.md"
CACHES = (".cache", ".git", ".huggingface")
# Files that stand beside data, and that do not make a folder one of source code
_BESIDE = ("markdown", "json", "yaml", "text")
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)
_DATA_FILES = re.compile(r"""^[\s-]*(?:path|data_files|data_dir):\s*(.*)$""")
_ITEM = re.compile(r"""^\s*-\s*["']?([^"':]+?)["']?\s*$""")
_QUOTED = re.compile(r"""[^\s"',\[\]]+""")


def data_files(
    filesystem: Any,
    folder: str,
    tree: Sequence[tuple[str, int]],
    is_data: Callable[[str], bool],
    language_of: Callable[[str], str | None],
) -> list[str]:
    """Return the paths in ``folder`` of its data files, or an empty list if it is one of source code.

    Those of `save_to_disk` are named by its state.json; those of a repository by its card, or else all that have a
    format for data.

    Raises:
        InputError: The folder has source code, but data is the larger part.
    """
    tree = [(path, size) for path, size in tree if not path.startswith(tuple(f"{cache}/" for cache in CACHES))]
    names = {path for path, _ in tree}
    states = [path for path in names if path.rpartition("/")[2] == "state.json"]
    saved = [name for path in sorted(states) for name in _saved(filesystem, folder, path)]
    if saved:
        return saved
    data = [(path, size) for path, size in tree if is_data(path)]
    if not data:
        return []
    card = _read(filesystem, f"{folder}/{CARD}") if CARD in names else ""
    front = _FRONT.match(card)
    code = [(path, size) for path, size in tree if (language_of(path) or _BESIDE[0]) not in _BESIDE]
    if front is None and code:
        if sum(size for _, size in data) > sum(size for _, size in code):
            raise InputError(
                f"folder {folder} holds source code, and more data beside it, such as {data[0][0]}",
                f"Name the data files, say {folder}/{_glob(data[0][0])}, or the folder of the source code in it",
            )
        return []
    patterns = _patterns(front[1]) if front else []
    named = [path for path, _ in data if any(_matches(path, pattern) for pattern in patterns)]
    if patterns and not named:
        raise InputError(
            f"the card of {folder} names {', '.join(patterns)}, and no such file is there",
            f"Download the data as well, or name its files, say {folder}/{_glob(data[0][0])}",
        )
    return named or [path for path, _ in data]


def _matches(path: str, pattern: str) -> bool:
    return fnmatch(path, pattern) or fnmatch(path, pattern.replace("**/", "")) or path.startswith(f"{pattern}/")


def _saved(filesystem: Any, folder: str, state: str) -> list[str]:
    try:
        files = json.loads(_read(filesystem, f"{folder}/{state}"))["_data_files"]
        above = state.rpartition("/")[0]
        return [f"{above}/{file['filename']}" if above else str(file["filename"]) for file in files]
    except (ValueError, KeyError, TypeError):
        return []  # some other state.json


def _read(filesystem: Any, path: str) -> str:
    content: bytes = filesystem.cat_file(path)
    return content.decode("utf-8", "replace")


def _patterns(front: str) -> list[str]:
    """Return the patterns of files of the card's ``configs``."""
    found: list[str] = []
    listing = False
    for line in front.split("\n"):
        if key := _DATA_FILES.match(line):
            found += _QUOTED.findall(key[1])
            listing = not key[1].strip()
        elif listing and (item := _ITEM.match(line)):
            found.append(item[1])
        else:
            listing = False
    return found


def _glob(path: str) -> str:
    above, _, name = path.rpartition("/")
    ending = name[name.index(".") :] if "." in name else ""
    return f"{above}/*{ending}" if above else f"*{ending}"
