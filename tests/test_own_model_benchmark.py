"""The benchmark of a fine-tuned real model, on a tiny one: it trains by the commands, measures, and sums up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from herdlm.model.hf import save_folder
from herdlm.tokens.chat_format import generation_settings
from herdlm.tokens.tokenizer import TokenizerConfig, train_tokenizer
from tests.conftest import TEXT, small_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_the_benchmark_of_a_real_model_runs_on_a_tiny_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("own_model", None)
    import own_model

    folder = tmp_path / "model"
    save_folder(small_model(max_seq_len=512, layers=4), folder)
    tokenizer = train_tokenizer([TEXT], TokenizerConfig(vocab_size=400))
    tokenizer.save(folder)
    (folder / "generation_config.json").write_text(json.dumps(generation_settings(folder)))
    choices = tmp_path / "choices"
    choices.mkdir()
    row = {"query": "Question: which file?", "choices": ["the first", "the second"], "gold": 0}
    (choices / "piqa.jsonl").write_text((json.dumps(row) + "\n") * 20)
    arguments = [str(folder), "--work", str(tmp_path / "work"), "--share", "0.02", "--choices", str(choices)]
    result = own_model.main([*arguments, "--threads", "1", "--out", str(tmp_path / "out")])
    assert set(result["measures"]) == {"word problems", "preferences", "piqa"}
    assert {"before", "sft", "dpo", "fp8", "rows"} == set(result["measures"]["piqa"])
    assert result["measures"]["piqa"]["sft"]["difference"]["low"] <= 0 <= 1
    assert next((tmp_path / "out").glob("own-model-*.json")).is_file()
