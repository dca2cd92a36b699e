"""Distributes the prompts of a file over workers and writes their answers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from herdlm.base.artifact import hash_file, hash_json, read_manifest
from herdlm.base.errors import HerdError, InputError
from herdlm.base.progress import Progress
from herdlm.model.folders import model_folder
from herdlm.serve.batch.answers import Answers
from herdlm.serve.batch.prompts import Options, PromptRequest, Prompts
from herdlm.serve.batch.worker import FinishedPrompt, WorkerConfig

# Samples in flight per worker: an engine's batch and as many waiting, so that the batch stays full.
SAMPLES_AHEAD = 512
MAX_DEATHS = 3  # of workers in a row, without an answer in between


class Workers(Protocol):
    """Engines in other processes, numbered from 0."""

    count: int

    def submit(self, worker: int, requests: Sequence[PromptRequest]) -> None:
        """Send prompts, possibly none, to a worker that has reported. It reports again when some are finished."""

    def poll(self) -> list[tuple[int, list[FinishedPrompt] | None]]:
        """Wait for workers to report: when they are ready, then after each round.

        None in place of answers means that the worker died with everything in flight and was replaced.

        Raises:
            HerdError: a worker cannot load the model.
        """


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of a run: prompts in total, answered by an earlier process, and failed; workers that died."""

    prompts: int
    restored: int
    failed: int
    deaths: int


def generate_batch(
    model: Path,
    prompts: Path,
    out: Path,
    *,
    options: Options | None = None,
    chat: bool = False,
    seed: int = 0,
    workers: int | None = None,
    cluster: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    quiet: bool = False,
) -> Summary:
    """Answer every prompt of a JSONL file; see docs/generate.md for the formats.

    An answer depends only on the model, the options, ``seed`` and the prompt's id, not on the workers. A killed run
    resumes when it is started again.

    Args:
        options: defaults for all lines.
        chat: treat a line's ``prompt`` as a user message.
        workers: number of engines; by default 1, or one per CPU or GPU of a cluster.
        cluster: a Ray cluster: ``auto``, ``ray://HOST:PORT`` or the head's HOST:PORT.
        tensor_parallel, pipeline_parallel: processes of one machine that share a worker's model.

    Raises:
        InputError: the model, a line, an option or the output path is invalid.
        HerdError: workers keep dying. Finished answers are kept.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}", "Give at least 1")
    folder = model_folder(model)
    with closing(Prompts(prompts, options or Options(), chat=chat)) as prompt_file:
        run = {
            "model": _fingerprint(folder),
            "prompts": prompt_file.content,
            "options": prompt_file.defaults,
            "chat": chat,
            "seed": seed,
            "dtype": dtype,
        }
        path = os.path.abspath(folder)  # noqa: PTH100 - keeps links
        config = WorkerConfig(path, device, dtype, seed, None, tensor_parallel, pipeline_parallel)
        with Answers(out, prompt_file.ids, run) as answers:
            restored, deaths = len(answers.done), 0
            if restored < len(prompt_file):
                with _open_workers(config, workers, cluster) as pool:
                    deaths = _run_prompts(pool, prompt_file, answers, quiet)
            return Summary(len(prompt_file), restored, answers.publish(), deaths)


def _open_workers(config: WorkerConfig, workers: int | None, cluster: str | None) -> AbstractContextManager[Workers]:
    if cluster is not None:
        from herdlm.serve.batch.cluster import RayWorkers

        return RayWorkers(cluster, config, workers)
    from herdlm.serve.batch.processes import ProcessWorkers

    return ProcessWorkers(config, workers or 1)


def _run_prompts(workers: Workers, prompts: Prompts, answers: Answers, quiet: bool) -> int:
    """Run until every prompt is answered; returns the number of workers that died."""
    waiting = deque(number for number in range(len(prompts)) if number not in answers.done)
    in_flight: list[dict[int, int]] = [{} for _ in range(workers.count)]  # samples of each prompt, by worker
    idle: set[int] = set()
    deaths = in_a_row = tokens = 0
    with Progress("generate", len(prompts), "prompts", quiet=quiet) as progress:
        progress.restore(len(answers.done))
        while len(answers.done) < len(prompts):
            for worker, finished in workers.poll():
                if finished is None:
                    deaths, in_a_row = deaths + 1, in_a_row + 1
                    idle.discard(worker)
                    waiting.extendleft(reversed(in_flight[worker]))
                    in_flight[worker].clear()
                    if in_a_row >= MAX_DEATHS:
                        raise HerdError(
                            f"workers died {in_a_row} times in a row without an answer",
                            "If they ran out of memory, lower --workers. Run again to resume; answers are kept",
                        )
                    continue
                for number, answer in finished:
                    del in_flight[worker][number]
                    answers.add(number, answer)
                    tokens += sum(completion["tokens"] for completion in answer.get("completions", ()))
                    in_a_row = 0
                    progress.advance(1, f"{tokens:,} tokens")
                idle.add(worker)
            for worker in sorted(idle):
                requests = _next_requests(prompts, waiting, in_flight[worker], workers.count)
                if requests or in_flight[worker]:
                    idle.remove(worker)
                    workers.submit(worker, requests)
    return deaths


def _next_requests(
    prompts: Prompts, waiting: deque[int], in_flight: dict[int, int], workers: int
) -> list[PromptRequest]:
    """Prompts for a worker: its share of the waiting ones, as far as it has room beside ``in_flight``."""
    requests: list[PromptRequest] = []
    share = -(-len(waiting) // workers)
    while waiting and len(requests) < share and sum(in_flight.values()) < SAMPLES_AHEAD:
        request = prompts.request(waiting.popleft())
        in_flight[request["number"]] = request["options"].get("best_of") or request["options"].get("n", 1)
        requests.append(request)
    return requests


def _fingerprint(folder: Path) -> str:
    """Identifies a model by its manifest, or else by the hashes of small files and size and time of large ones."""
    if manifest := read_manifest(folder):
        return manifest.content
    message: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            message[path.name] = hash_file(path)
        elif path.suffix == ".safetensors":
            message[path.name] = [path.stat().st_size, path.stat().st_mtime_ns]
    return hash_json(message)
