"""A made-up evaluation of two models on three tasks, with text that wants to be markup."""

from __future__ import annotations

import random
from typing import Any

HOSTILE = "</script><script>window.ran=1</script><img src=x onerror='window.ran=2'><b>bold</b>"
STRANGE = "\u202eright to left\u200f \x00\x1b[31m\x85 \ud800 \u2028 😀 \\u003c `${x}` \" '"
MODELS = ("first", "runs/second <i>")


def choice_record(number: int, picked: int, *, group: str | None = None) -> dict[str, Any]:
    right = number % 2
    logprobs = [-3.25, -2.5]
    logprobs[picked] = -0.125
    passed = picked == right
    examples = "Two examples.\n\nQuestion: one?\nAnswer: yes\n\nQuestion: two?\nAnswer: no\n\n"
    return {
        "id": number,
        "prompt": f"{examples}Question: {number}, is it odd?\nAnswer:",
        "choices": [" even it is", " odd it is"],
        "expected": right,
        "answer": picked,
        "logprobs": logprobs,
        "token_logprobs": [[value] for value in logprobs],
        "tokens": [3, 3],
        "values": {"acc": float(passed)},
        "passed": passed,
        "reason": "the right choice is the likeliest" if passed else "another choice is likelier",
        **({"group": group} if group else {}),
    }


def answer_record(number: int, passed: bool, text: str, prompt: str = "How many?") -> dict[str, Any]:
    return {
        "id": number,
        "prompt": prompt,
        "answers": [text],
        "expected": str(number),
        "logprobs": [-12.5],
        "tokens": [41],
        "finish": ["stop" if passed else "length"],
        "values": {"exact": float(passed)},
        "passed": passed,
        "reason": "the numbers are equal" if passed else "the numbers differ",
        "details": {"exact": [{"found": str(number)}]},
    }


def text_record(number: int, nats: float) -> dict[str, Any]:
    return {
        "id": number,
        "prompt": "A whole text. " * 200,
        "logprobs": [-nats],
        "tokens": [100],
        "values": {},
        "ratios": {"word_perplexity": [nats, 100.0]},
        "passed": None,
        "reason": "",
    }


def records(items: int = 120) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The first model is right on 3 of 4 choices, the second on half of them, in groups by tens."""
    names = ("<biology>", "chemistry & physics")
    said = {
        model: [choice_record(n, n % 2 if n % every else 1 - n % 2, group=names[n >= items // 2]) for n in range(items)]
        for model, every in zip(MODELS, (4, 2), strict=True)
    }
    answers = {
        MODELS[0]: [
            answer_record(0, True, "It is 0."),
            answer_record(1, True, HOSTILE, prompt=HOSTILE),
            answer_record(2, False, STRANGE, prompt=STRANGE),
            answer_record(3, False, "word " * 500),
        ],
        MODELS[1]: [
            answer_record(n, n == 0, f"Perhaps {n}.", prompt=f"[user] {HOSTILE if n == 1 else 'How many?'}")
            for n in range(4)
        ],
    }
    texts = {model: [text_record(n, 200.0 + n + shift) for n in range(3)] for shift, model in enumerate(MODELS)}
    return {"odd_even": said, "counting": answers, "web": texts}


def results() -> dict[str, Any]:
    """What results.json holds."""

    def figures(value: float) -> dict[str, float | None]:
        return {"value": value, "low": value - 0.0525, "high": value + 0.0525}

    def tasks(share: float, perplexity: float) -> dict[str, Any]:
        groups = {name: {"acc": figures(share)} for name in ("<biology>", "chemistry & physics")}
        return {
            "odd_even": {"n": 120, "acc": figures(share), "groups": groups},
            "counting": {"n": 4, "exact": {"value": share, "low": None, "high": None}},
            "web": {"n": 3, "word_perplexity": figures(perplexity)},
        }

    def comparison(task: str, metric: str, value: float, shown: str) -> dict[str, Any]:
        return {
            "task": task,
            "metric": metric,
            "before": MODELS[0],
            "after": MODELS[1],
            "n": 120,
            "difference": {"value": value, "low": value - 0.0625, "high": value + 0.0625},
            "shown": shown,
            "sentence": f"a sentence about {task} and {MODELS[1]}",
        }

    head = {"model": "a1" * 32, "task": "b2" * 32, "data": "c3" * 32, "chat": False, "shots": 2}
    return {
        "date": "2026-02-03",
        "versions": {"herdlm": "9.8.7", "torch": "6.5.4"},
        "settings": {"shots": 2, "chat": None, "limit": None, "seed": 77, "samples": None, "max_tokens": None},
        "models": [{"model": MODELS[0], "tasks": tasks(0.75, 7.5125)}, {"model": MODELS[1], "tasks": tasks(0.5, 7.25)}],
        "comparisons": [
            comparison("odd_even", "acc", -0.25, "worse"),
            comparison("counting", "exact", -0.01, "nothing"),
            comparison("web", "word_perplexity", -0.2625, "better"),
        ],
        "lower_is_better": ["word_perplexity"],
        "ratios": ["word_perplexity"],
        "evaluations": {
            model: {task: head | {"file": f"models/{n}/{task}.jsonl"} for task in records(2)}
            for n, model in enumerate(MODELS)
        },
    }


TITLES = {"odd_even": "Odd or even", "counting": "Counting", "web": "Text of the web"}


def many(items: int, models: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """One task of many items, each model right on other ones."""
    found = {}
    for model in range(models):
        rng = random.Random(model)
        found[MODELS[model]] = [
            choice_record(number, rng.randrange(2), group=f"{number % 57}") for number in range(items)
        ]
    return {"odd_even": found}
