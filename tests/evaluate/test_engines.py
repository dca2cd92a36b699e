"""Evaluations by several engines: the same results as by one, whatever dies on the way."""

import json
import multiprocessing
import os
import signal
import threading
import time
from itertools import chain

import pytest
import torch

from herdlm.base.errors import HerdError, InputError
from herdlm.evaluate.asking import Settings
from herdlm.evaluate.engines import EngineOptions, ManyEngines, OneEngine
from herdlm.evaluate.publish import evaluate_models
from herdlm.generate import SamplingParams
from herdlm.generate.workers import processes
from herdlm.generate.workers.pool import Pool
from herdlm.model.hf import save_folder
from tests.conftest import small_model
from tests.ray_cluster import two_nodes

ITEMS = 30
CHOICE = """
title = "Which"
about = "words"
kind = "choice"
[items]
files = ["which.jsonl"]
source = "made up"
[prompt]
text = "{{ question }}"
choices = "choices"
answer = "answer"
"""
ANSWER = """
title = "Go on"
about = "words"
kind = "answer"
[items]
files = ["which.jsonl"]
source = "made up"
[prompt]
text = "{{ question }}"
[sampling]
max_tokens = 40
temperature = 1.0
samples = 2
[judge.acc]
verifier = "regex"
reference = "'[aeiou]'"
"""


@pytest.fixture(scope="module")
def exact(tmp_path_factory, tokenizer):
    """A model folder in float64, in which no rounding decides what is drawn."""
    folder = tmp_path_factory.mktemp("models") / "exact"
    save_folder(small_model(seed=5).double(), folder, dtype=torch.float64)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Files of two tasks, and their items."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": f"The cow number {i}", "choices": ["says moo", "is away", f"eats {i}"], "answer": i % 3}
        for i in range(ITEMS)
    ]
    (folder / "which.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "choice.toml").write_text(CHOICE)
    (folder / "answer.toml").write_text(ANSWER)
    return folder


def evaluated(model, tasks, out, **options):
    names = [str(tasks / "choice.toml"), str(tasks / "answer.toml")]
    found = evaluate_models(
        [str(model)], names, [tasks], out, settings=Settings(), options=EngineOptions(**options), quiet=True
    )
    return found["exact"]


@pytest.fixture(scope="module")
def by_one(exact, tasks, tmp_path_factory):
    """What one engine in this process finds."""
    return evaluated(exact, tasks, tmp_path_factory.mktemp("one"))


def assert_same(found, expected):
    assert [result.task for result in found] == [result.task for result in expected]
    for result, other in zip(found, expected, strict=True):
        assert result.to_json() == other.to_json()
        for record, wanted in zip(result.records, other.records, strict=True):
            assert record.keys() == wanted.keys()
            for key, value in wanted.items():
                if key == "token_logprobs":
                    assert list(chain(*record[key])) == pytest.approx(list(chain(*value)), abs=1e-9)
                elif key == "logprobs":
                    assert record[key] == pytest.approx(value, abs=1e-9)
                else:
                    assert record[key] == value, key


@pytest.mark.slow
def test_several_workers_find_what_one_engine_finds_though_one_is_killed(exact, tasks, by_one, tmp_path, monkeypatch):
    killed, pools = [], []
    made = Pool.__init__
    monkeypatch.setattr(Pool, "__init__", lambda pool, workers: (pools.append(pool), made(pool, workers))[1])

    def kill_when_busy():
        while not killed:
            time.sleep(0.01)
            records = list(tmp_path.glob("out/models/exact/answer.*.jsonl"))
            children = multiprocessing.active_children()
            if records and len(records[0].read_bytes().splitlines()) > 2 and children:
                killed.append(children[0].pid)
                os.kill(children[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_when_busy, daemon=True)
    thread.start()
    found = evaluated(exact, tasks, tmp_path / "out", workers=2)
    thread.join()
    assert_same(found, by_one)
    assert [pool.deaths for pool in pools] == [1]
    assert not multiprocessing.active_children()


def test_what_a_killed_evaluation_finished_is_kept_and_workers_finish_the_rest(exact, tasks, by_one, tmp_path):
    whole = evaluated(exact, tasks, tmp_path)
    for result in whole:
        lines = result.file.read_bytes().splitlines(keepends=True)
        result.file.write_bytes(b"".join(lines[: ITEMS // 2]) + lines[ITEMS // 2][:-9])
    assert_same(evaluated(exact, tasks, tmp_path, workers=1), by_one)


def test_a_worker_may_be_a_group_of_processes(exact, tasks, by_one, tmp_path):
    assert_same(evaluated(exact, tasks, tmp_path, workers=1, tensor_parallel=2), by_one)


def test_engines_are_asked_again_and_again_and_a_run_that_was_given_up_disturbs_none(exact):
    options = EngineOptions()
    one, many = OneEngine(exact, options), ManyEngines(exact, EngineOptions(workers=1))
    try:
        assert (one.compute, one.count) == (many.compute, many.count)
        prompts = [[1, 2, 3 + i] for i in range(6)]
        params = [SamplingParams(max_tokens=4 + 9 * i, min_tokens=4 + 9 * i, seed=i, n=1 + i % 2) for i in range(6)]
        given_up = many.generate(prompts, params)
        next(given_up)
        given_up.close()
        pairs = [([1, 2, 3], [4, 5]), ([1], [7])]
        for score, expected in zip(many.score(pairs), one.score(pairs), strict=True):
            assert score.logprobs == pytest.approx(expected.logprobs, abs=1e-9)
            assert score.greedy == expected.greedy
        found, expected = dict(many.generate(prompts, params)), dict(one.generate(prompts, params))
        assert found.keys() == expected.keys() == set(range(6))
        for number, completions in expected.items():
            assert [c.text for c in found[number]] == [c.text for c in completions]
            assert [c.finish_reason for c in found[number]] == [c.finish_reason for c in completions]
        with pytest.raises(InputError, match="token"):
            many.score([([1, 2], [100_000])])
    finally:
        many.close()
        one.close()


def test_workers_that_die_at_every_start_end_the_evaluation(exact, monkeypatch):
    monkeypatch.setattr(processes, "_worker_main", _die)
    with pytest.raises(HerdError, match="died 3 times"):
        ManyEngines(exact, EngineOptions(workers=1))


def _die(*_):
    os._exit(9)


def test_a_model_that_workers_cannot_load_is_the_users_error(exact):
    with pytest.raises(InputError, match="dtype"):
        ManyEngines(exact, EngineOptions(dtype="float8", workers=1))
    with pytest.raises(InputError, match="workers"):
        ManyEngines(exact, EngineOptions(workers=0))
    assert not multiprocessing.active_children()


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_workers_on_a_cluster_find_the_same(exact, tasks, by_one, tmp_path):
    with two_nodes() as cluster:
        assert_same(evaluated(exact, tasks, tmp_path, cluster=cluster.address), by_one)
