"""The comparison page: complete, escaped and self-contained, whatever was not measured."""

from __future__ import annotations

import re
from typing import Any

import pytest

from herdlm.report.comparison_page import render_comparison_page
from tests.report.test_corpus_page import HOSTILE, Reader


def divergence(kl: float) -> dict[str, Any]:
    return {
        "kl": kl,
        "kl_p50": kl / 3,
        "kl_p99": 20 * kl,
        "kl_max": 0.7,
        "top1_agreement": 0.98125,
        "tokens": 4321,
        "original_nats": 2.0,
        "changed_nats": 2.001,
        "perplexity": {"original": 7.3891, "changed": 7.3964},
    }


def row(prompt: str, *, kl: float | None = 0.02, reward: tuple[float, float] | None = None) -> dict[str, Any]:
    return {
        "task": "copy",
        "prompt": prompt,
        "original": f"first {HOSTILE}",
        "changed": " ",
        "kl": kl,
        "reward": reward and {"original": reward[0], "changed": reward[1]},
        "right": {"original": True, "changed": False},
    }


def told() -> dict[str, Any]:
    rate = {"value": 0.5, "low": 0.4, "high": 0.6}
    return {
        "original": {"name": "flagship", "fp8": False, "parameters": 1000, "weight_bytes": 2000, "fp8_parameters": 0},
        "changed": {
            "name": "flagship-fp8",
            "fp8": True,
            "parameters": 1000,
            "weight_bytes": 1750,
            "fp8_parameters": 250,
        },
        "text": divergence(0.0012) | {"spread": {"bounds": [1e-7, 1e-3, 10.0, None], "shares": [0.1, 0.6, 0.3, 0.0]}},
        "benchmarks": {
            "too_long": 2,
            "tasks": {
                "all": {
                    "questions": 60,
                    "original": rate,
                    "changed": rate,
                    "gained": 7,
                    "lost": 9,
                    "difference": {"value": -0.0333, "low": -0.11, "high": 0.05},
                    "nats": {
                        "original": 0.8123,
                        "changed": 0.8234,
                        "difference": {"value": 0.0111, "low": 0.002, "high": 0.0202},
                    },
                }
            },
        },
        "answers": {
            "prompts": 64,
            "samples": 2,
            "temperature": 0.7,
            "same_answers": 0.875,
            "along_answers": divergence(0.0034),
            "tasks": {
                "all": {
                    "questions": 64,
                    "original": rate,
                    "changed": rate,
                    "gained": 3,
                    "lost": 5,
                    "difference": {"value": -0.03125, "low": -0.1, "high": 0.04},
                }
            },
            "reward": {
                "prompts": 63,
                "too_long": 1,
                "distribution": {
                    side: {
                        "mean": mean,
                        "standard_deviation": 1.5,
                        "quantiles": {"p1": -3.0, "p10": -2.0, "p50": 0.1, "p90": 2.0, "p99": 3.0},
                    }
                    for side, mean in (("original", 0.25), ("changed", 0.2))
                },
                "difference": {"value": -0.05, "low": -0.11, "high": 0.01},
                "histogram": {"edges": [-4.0, 0.0, 4.0], "original": [0.25, 0.75], "changed": [0.5, 0.5]},
            },
            "worst": {"by_reward": [row(f"most {HOSTILE}", reward=(1.0, -1.0))], "by_divergence": [row("apart")]},
        },
        "fit": {
            "node": {"gpus": 8, "gigabytes": 80.0, "reserve": 0.1},
            "context": 8192,
            "concurrency": 16,
            "rows": [
                {
                    "model": "405B",
                    "precision": precision,
                    "weights": weights,
                    "context": 8192,
                    "cache": 67_645_734_912,
                    "fits": fits,
                    "most_sequences": most,
                }
                for precision, weights, fits, most in (
                    ("BF16", 811_706_777_600, False, 0),
                    ("FP8", 487_198_785_536, True, 20),
                )
            ],
        },
    }


def test_every_measure_is_told() -> None:
    words = " ".join(Reader(render_comparison_page(told())).words)
    for figure in (
        "1.8 kB",
        "2.0 kB",
        "0.0012",
        "98.12%",
        "7.3891 to 7.3964",
        "0.0034",
        "87.5%",
        "25.0%",
        "0.250",
        "405B",
        "811.7 GB",
        "487.2 GB",
        "✓ fits",
        "✗ does not fit",
        "most <script>alert(1)</script>",
        "reward 1.000 to \N{MINUS SIGN}1.000".replace("\N{MINUS SIGN}", "-"),
        "1 answers are too long",
        "at temperature 0.7",
        "2 answers each",
        "✓ right",
        "✗ wrong",
        "no answer",
        "\N{MINUS SIGN}3.1 (\N{MINUS SIGN}10.0 to +4.0)",
        "3, 5",
        "7, 9",
        "0.8123",
        "2 questions are too long",
    ):
        assert figure in words, figure


@pytest.mark.parametrize(
    "drop",
    [
        ("text",),
        ("answers",),
        ("text", "answers"),
        ("benchmarks",),
        ("answers.reward",),
        ("answers.along_answers",),
        ("answers.tasks",),
    ],
    ids=" ".join,
)
def test_what_was_not_measured_is_left_out(drop: tuple[str, ...]) -> None:
    found = told()
    for path in drop:
        *above, last = path.split(".")
        table = found
        for part in above:
            table = table[part]
        table[last] = {} if last == "tasks" else None
    if "answers.reward" in drop:
        found["answers"]["worst"] = {"by_reward": [], "by_divergence": []}
    text = render_comparison_page(found)
    ids = re.findall(r'<section id="([a-z]+)"', text)
    assert ("text" in ids) == ("text" not in drop) and ("answers" in ids) == ("answers" not in drop)
    assert ("reward" in ids) == ("answers.reward" not in drop and "answers" not in drop)
    assert ("benchmarks" in ids) == ("benchmarks" not in drop)
    assert {"weights", "fit"} <= set(ids)
    if "answers.reward" in drop:
        assert "None: no prompt" in text


def test_too_few_rewards_are_told_as_such() -> None:
    found = told()
    found["answers"]["reward"] = {
        "prompts": 1,
        "too_long": 0,
        "distribution": None,
        "difference": None,
        "histogram": None,
    }
    assert "1 answers were scored, too few" in render_comparison_page(found)


def test_the_page_runs_and_loads_nothing_and_escapes_models_text() -> None:
    text = render_comparison_page(told())
    page = Reader(text)
    assert not page.tags & {"script", "iframe", "img", "link", "object"}
    assert all(link.startswith("#") for link in page.links)
    assert HOSTILE not in text and "&lt;script&gt;" in text
    assert "default-src 'none'" in text.replace("&#x27;", "'")
    assert text == render_comparison_page(told())
    for id_ in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{id_}"' in text
