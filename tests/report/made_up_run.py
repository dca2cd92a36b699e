"""A finished run with made-up numbers: every stage of a recipe's plan with the files and manifest it would write."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from herdlm.base.artifact import VOLATILE, InputEntry, publish, read_manifest
from herdlm.recipe import Recipe
from herdlm.run.pipeline import stages_of
from herdlm.run.stage import Context, Stage
from tests.report import made_up_evaluation

TOML = """
name = "made-up_run"
seed = 7
[data]
sources = ["secret-folder/crawl.warc.gz"]
[tokenizer]
vocab_size = 512
[herd]
small = "small"
ladder = ["l1", "l2", "l3"]
max_seq_len = 128
[herd.models]
l1 = { dim = 16, layers = 2, heads = 2, kv_heads = 1, ffn_dim = 32 }
l2 = { dim = 24, layers = 2, heads = 2, kv_heads = 1, ffn_dim = 48 }
l3 = { dim = 32, layers = 2, heads = 2, kv_heads = 1, ffn_dim = 64 }
small = { dim = 32, layers = 3, heads = 2, kv_heads = 1, ffn_dim = 64 }
flagship = { dim = 48, layers = 4, heads = 2, kv_heads = 1, ffn_dim = 96 }
[pretrain]
seq_len = 64
rows_per_step = 4
steps = 300
mix = [{ source = "web", share = 1.0 }]
anneal_mix = [{ source = "web-anneal", share = 1.0 }]
train = { peak_lr = 5e-3, anneal_steps = 50 }
[align]
rounds = 2
seed_sft = { seq_len = 64, rows_per_step = 4, epochs = 1, train = { peak_lr = 1e-3 } }
sft = { seq_len = 64, rows_per_step = 4, epochs = 1, train = { peak_lr = 1e-3 } }
preferences = { prompts = 100 }
reward = { seq_len = 64, pairs_per_step = 4, train = { peak_lr = 1e-3 } }
rejection = { prompts = 100 }
dpo = { seq_len = 64, pairs_per_step = 4, train = { peak_lr = 1e-3 } }
quality = { quality = false }
gate = { prompts = 20 }
average = { sft = false }
teach = { answers = { prompts = 100 } }
[quantize]
[evaluate]
tasks = ["arc_easy"]
data = ["secret-folder/arc-easy.jsonl"]
[experiments]
control_sft = true
small_control = true
ablations = ["reward", "dpo", "averaging"]
dpo_nll = { peak_lr = 1e-3 }
"""

HOSTILE = "</td></style><script>alert('x')</script><img src=x onerror=alert(1)> \x00\x1b[31m \u202eevil \"&amp;"

# Shares of questions a model gets right; a question is harder or easier for all of them alike.
ABILITY = {
    "pretrain-flagship": 0.0,
    "seeds-sft": 0.40,
    "round-1-sft": 0.45,
    "round-1-dpo": 0.45,
    "round-1-gate": 0.40,
    "round-2-sft": 0.55,
    "round-2-dpo": 0.56,
    "round-2-gate": 0.56,
    "without-reward-dpo": 0.42,
    "control-sft": 0.45,
    "dpo-with-nll": 0.44,
    "dpo-without-nll": 0.20,
    "pretrain-small": 0.0,
    "small-control": 0.30,
    "small-taught": 0.38,
    "flagship-bf16": 0.56,
    "flagship-fp8": 0.56,
}
FUNNEL = {
    "input": {"files": 1, "file_bytes": 5000, "documents": 100, "bytes": 90_000},
    "steps": [
        {
            "step": "extract",
            "documents_in": 100,
            "documents_dropped": 10,
            "documents_out": 90,
            "bytes_in": 90_000,
            "bytes_out": 40_000,
            "bytes_dropped": 9000,
            "bytes_removed": 41_000,
            "dropped": {"no_text": {"documents": 10, "bytes": 9000}},
        },
        {
            "step": "heuristics",
            "documents_in": 90,
            "documents_dropped": 30,
            "documents_out": 60,
            "bytes_in": 40_000,
            "bytes_out": 30_000,
            "bytes_dropped": 10_000,
            "dropped": {
                "too_few_words": {"documents": 20, "bytes": 4000},
                "<b>odd</b>": {"documents": 10, "bytes": 6000},
            },
        },
    ],
    "output": {"documents": 60, "bytes": 30_000, "words": 5000},
    "languages": {
        "de": {"documents": 10, "bytes": 6000, "words": 900},
        "en": {"documents": 50, "bytes": 24_000, "words": 4100},
    },
}


@dataclass(slots=True)
class MadeUpRun:
    """Builds stages; ``change`` may rewrite a stage's files before it is sealed and returns its counts."""

    root: Path
    recipe: Recipe
    change: dict[str, Callable[[Path, dict[str, Any]], None]] = field(default_factory=dict)
    seconds: float = 2.0

    def build(self) -> Context:
        stages = stages_of(self.recipe)
        for stage in stages[:-1]:
            self._make(stage)
        out, work = self.root / "out", self.root / "work"
        out.mkdir(exist_ok=True)
        inputs = {role: self.folder(name) for role, name in stages[-1].inputs.items()}
        return Context(stages[-1], self.recipe, inputs, out, work, quiet=True)

    def folder(self, stage: str) -> Path:
        return self.root / "stages" / stage

    def _make(self, stage: Stage) -> None:
        out = self.root / "making"
        out.mkdir(parents=True)
        counts = _contents(stage, self.recipe, out)
        if stage.name in self.change:
            self.change[stage.name](out, counts)
        inputs = {}
        for role, name in stage.inputs.items():
            manifest = read_manifest(self.folder(name))
            assert manifest is not None
            inputs[role] = InputEntry(path=f"stages/{name}", content=manifest.content)
        for path in stage.files:
            inputs[path] = InputEntry(path=path, content=hashlib.sha256(path.encode()).hexdigest())
        publish(
            out,
            self.folder(stage.name),
            kind=stage.kind,
            stage=stage.name,
            fingerprint=stage.name,
            inputs=inputs,
            recipe=stage.settings,
            seeds={},
            counts=counts,
            seconds=self.seconds,
            code={"herdlm": "0"},
            volatile=VOLATILE,
        )


def _contents(stage: Stage, recipe: Recipe, out: Path) -> dict[str, Any]:
    kind = stage.name.split("-")[0]
    if stage.name == "curate":
        _dump(out / "funnel.json", FUNNEL)
        return FUNNEL
    if stage.name == "tokenizer":
        return {"vocab_size": 512}
    if stage.name == "tokens":
        return {"web": {"documents": 55, "tokens": 9000, "target_tokens": 8945, "bytes_per_token": 3.1}}
    if kind == "pretrain":
        shape = recipe.model_config_of(stage.name.removeprefix("pretrain-"))
        loss = 12 * shape.body_parameters**-0.1
        counts = {
            "parameters": shape.parameters,
            "body_parameters": shape.body_parameters,
            "trained_tokens": 76_800,
            "steps": 300,
            "validation_nats_per_token": loss,
            "validation_bits_per_byte": loss / 2,
        }
        _dump(out / "training.json", counts)
        _log(out, 300, lambda s: {"loss": loss + 3 * math.exp(-s / 40), "lr": 1e-3 * (1 - s / 300), "grad_norm": 1.0})
        return counts
    if kind == "forecast":
        return _forecast(recipe, out)
    if kind == "examine":
        _answers(out, stage.name.removeprefix("examine-"))
        return {"questions": 140, "validation": {"nats_per_token": 4.0, "bits_per_byte": 2.5, "tokens": 100}}
    if stage.name == "benchmarks":
        _dump(out / "results.json", made_up_evaluation.results())
        return {}
    if stage.name == "flagship-fp8":
        return {"parameters": 1000, "parameters_fp8": 250, "share_fp8": 0.25, "bytes_before": 2000, "bytes_after": 1750}
    if kind == "compare":
        text = {"kl": 0.0009, "kl_p99": 0.0123, "top1_agreement": 0.975, "tokens": 400}
        reward = {"difference": {"value": -0.125, "low": -0.25, "high": 0.0625}}
        _dump(out / "comparison.json", {"text": text, "answers": {"reward": reward}})
        return text
    if stage.name.endswith("-preferences"):
        return {"right_share": 0.4, "pairs": 90, "held_out_pairs": 10, "edits": 6}
    if stage.name.endswith("-reward"):
        return {
            "pairs": 90,
            "held_out_pairs": 10,
            "train_accuracy": [0.9, 0.82, 0.95],
            "held_out_accuracy": [0.7, 0.39, 0.9] if "1" in stage.name else [0.9, 0.6, 0.98],
        }
    if stage.name.endswith("-select"):
        return {"prompts": 100, "kept": 50}
    if stage.name.endswith("-quality"):
        return {"given": 50, "kept": 45, "dropped": 5, "steps": []}
    if stage.name.endswith("-gate"):
        promoted = None if "1" in stage.name else "average with the model before"
        reason = f"{'promoted' if promoted else 'refused'}, dpo: +1.0 points [-2.0, +4.0]"
        return {"promoted": promoted, "reason": reason, "scores": {"incumbent": 0.4, "dpo": 0.41}, "prompts": 20}
    if "dpo" in stage.name or "sft" in stage.name or stage.name in ("small-taught", "small-control"):
        _dump(out / "training.json", {"steps": 20})
        _log(out, 20, lambda s: {"loss": 1 / s, "chosen_drift": -0.1 * s, "rejected_drift": -0.2 * s})
        return {"steps": 20}
    return {}


def _forecast(recipe: Recipe, out: Path) -> dict[str, Any]:
    axes = ("parameters", "body_parameters")
    shapes = {name: recipe.model_config_of(name) for name in recipe.herd.ladder}
    flagship = recipe.model_config_of("flagship")
    told: dict[str, Any] = {"axis": "body_parameters", "flagship": {a: getattr(flagship, a) for a in axes}}
    told["ladder"] = {
        name: {a: getattr(shape, a) for a in axes} | {"loss": 12 * shape.body_parameters**-0.1}
        for name, shape in shapes.items()
    }
    for axis in axes:
        told[axis] = {"factor": 12.5, "exponent": -0.1, "forecast": 12.5 * getattr(flagship, axis) ** -0.1}
    told["forecast"] = told["body_parameters"]["forecast"]
    _dump(out / "forecast.json", told)
    return {"axis": told["axis"], "forecast": told["forecast"]}


def _answers(out: Path, model: str) -> None:
    rng = np.random.Generator(np.random.PCG64(1))  # the same questions, as hard as they are, for every model
    rows = []
    for number in range(140):
        hardness, noise = rng.random(), rng.random(len(ABILITY))[list(ABILITY).index(model)]
        right = bool(hardness < ABILITY[model]) != bool(noise < 0.02 and model != "flagship-fp8")
        if model in ("flagship-bf16", "flagship-fp8"):
            right = bool(hardness < ABILITY[model])
        prompt = f"Question {number} {HOSTILE}" if number == 1 else f"Question {number}"
        given = HOSTILE if number in (1, 2) else ("so" if right else "")
        task = ("copy", "sort", "<i>odd</i>")[number % 3]
        rows.append({"task": task, "prompt": prompt, "answer": "so", "given": given, "right": right})
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "answers.jsonl").write_text(text, encoding="utf-8")


def _log(out: Path, steps: int, values: Callable[[int], dict[str, float]]) -> None:
    lines = [json.dumps({"time": 0.0, "kind": "step", "step": s, **values(s)}) for s in range(1, steps + 1)]
    (out / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
