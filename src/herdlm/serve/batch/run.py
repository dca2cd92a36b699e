"""Distributes the prompts of a file over workers and writes their answers."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herdlm.base.artifact import hash_file, hash_json, read_manifest
from herdlm.base.errors import InputError
from herdlm.base.progress import Progress
from herdlm.generate.workers.pool import Pool, Workers, open_workers
from herdlm.generate.workers.worker import WorkerConfig
from herdlm.model.folders import model_folder
from herdlm.serve.batch.answers import Answers
from herdlm.serve.batch.prompts import Options, PromptRequest, Prompts
from herdlm.serve.batch.worker import EngineWorker


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
                with open_workers(config, EngineWorker, workers=workers, cluster=cluster) as opened:
                    deaths = _run_prompts(opened, prompt_file, answers, quiet)
            return Summary(len(prompt_file), restored, answers.publish(), deaths)


def _run_prompts(workers: Workers, prompts: Prompts, answers: Answers, quiet: bool) -> int:
    """Run until every prompt is answered; returns the number of workers that died."""
    waiting = [number for number in range(len(prompts)) if number not in answers.done]
    pool, tokens = Pool(workers), 0

    def request(number: int) -> tuple[PromptRequest, int]:
        made = prompts.request(number)
        return made, made["options"].get("best_of") or made["options"].get("n", 1)

    with Progress("generate", len(prompts), "prompts", quiet=quiet) as progress:
        progress.restore(len(answers.done))
        for number, answer in pool.run(waiting, request):
            answers.add(number, answer)
            tokens += sum(completion["tokens"] for completion in answer.get("completions", ()))
            progress.advance(1, f"{tokens:,} tokens")
    return pool.deaths


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
