"""`herdlm quantize`: writes a model in FP8 as an artifact that records its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from herdlm.base.progress import Progress
from herdlm.base.standalone import input_folder, standalone
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.model.hf import read_config


def quantize(model: Path, out: Path, config: Fp8Config, *, quiet: bool = False) -> dict[str, Any]:
    """Write the FP8 model artifact ``out`` from the model folder ``model``; returns its counts.

    Raises:
        InputError: ``out`` exists, or ``model`` holds no model, a quantized one, or one with too few layers.
        DamagedError: a file is missing or damaged, or a weight is not finite.
        HerdError: the disk is full.
    """
    parameters = read_config(model).parameters
    settings, inputs = config.model_dump(mode="json"), {"model": input_folder(model)}
    with (
        standalone(out, kind="model", name="quantize", settings=settings, inputs=inputs, seed=0) as (made, _, counts),
        Progress("quantize", parameters, "parameters", quiet=quiet) as progress,
    ):
        counts.update(quantize_folder(model, made, config, progress=progress.advance))
    return counts
