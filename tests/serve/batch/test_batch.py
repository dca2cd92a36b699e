"""Files of prompts: the same answers by any workers, whatever dies on the way."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from herdlm.base.errors import HerdError, InputError
from herdlm.base.seeds import derive_seed
from herdlm.cli.app import main
from herdlm.generate import SamplingParams
from herdlm.generate.workers import processes
from herdlm.generate.workers.worker import WorkerConfig
from herdlm.serve.batch.prompts import Options
from herdlm.serve.batch.run import Summary, generate_batch
from herdlm.serve.batch.worker import EngineWorker
from herdlm.serve.workers.model_text import LoadedModel
from tests.serve.batch.conftest import mixed

DEFAULTS = Options(max_tokens=12, temperature=1.0)


class Here:
    """One worker, in this process."""

    count = 1

    def __init__(self, config, *_):
        self.worker, self.reports = EngineWorker(config), [[]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, worker, requests):
        self.reports.append(self.worker.work(json.loads(json.dumps(requests))))

    def poll(self):
        return [(0, self.reports.pop(0))]


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(processes, "ProcessWorkers", Here)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_are_those_of_the_engine_in_the_order_of_the_prompts(exact, write, tmp_path, here):
    prompts, out = write([*mixed(12), {"prompt": "no id"}]), tmp_path / "answers.jsonl"
    summary = generate_batch(exact, prompts, out, options=DEFAULTS, seed=4, quiet=True)
    assert summary == Summary(prompts=13, restored=0, failed=0, deaths=0)
    finished = lines(out)
    assert [answer["id"] for answer in finished] == [*(f"p{i}" for i in range(12)), 13]
    model = LoadedModel.load(exact)
    params = SamplingParams(max_tokens=12, seed=derive_seed(4, "batch", "p1"), n=2, stop_tokens=model.stop_tokens)
    messages = [{"role": "system", "content": "moo"}, {"role": "user", "content": "how are you"}]
    expected = model.engine.generate([model.chat_prompt(messages)], params)[0]
    assert finished[1]["completions"] == [
        {"text": c.text, "finish_reason": c.finish_reason, "tokens": len(c.tokens)} for c in expected
    ]
    scored = finished[2]
    assert len(scored["prompt_logprobs"]) == len(scored["prompt_top_logprobs"]) == scored["prompt_tokens"] - 1
    (completion,) = scored["completions"]
    assert len(completion["logprobs"]) == len(completion["top_logprobs"]) >= completion["tokens"]
    assert re.fullmatch("[a-f]{1,9}", finished[3]["completions"][0]["text"])
    assert len(finished[4]["completions"]) == 1
    assert not (tmp_path / "answers.jsonl.part").exists()
    with pytest.raises(InputError, match="exists"):
        generate_batch(exact, prompts, out, options=DEFAULTS, seed=4, quiet=True)


def staggered(count):
    return [{"prompt": f"cow {i}", "max_tokens": 20 + 4 * i, "min_tokens": 20 + 4 * i} for i in range(count)]


@pytest.fixture
def undisturbed(exact, write, tmp_path, monkeypatch):
    """Prompts, and what one engine in one process answers."""
    prompts = write([*staggered(24), *mixed(12)])
    with monkeypatch.context() as patch:
        patch.setattr(processes, "ProcessWorkers", Here)
        generate_batch(exact, prompts, tmp_path / "undisturbed", seed=3, quiet=True)
    return prompts, (tmp_path / "undisturbed").read_bytes()


@pytest.mark.slow
def test_with_several_workers_of_which_one_is_killed_nothing_is_lost_doubled_or_changed(exact, undisturbed, tmp_path):
    prompts, expected = undisturbed
    killed = []

    def kill_when_busy():
        part = tmp_path / "out.part"
        while not killed:
            time.sleep(0.02)
            children = multiprocessing.active_children()
            if part.exists() and len(part.read_bytes().splitlines()) > 2 and children:
                killed.append(children[0].pid)
                os.kill(children[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_when_busy, daemon=True)
    thread.start()
    summary = generate_batch(exact, prompts, tmp_path / "out", seed=3, workers=2, quiet=True)
    thread.join()
    assert summary == Summary(prompts=36, restored=0, failed=0, deaths=1)
    assert (tmp_path / "out").read_bytes() == expected


def test_a_worker_may_be_a_group_of_processes_that_ends_with_it(exact, write, tmp_path, here, monkeypatch):
    prompts = write(mixed(12))
    generate_batch(exact, prompts, tmp_path / "one", seed=3, quiet=True)
    monkeypatch.undo()
    generate_batch(exact, prompts, tmp_path / "two", seed=3, tensor_parallel=2, quiet=True)
    for finished, expected in zip(lines(tmp_path / "two"), lines(tmp_path / "one"), strict=True):
        assert json.dumps(rounded(finished)) == json.dumps(rounded(expected))
    until = time.monotonic() + 60
    while of_model(exact):
        assert time.monotonic() < until
        time.sleep(0.1)
    with pytest.raises(InputError, match=r"heads = 4 .* tensor_parallel = 3"):
        generate_batch(exact, prompts, tmp_path / "three", tensor_parallel=3, quiet=True)


def rounded(value):
    """An answer without the last digits of its log-probabilities, which depend on the order of sums."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 9) if isinstance(value, float) else value


def of_model(folder):
    """Processes that were started with a part of the model in ``folder``."""
    finished = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            finished += [process.name] if b"herdlm.generate.processes" in command and bytes(folder) in command else []
    return finished


def test_groups_of_processes_take_gpus_of_their_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 5)
    config = WorkerConfig("model", "auto", "auto", 0, None, tensor_parallel=2)
    assert [processes._device(config, i) for i in range(4)] == ["cuda:0", "cuda:2", "cuda:0", "cuda:2"]
    assert [processes._device(replace(config, tensor_parallel=1), i) for i in (1, 6)] == ["cuda:1", "cuda:1"]
    assert processes._device(replace(config, device="cpu"), 3) == "cpu"


@pytest.mark.slow
def test_a_run_of_the_command_line_that_was_killed_goes_on_where_it_stopped(exact, undisturbed, tmp_path):
    (prompts, expected), out, part = undisturbed, tmp_path / "out", tmp_path / "out.part"
    command = [
        sys.executable,
        "-m",
        "herdlm.cli",
        "generate",
        str(exact),
        "--batch",
        str(prompts),
        "--out",
        str(out),
        "--seed",
        "3",
        "--max-tokens",
        "256",
        "--temperature",
        "1",
        "--json",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (part.exists() and len(part.read_bytes().splitlines()) > 3):
        time.sleep(0.02)
        assert process.poll() is None
    process.kill()
    process.wait()
    kept = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(kept[:-1]) + kept[-1][:-7])  # as if the last line had been under way
    message = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(message.stdout) == {"prompts": 36, "restored": len(kept) - 2, "failed": 0, "deaths": 0}
    assert out.read_bytes() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "a", "--batch", "b"], "either --prompt or --batch"),
        ([], "either --prompt or --batch"),
        (["--batch", "b"], "--out"),
        (["--prompt", "a", "--workers", "2"], "--batch"),
    ],
)
def test_options_of_the_command_line_that_do_not_go_together_are_refused(options, message, exact, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["herdlm", "generate", str(exact), *options])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_part_of_another_run_or_of_something_else_is_refused(exact, write, tmp_path, monkeypatch):
    prompts, out = write(mixed(3)), tmp_path / "out"
    part = tmp_path / "out.part"

    def fail(*_):
        raise HerdError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("herdlm.serve.batch.run._run_prompts", fail)
        with pytest.raises(HerdError, match="stopped"):
            generate_batch(exact, prompts, out, seed=1, quiet=True)
    begun = part.read_bytes()
    with pytest.raises(InputError, match="differs in options, seed"):
        generate_batch(exact, prompts, out, seed=2, options=DEFAULTS, quiet=True)
    write(mixed(4))
    with pytest.raises(InputError, match="differs in prompts"):
        generate_batch(exact, prompts, out, seed=1, quiet=True)
    assert part.read_bytes() == begun
    part.write_text("dear diary\n")
    with pytest.raises(InputError, match="not an unfinished file"):
        generate_batch(exact, prompts, out, quiet=True)
    assert part.read_text() == "dear diary\n"


def test_a_prompt_that_cannot_be_answered_is_told_in_its_place(exact, write, tmp_path, here):
    prompts = write([{"prompt": "fine"}, {"prompt": "cow " * 300}, {"prompt": "b", "logit_bias": {"500": 1.0}}])
    summary = generate_batch(exact, prompts, tmp_path / "out", options=DEFAULTS, quiet=True)
    fine, long, biased = lines(tmp_path / "out")
    assert summary.failed == 2
    assert fine["completions"]
    assert "context" in long["error"]
    assert "logit_bias" in biased["error"]
    assert "completions" not in long


def test_workers_that_die_at_every_start_end_the_run(exact, write, tmp_path, monkeypatch):
    monkeypatch.setattr(processes._Worker, "__init__", _stillborn)
    with pytest.raises(HerdError, match="died 3 times"):
        generate_batch(exact, write(mixed(3)), tmp_path / "out", quiet=True)


def _stillborn(self, *_):
    context = multiprocessing.get_context("spawn")
    self.connection, theirs = context.Pipe()
    self.process = context.Process(target=os._exit, args=(9,), daemon=True)
    self.process.start()
    theirs.close()


def test_a_model_that_cannot_be_loaded_is_the_users_error(exact, write, tmp_path):
    with pytest.raises(InputError, match="dtype"):
        generate_batch(exact, write(mixed(3)), tmp_path / "out", dtype="float8", quiet=True)
    with pytest.raises(InputError, match="workers"):
        generate_batch(exact, write(mixed(3)), tmp_path / "out", workers=0, quiet=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", "temprature": 1}', r":2: temprature: Extra inputs"),
        ('{"prompt": "a"', ":2: the line: Invalid JSON"),
        (
            '{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}',
            ":2: the line: .*either prompt or messages",
        ),
        ("{}", ":2: the line: .*either prompt or messages"),
        ('{"messages": [{"role": "owner", "content": "b"}]}', ":2: messages.0.role"),
        ('{"prompt": "a", "id": "first"}', ':2: id "first" is also on line 1'),
        ('{"prompt": "a", "top_p": 0.0}', ":2: top_p = 0.0"),
        ('{"prompt": "a", "n": "2"}', ":2: n: Input should be a valid integer"),
        ('{"prompt": "a", "logit_bias": {"cow": 1}}', ":2: logit_bias"),
        ('{"prompt": "a", "grammar": {"regex": "["}}', ":2: the regular expression"),
        ('{"prompt": "a", "grammar": {"regex": "a", "lark": "b"}}', ":2: grammar: .*give exactly one of"),
        ('{"prompt": "a", "grammar": {"json_schema": {"not": {}}}}', ":2: the JSON schema"),
    ],
)
def test_wrong_lines_are_refused_by_file_and_line_before_anything_starts(line, message, exact, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fine", "id": "first"}\n' + line + "\n")
    with pytest.raises(InputError, match=re.escape(str(path)) + message):
        generate_batch(exact, path, tmp_path / "out", quiet=True)
    assert list(tmp_path.iterdir()) == [path]
