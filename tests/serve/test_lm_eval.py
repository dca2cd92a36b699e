"""lm-eval's ``local-completions`` against a running server: log-likelihoods and generations of a task of our own."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from herdlm.generate import SamplingParams
from tests.serve.api.test_sampling_options import forward

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed"),
]

CHOICE = """
task: which_word
dataset_path: json
dataset_kwargs: {data_files: {test: QUESTIONS}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
CONTINUE = """
task: go_on
dataset_path: json
dataset_kwargs: {data_files: {test: QUESTIONS}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, temperature: 0.0}
metric_list: [{metric: exact_match}]
"""
QUESTIONS = [
    {"question": "The package", "choices": ["manager", "server"], "answer": 0},
    {"question": "Each server keeps", "choices": ["a log", "the archive"], "answer": 0},
    {"question": "When the disk", "choices": ["sleeps", "is full"], "answer": 1},
]


@pytest.mark.parametrize("backend", ["remote", "huggingface"])
def test_it_runs_and_its_numbers_are_those_of_a_forward_pass(server, folder, engine_apart, tmp_path, backend):
    begin = [server.text.tokenizer.special("<|begin_of_text|>")]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, task in (("which_word", CHOICE), ("go_on", CONTINUE)):
        (tasks / f"{name}.yaml").write_text(task.replace("QUESTIONS", str(questions)))
    arguments = {
        "model": "flagship",
        "base_url": f"{server.url}/completions",
        "tokenizer": str(folder),
        "max_length": 256,
        "tokenizer_backend": backend,
        "num_concurrent": 2,
    }
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "--model",
        "local-completions",
        "--tasks",
        "which_word,go_on",
        "--model_args",
        ",".join(f"{k}={v}" for k, v in arguments.items()),
        "--include_path",
        str(tasks),
        "--output_path",
        str(tmp_path / "out"),
        "--log_samples",
    ]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert run.returncode == 0, run.stderr[-3000:]

    text = server.text
    told = samples(tmp_path, "which_word")
    for i, question in enumerate(QUESTIONS):
        likelihoods = []
        for choice, (value, greedy) in zip(question["choices"], told[i], strict=True):
            # With a remote tokenizer lm-eval puts the begin-of-text token first, with one of its own it does not.
            before = begin if backend == "remote" else []
            context = before + text.tokenizer.encode(question["question"])
            tokens = before + text.tokenizer.encode(f"{question['question']} {choice}")
            expected = forward(server, tokens)
            chosen = [float(expected[at - 1, tokens[at]]) for at in range(len(context), len(tokens))]
            assert value == pytest.approx(sum(chosen), abs=1e-4)
            best = [int(expected[at - 1].argmax()) == tokens[at] for at in range(len(context), len(tokens))]
            assert greedy == all(best)
            likelihoods.append(value)
        assert len(set(likelihoods)) == 2
    went_on = samples(tmp_path, "go_on")
    for i, question in enumerate(QUESTIONS):
        params = SamplingParams(max_tokens=8, temperature=0, stop=("\n",), stop_tokens=text.stop_tokens)
        prompts = [before + text.tokenizer.encode(question["question"]) for before in (begin, [])]
        expected = [completions[0].text for completions in engine_apart.generate(prompts, params)]
        assert went_on[i][0] == expected[0 if backend == "remote" else 1]


def samples(folder, task):
    (path,) = (folder / "out").rglob(f"samples_{task}_*.jsonl")
    rows = {row["doc_id"]: row for row in map(json.loads, path.read_text().splitlines())}
    return [
        [
            (float(r[0]), str(r[1]) == "True") if isinstance(r, list) and len(r) == 2 else r
            for r in rows[i]["filtered_resps"]
        ]
        for i in sorted(rows)
    ]
