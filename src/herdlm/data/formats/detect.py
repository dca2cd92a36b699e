"""Finds a row's form. The list is in order: what is special comes before what is general."""

from __future__ import annotations

import difflib

from herdlm.data.formats import chats, marked, pairs, problems, trees
from herdlm.data.formats.form import Form, Kind, Record, has
from herdlm.data.messages import text
from herdlm.data.row import Row, RowError

CHOICES = Form(
    "multiple choice",
    ("question", "choices", "answer"),
    lambda row: "choices" in row or "context_options" in row,
    refusal="questions with choices are not trained on; measure with them: herdlm compare --benchmarks FILE",
)
CONTINUATION = Form(
    "context and continuation",
    ("context", "continuation"),
    has("context", "continuation"),
    refusal="a text with its last word is a benchmark; for training on it, write one text in a key text",
)


def _documents(row: Row) -> list[Record]:
    return [{"text": text(row, "text", row.get("text"))}]


TEXT = Form("documents", ("text",), has("text"), {"text": _documents})
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
FORMS = (
    trees.TREES,
    trees.FLAT_TREES,
    CHOICES,
    CONTINUATION,
    pairs.OPENAI,
    *pairs.COMPARISONS,
    pairs.LIST_PAIRS,
    problems.IFEVAL,
    problems.PROGRAMS,
    problems.SVAMP,
    pairs.PAIRS,
    pairs.RANKED,
    problems.GSM8K,
    problems.TRUTHS,
    problems.TESTED,
    chats.BAD_LABEL,
    chats.THUMBS,
    chats.MESSAGES,
    chats.SHAREGPT,
    chats.CONVERSATION,
    chats.TURNS,
    chats.SEEDS,
    chats.CALLS,
    marked.CHAT_TEXT,
    marked.HUMAN_TEXT,
    problems.CHECKABLE,
    chats.ALPACA,
    chats.ANSWERED,
    chats.PROMPT,
    TEXT,
)


def form_of(row: Row) -> Form | None:
    """The form of a row, or None."""
    return next((form for form in FORMS if form.fits(row)), None)


def known_form(row: Row) -> Form:
    """The form of a row.

    Raises:
        RowError: it has none, or one that cannot be used.
    """
    form = form_of(row)
    if form is None:
        raise _unknown(row)
    if form.refusal:
        raise row.error("", form.refusal, "Leave the file out")
    for key in MEDIA:
        if row.value.get(key):
            raise row.error(key, "the row has more than text", "Only text can be learned; delete the row")
    return form


def _unknown(row: Row) -> RowError:
    """An error that lists the keys seen, and the form that shares most of them, or whose keys look most like them."""
    lowered = [key.lower() for key in row.seen]

    def likeness(form: Form) -> float:
        near = [max((difflib.SequenceMatcher(None, key, k).ratio() for k in lowered), default=0.0) for key in form.keys]
        return sum(near) / len(near)

    nearest = max((form for form in FORMS if form.makes), key=likeness)
    seen = ", ".join(row.seen[:12]) + (", ..." if len(row.seen) > 12 else "") if row.seen else "none"
    wanted = ", ".join(nearest.keys)
    return row.error(
        "",
        f"the form is not known; keys seen: {seen}",
        f"The nearest known form is {nearest.name}, with the keys {wanted}; rename columns with "
        f"--map {nearest.keys[0]}=COLUMN",
    )


def convert(row: Row, form: Form, kind: Kind) -> list[Record]:
    """What a row of a form gives of one kind.

    Prompts can be made of every kind: what stands before the (last) answer. A pair gives two thumbs, up for the chosen
    answer and down for the rejected one.

    Raises:
        RowError: the row is damaged, or its form does not give this kind.
    """
    if make := form.makes.get(kind):
        return make(row)
    if kind == "prompts" and (own := next(iter(form.makes))) != "text":
        return [_prompt(record) for record in form.makes[own](row)]
    if kind == "thumbs" and (pairs := form.makes.get("preferences")):
        return [_thumb(pair, side) for pair in pairs(row) for side in ("chosen", "rejected")]
    gives = " or ".join(form.makes)
    raise row.error(
        "", f"its form is {form.name}, which gives {gives}, not {kind}", _REMEDY.get(next(iter(form.makes)), "")
    )


def _prompt(record: Record) -> Record:
    """The prompt of a dialog, a pair or a rated answer."""
    kept: Record = {key: record[key] for key in ("tools", "task", "source") if key in record}
    if "messages" not in record:
        return {"prompt": record["prompt"], **kept}
    said = record["messages"]
    last = max((n for n, message in enumerate(said) if message["role"] == "assistant"), default=len(said))
    return {"prompt": said[:last], **kept}


def _thumb(pair: Record, side: str) -> Record:
    kept: Record = {"tools": pair["tools"]} if "tools" in pair else {}
    return {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen", **kept}


_REMEDY: dict[Kind, str] = {
    "dialogs": "Give it to a command that trains on dialogs, such as herdlm sft",
    "preferences": "Give it to a command that trains on pairs, such as herdlm dpo or herdlm reward",
    "thumbs": "Give it to a command that trains on thumbs: herdlm dpo with a KTO loss",
    "prompts": "Name the column of answers: --map completion=COLUMN; or sample answers to the prompts",
    "text": "Turn documents into tokens with herdlm tokenize",
}
