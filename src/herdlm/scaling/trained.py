"""Models that sweeps train: each once, in a folder named by a hash of what it is made from, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from herdlm.base.artifact import hash_json, read_manifest, verify
from herdlm.base.standalone import input_folder
from herdlm.pretrain.job import PretrainJob
from herdlm.pretrain.pretrain import pretrain


def folder_of(job: PretrainJob, runs: Path, inputs: Mapping[str, str]) -> Path:
    """The folder below ``runs`` of the model that ``job`` makes from inputs with these content hashes."""
    pretraining = job.pretrain.model_dump(mode="json")
    pretraining["train"].pop("checkpoint_every_steps")
    start = {} if job.start is None else {"start": input_folder(job.start).content}
    key = hash_json(
        {
            "model": job.model.model_dump(mode="json"),
            "pretrain": pretraining,
            "code": job.code(),
            "seed": job.seed,
            "inputs": dict(inputs),
            "compute": {"device": job.device, "threads_per_stage": job.threads},
        }
        | start
    )
    return runs / f"{job.name}-{key[:16]}"


def trained_once(
    job: PretrainJob, *, tokens: Path, tokenizer: Path, runs: Path, inputs: Mapping[str, str]
) -> tuple[Path, str]:
    """Train a model unless its folder exists; returns the folder and its content hash.

    Raises:
        ClaimedError: another process trains it.
        DamagedError: the folder exists, but is not whole.
    """
    folder = folder_of(job, runs, inputs)
    manifest = read_manifest(folder)
    if manifest is None:
        runs.mkdir(parents=True, exist_ok=True)
        pretrain(job, tokens=tokens, tokenizer=tokenizer, out=folder)
        manifest = read_manifest(folder)
    assert manifest is not None
    verify(folder, manifest)
    return folder, manifest.content
