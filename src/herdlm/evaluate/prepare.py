"""Fields of items that take more than an expression: task files name these functions as ``items.prepare``.

Each takes an item's fields and returns further ones.
"""

from __future__ import annotations

import re
from typing import Any

JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


def arc(row: dict[str, Any]) -> dict[str, Any]:
    """ARC's question, choices and answer, of AI2's own file, the hub's columns, or query, choices and gold."""
    if "query" in row:
        asked = str(row["query"]).removeprefix("Question: ")
        return {"asked": asked, "texts": list(row["choices"]), "right": int(row["gold"])}
    question = row["question"]
    choices = question["choices"] if isinstance(question, dict) else row["choices"]
    if isinstance(choices, dict):  # columns instead of rows
        texts, labels = list(choices["text"]), list(choices["label"])
    else:
        texts, labels = [choice["text"] for choice in choices], [choice["label"] for choice in choices]
    asked = question["stem"] if isinstance(question, dict) else question
    return {"asked": asked, "texts": texts, "right": labels.index(row["answerkey"])}


def hellaswag(row: dict[str, Any]) -> dict[str, Any]:
    """HellaSwag's context and endings without the marks of its sources (Zellers et al., arXiv 1905.07830)."""
    if "endings" not in row:  # as query, choices, gold
        return {"context": row["query"], "texts": list(row["choices"]), "right": int(row["gold"])}
    second = str(row["ctx_b"]).capitalize()
    return {
        "context": _unmarked(f"{row['activity_label']}: {row['ctx_a']} {second}"),
        "texts": [_unmarked(ending) for ending in row["endings"]],
        "right": int(row["label"]),
    }


def _unmarked(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def truthfulqa(row: dict[str, Any]) -> dict[str, Any]:
    """The choices of TruthfulQA with their labels: mc1 has the best answer and the false ones, mc2 all."""
    if "mc1_targets" in row:
        return {"mc1": row["mc1_targets"], "mc2": row["mc2_targets"]}
    true, false = (_listed(row[f"{kind} answers"]) for kind in ("correct", "incorrect"))
    best = str(row["best answer"]).strip()
    return {
        "mc1": {"choices": [best, *false], "labels": [1] + [0] * len(false)},
        "mc2": {"choices": [*true, *false], "labels": [1] * len(true) + [0] * len(false)},
    }


def _listed(answers: str) -> list[str]:
    """The answers of a cell, which are divided by semicolons."""
    return [answer.strip() for answer in answers.split(";") if answer.strip()]


def svamp(row: dict[str, Any]) -> dict[str, Any]:
    """A word problem with its numbers, and its answer, of SVAMP's own file or of the training set's form."""
    if "numbers" not in row:
        question = f"{str(row['body']).strip()} {str(row['question']).strip()}"
        return {"problem": question, "result": float(row["answer"])}
    question = str(row["question"])
    for index, number in enumerate(str(row["numbers"]).split()):
        question = re.sub(rf"\bnumber{index}\b", f"{float(number):.10g}", question)
    question = re.sub(r"\s+([.,?!;:])", r"\1", question)
    return {"problem": question.strip(), "result": float(row["answer"])}


def bfcl(row: dict[str, Any]) -> dict[str, Any]:
    """The question's text, and its functions as tools in the OpenAI form with types of JSON Schema."""
    first = row["question"]
    while isinstance(first, list):
        first = first[-1]
    text = first["content"] if isinstance(first, dict) else str(first)
    return {"text": text, "described": [{"type": "function", "function": _typed(one)} for one in row["function"]]}


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: JSON_TYPES.get(item, item) if key == "type" and isinstance(item, str) else _typed(item)
            for key, item in value.items()
        }
    return [_typed(item) for item in value] if isinstance(value, list) else value
