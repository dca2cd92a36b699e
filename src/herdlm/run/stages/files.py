"""Stages on the user's own files: read dialogs, preferences and prompts; sample answers, and keep the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from herdlm.align.bank.answers import sample_texts
from herdlm.align.config import RejectionConfig
from herdlm.align.rejection import best_of_prompts
from herdlm.align.reward import answered, scores_of_fitting
from herdlm.align.reward_workers import open_reward_model
from herdlm.base.json_lines import read_json_lines, write_json_lines
from herdlm.base.seeds import derive_seed, stream
from herdlm.data.formats.form import Record
from herdlm.data.read import read_dialogs, read_preferences, read_prompts
from herdlm.data.source import parse_source
from herdlm.data.useless import digest
from herdlm.evaluate.engines import open_engines
from herdlm.run.stage import Context
from herdlm.tokens.chat_format import ChatFormat


def read_stage(context: Context) -> dict[str, Any]:
    """Read the recipe's files; a share of the prompts is held out with all that answers them."""
    assert context.recipe.align and context.recipe.align.data
    config = context.recipe.align.data
    format = ChatFormat.load(context.inputs["model"])
    seed = context.seed("held out")
    counts: dict[str, Any] = {}

    def read(name: str, reader: Callable[..., Any], files: Sequence[str], prompt: Callable[[Record], Any]) -> None:
        if not files:
            return
        records, found = reader([parse_source(file) for file in files], chat_format=format, seed=seed)
        held_out = [_is_held_out(prompt(record), seed, config.held_out_percent) for record in records]
        kept = [record for record, held in zip(records, held_out, strict=True) if not held]
        write_json_lines(context.out / f"{name}.jsonl", kept)
        if name != "prompts":
            rest = [record for record, held in zip(records, held_out, strict=True) if held]
            write_json_lines(context.out / f"held_out_{name}.jsonl", rest)
        counts[name] = {**found.as_json(), "training": len(kept), "held_out": len(records) - len(kept)}

    read("dialogs", read_dialogs, config.dialogs, _prompt_of_dialog)
    read("pairs", read_preferences, config.preferences, lambda record: record["prompt"])
    read("prompts", read_prompts, config.prompts or config.dialogs, lambda record: record["prompt"])
    return counts


def samples_stage(context: Context) -> dict[str, Any]:
    """Sample several answers of the current model to prompts, for rejection sampling."""
    config = RejectionConfig.model_validate(context.stage.settings["rejection"])
    prompts = read_json_lines(context.inputs["files"] / "prompts.jsonl")
    order = stream(context.seed("prompts"), "prompts").permutation(len(prompts))[: config.prompts]
    asked = [prompts[number] for number in order]
    with closing(open_engines(context.inputs["model"], context.engines)) as engines:
        answers = sample_texts(
            engines,
            ChatFormat.load(context.inputs["model"]),
            [(row["prompt"], row.get("tools")) for row in asked],
            samples=config.samples,
            temperature=config.temperature,
            max_tokens=config.max_answer_tokens,
            seed=context.seed("sampling"),
            title=context.stage.name,
        )
    rows = [{**row, "samples": given} for row, given in zip(asked, answers, strict=True)]
    write_json_lines(context.out / "samples.jsonl", rows)
    return {"prompts": len(rows), "samples": sum(len(given) for given in answers)}


def select_stage(context: Context) -> dict[str, Any]:
    """Keep the samples that the reward model likes best."""
    config = RejectionConfig.model_validate(context.stage.settings["rejection"])
    rows = read_json_lines(context.inputs["samples"] / "samples.jsonl")
    format = ChatFormat.load(context.inputs["reward"])
    distinct = [(number, answer) for number, row in enumerate(rows) for answer in sorted(set(row["samples"]))]
    dialogs = [
        answered(format, [*rows[n]["prompt"], {"role": "assistant", "content": answer}], rows[n].get("tools"))
        for n, answer in distinct
    ]
    with open_reward_model(context.inputs["reward"], context.engines) as model:
        found = scores_of_fitting(
            model, dialogs, seq_len=context.stage.settings["reward_seq_len"], title=context.stage.name
        )
    scores = dict(zip(distinct, found, strict=True))
    rewards = [[scores[number, answer] for answer in row["samples"]] for number, row in enumerate(rows)]
    kept, counts = best_of_prompts(rows, rewards, config, source=context.stage.options["source"])
    write_json_lines(context.out / "kept.jsonl", kept)
    return counts


def _prompt_of_dialog(dialog: Record) -> Any:
    said = dialog["messages"]
    last = max(number for number, message in enumerate(said) if message["role"] == "assistant")
    return said[:last]


def _is_held_out(prompt: Any, seed: int, percent: float) -> bool:
    return derive_seed(seed, digest(prompt).hex()) % 1_000_000 < percent * 10_000
