"""Compares verifiers with the published checkers: IFEval's of the lm-evaluation-harness, and BFCL's.

    pip install 'herdlm[evaluate]' 'lm-eval[ifeval]' bfcl-eval
    python benchmarks/verifiers.py ifeval ANSWERS.jsonl
    python benchmarks/verifiers.py bfcl QUESTIONS.jsonl POSSIBLE_ANSWERS.jsonl

ANSWERS has rows with ``answer``, ``instruction_id_list`` and ``kwargs``. The harness downloads NLTK's punkt_tab, or
finds it in NLTK_DATA. QUESTIONS and POSSIBLE_ANSWERS are the leaderboard's files for Python functions. Each possible
answer is judged as it is and with errors that are put into it. Both print the number of verdicts and how many are
equal.
"""

from __future__ import annotations

import copy
import json
import logging
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from herdlm.base.json_lines import read_json_lines
from herdlm.verifiers.call import FunctionCall
from herdlm.verifiers.ifeval import IFEval

MODEL = "gpt-4o-2024-11-20"  # any that bfcl-eval knows and whose functions keep their dots
Calls = list[tuple[str, dict[str, Any]]]


def compare_ifeval(path: Path) -> Counter[str]:
    """Strict and loose verdicts on each instruction, without those whose letter to count is none."""
    import langdetect
    from lm_eval.tasks.ifeval import utils

    langdetect.DetectorFactory.seed = 0  # without it, the checker's verdicts vary
    logging.disable(logging.ERROR)
    verifier, counts = IFEval(), Counter[str]()
    for row in read_json_lines(path):
        asked = utils.InputExample(0, row["instruction_id_list"], "", row["kwargs"])
        ours = verifier(row["answer"], row).details
        for kind in ("strict", "loose"):
            judge = getattr(utils, f"test_instruction_following_{kind}")
            theirs = judge(asked, row["answer"]).follow_instruction_list
            for mine, other, options in zip(ours[kind], theirs, row["kwargs"], strict=True):
                if options.get("letter", "a").isalpha():
                    counts["verdicts"] += 1
                    counts["equal"] += mine == other
                    counts["passed"] += other
    return counts


def compare_bfcl(questions: Path, possible: Path) -> Counter[str]:
    """Verdicts on possible answers and on those with an error."""
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
    from bfcl_eval.model_handler.utils import default_decode_ast_prompting

    draw = random.Random(0)
    truths = {row["id"]: row["ground_truth"] for row in read_json_lines(possible)}
    verifier, counts = FunctionCall(), Counter[str]()
    for row in read_json_lines(questions):
        truth, category = truths[row["id"]], row["id"].rpartition("_")[0]
        right = [_possible(call, draw) for call in truth]
        for calls in (right, *(_with_error(right, kind, draw) for kind in KINDS)):
            answer = f"[{', '.join(map(_written, calls))}]"
            decoded = default_decode_ast_prompting(answer)
            judged = ast_checker(row["function"], decoded, truth, Language.PYTHON, category, MODEL)
            mine = verifier(answer, {"function": row["function"], "ground_truth": truth}).passed
            counts["verdicts"] += 1
            counts["equal"] += mine == judged["valid"]
            counts["passed"] += judged["valid"]
            counts["possible answers passed"] += calls is right and mine
    return counts


def _possible(call: dict[str, Any], draw: random.Random) -> tuple[str, dict[str, Any]]:
    """One of the possible forms of a call."""
    ((name, parameters),) = call.items()
    values = {key: [value for value in given if value != ""] for key, given in parameters.items()}
    return name, {key: _concrete(draw.choice(given), draw) for key, given in values.items() if given}


def _concrete(value: Any, draw: random.Random) -> Any:
    """A value in which objects have one of the possible values for each key."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [_concrete(item, draw) for item in value]
    if isinstance(value, dict) and all(isinstance(given, list) for given in value.values()):
        chosen = {key: [one for one in given if one != ""] for key, given in value.items()}
        return {key: draw.choice(given) for key, given in chosen.items() if given}
    return value


KINDS = ("name", "missing", "extra", "fewer", "more", "value", "type", "style")


def _with_error(calls: Calls, kind: str, draw: random.Random) -> Calls:
    """A copy of calls, of which one is changed."""
    changed = copy.deepcopy(calls)
    at = draw.randrange(len(changed))
    name, arguments = changed[at]
    if kind == "name":
        changed[at] = (f"{name}_", arguments)
    elif kind == "fewer":
        changed.pop(at)
    elif kind == "more":
        changed.append(changed[at])
    elif kind == "extra":
        arguments["surplus"] = 1
    elif arguments:
        key = draw.choice(list(arguments))
        value = arguments.pop(key)
        if kind != "missing":
            arguments[key] = _changed(value, kind, draw)
    return changed


def _changed(value: Any, kind: str, draw: random.Random) -> Any:
    if kind == "type":
        return draw.choice(["5", 5, 5.5, True, [value], {"x": value}, None, str(value), (value,)])
    if isinstance(value, str):
        return (
            f"{value} other" if kind == "value" else draw.choice([value.upper(), value.replace(" ", ""), f"{value}."])
        )
    if isinstance(value, list):
        return value[:-1] if kind == "value" else draw.choice([tuple(value), value[::-1]])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if kind == "value" else float(value)
    return {**value, "surplus": 1} if isinstance(value, dict) else value


def _written(call: tuple[str, dict[str, Any]]) -> str:
    return f"{call[0]}({', '.join(f'{key}={value!r}' for key, value in call[1].items())})"


def main() -> None:
    """Compare, and print the counts."""
    what, *paths = sys.argv[1:]
    counts = {"ifeval": compare_ifeval, "bfcl": compare_bfcl}[what](*map(Path, paths))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
