"""Stages that export, quantize, examine and compare models."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import torch

from herdlm.align.samples.rows import SampledRow
from herdlm.base.json_lines import write_json_lines
from herdlm.compare.compare import headline, write_comparison
from herdlm.compare.data import ComparisonData
from herdlm.compare.measure import AnswerSampling
from herdlm.evaluate.intervals import pass_rate
from herdlm.evaluate.perplexity import text_loss
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.generate.load import load_model
from herdlm.model.hf import load_folder, save_folder
from herdlm.run.stage import Context
from herdlm.run.stages.answers import answered_greedily
from herdlm.run.stages.rounds import held_out_prompts
from herdlm.tokens.chat_format import ChatFormat, generation_settings
from herdlm.train.save import copy_tokenizer

MAX_ANSWER_TOKENS = 32
COMPARED_QUESTIONS, COMPARED_ROWS = 256, 1024


def export_stage(context: Context) -> dict[str, Any]:
    """Export a finished model in BF16 as a Hugging Face folder."""
    model = load_folder(context.inputs["model"])
    save_folder(model, context.out, dtype=torch.bfloat16, generation=generation_settings(context.inputs["model"]))
    copy_tokenizer(context.inputs["model"], context.out)
    return {"parameters": model.config.parameters}


def quantize_stage(context: Context) -> dict[str, Any]:
    """Quantize the flagship's feed-forward matrices to FP8."""
    config = Fp8Config.model_validate(context.stage.settings["quantize"])
    return quantize_folder(context.inputs["model"], context.out, config)


def examine_stage(context: Context) -> dict[str, Any]:
    """Have a model answer the held-out prompts greedily, and measure its loss on held-out text if there is any."""
    settings, folder = context.stage.settings, context.inputs["model"]
    rows = held_out_prompts(context.inputs, "exam")
    answered = answered_greedily(context, folder, rows, settings["max_answer_tokens"], "answers") if rows else []
    answers = [_examined(row) for row in answered]
    write_json_lines(context.out / "answers.jsonl", answers)
    by_task: dict[str, list[bool]] = defaultdict(list)
    for row in answers:
        by_task[row["task"]].append(row["right"])
    counts: dict[str, Any] = {"questions": len(answers)}
    if answers:
        counts["pass_rate"] = asdict(pass_rate([row["right"] for row in answers]))
        counts["tasks"] = {task: round(sum(right) / len(right), 4) for task, right in sorted(by_task.items())}
    if "tokens" in context.inputs:
        text = context.inputs["tokens"] / "web-validation"
        model = load_model(folder, context.device, torch.float32)
        loss = text_loss(model, text, seq_len=settings["seq_len"], pad=ChatFormat.load(folder).pad)
        counts["validation"] = asdict(loss)
    return counts


def _examined(row: SampledRow) -> dict[str, Any]:
    """An answered prompt as a line of answers.jsonl."""
    sample = row["samples"][0]
    return {
        "task": row.get("task", ""),
        "prompt": str(row["prompt"][-1].get("content", "")),
        "answer": _expected(row),
        "given": sample["answer"],
        "right": sample["verdict"]["passed"],
        "reason": sample["verdict"]["reason"],
    }


def _expected(row: SampledRow) -> str:
    """The right answer as a reader sees it: the row's, or what its verifier asks for."""
    if "answer" in row:
        return str(row["answer"])
    parts = {key: value for key, value in row.items() if key in ("instruction_id_list", "tests", "reference")}
    return json.dumps(parts, ensure_ascii=False)


def compare_stage(context: Context) -> dict[str, Any]:
    """Compare the FP8 flagship with the BF16 one on held-out text, and on questions and rewards if the run has them."""
    inputs = context.inputs
    result = write_comparison(
        context.out,
        context.work,
        inputs["original"],
        inputs["changed"],
        ComparisonData(
            inputs["tokens"] / "web-validation",
            inputs["bank"] / "held_out.jsonl" if "bank" in inputs else None,
            inputs.get("reward"),
        ),
        sampling=AnswerSampling(max_tokens=MAX_ANSWER_TOKENS),
        prompts=COMPARED_QUESTIONS,
        rows=COMPARED_ROWS,
        seq_len=context.stage.settings["seq_len"],
        device=context.device,
        quiet=context.quiet,
    )
    return headline(result)
