"""Open Assistant's message trees: ranked answers to each prompt, and replies to them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from herdlm.data.formats.form import Form, Record
from herdlm.data.messages import ROLE_OF, Messages, text
from herdlm.data.row import Row, kind_of
from herdlm.data.tools import json_value

Node = dict[str, Any]
DEPTH = 500  # messages from the first to the last


def _root(row: Row) -> Node:
    root = json_value(row, "prompt", row.get("prompt"))
    row.used |= {"message_tree_id", "tree_state"}
    if not isinstance(root, dict):
        raise row.error("prompt", f"it is {kind_of(root)}, not a message", 'Write {"text": ..., "replies": [...]}')
    return root


def _message(row: Row, key: str, node: Node) -> dict[str, Any]:
    role = ROLE_OF.get(str(node.get("role")))
    if role not in ("user", "assistant"):
        raise row.error(f"{key}.role", f"role {node.get('role')!r} is unknown", "Use prompter or assistant")
    return {"role": role, "content": text(row, f"{key}.text", node.get("text"))}


def _replies(row: Row, key: str, node: Node) -> list[tuple[str, Node]]:
    """The replies that reviewers did not delete or refuse, best first where they have ranks."""
    listed = node.get("replies") or []
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise row.error(f"{key}.replies", "it is not a list of messages", 'Write [{"text": ..., "role": ...}]')
    kept = [
        (f"{key}.replies[{index}]", item)
        for index, item in enumerate(listed)
        if not item.get("deleted") and item.get("review_result") is not False
    ]
    return sorted(kept, key=lambda entry: (_rank(row, *entry) is None, _rank(row, *entry) or 0))


def _rank(row: Row, key: str, node: Node) -> float | None:
    rank = node.get("rank")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int | float)):
        raise row.error(f"{key}.rank", f"it is {kind_of(rank)}, not a number", "Write 0 for the best answer")
    return rank


def best_path(row: Row) -> list[Record]:
    """The dialog that follows the best answer, and the best reply to it, down to the last answer."""
    key, node = "prompt", _root(row)
    path: Messages = []
    while True:
        path.append(_message(row, key, node))
        replies = _replies(row, key, node)
        if not replies:
            break
        key, node = replies[0]
    while path and path[-1]["role"] != "assistant":
        path.pop()
    return [{"messages": path}] if path else []


def ranked_pairs(row: Row) -> list[Record]:
    """Every two answers to one message of which one has the better rank."""
    return list(_pairs(row, "prompt", _root(row), []))


def _pairs(row: Row, key: str, node: Node, before: Messages) -> Iterator[Record]:
    if len(before) > DEPTH:
        raise row.error(key, f"the tree is deeper than {DEPTH} messages", "Cut it")
    path = [*before, _message(row, key, node)]
    replies = _replies(row, key, node)
    ranked = [entry for entry in replies if _rank(row, *entry) is not None]
    for better, worse in combinations(ranked, 2):
        if _rank(row, *better) != _rank(row, *worse):
            answers = [[_message(row, *entry)] for entry in (better, worse)]
            if all(answer[0]["role"] == "assistant" for answer in answers):
                yield {"prompt": path, "chosen": answers[0], "rejected": answers[1]}
    for place, reply in replies:
        yield from _pairs(row, place, reply, path)


def _is_tree(row: Row) -> bool:
    prompt = row.value.get("prompt")
    whole = isinstance(prompt, dict) or (isinstance(prompt, str) and prompt.startswith("{"))
    return "message_tree_id" in row and whole


TREES = Form(
    "message trees (Open Assistant)",
    ("message_tree_id", "prompt"),
    _is_tree,
    {"preferences": ranked_pairs, "dialogs": best_path},
)
FLAT_TREES = Form(
    "single messages of trees (Open Assistant)",
    ("message_id", "parent_id", "text", "role"),
    lambda row: all(key in row.seen for key in ("message_id", "parent_id", "text", "role")),
    refusal="each row is one message of a tree; give the file of trees, in which replies are inside",
)
