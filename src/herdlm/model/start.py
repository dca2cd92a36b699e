"""The model that a training starts from: a folder's, or that of a LoRA adapter with its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from herdlm.base.errors import InputError
from herdlm.model import adapter_folder
from herdlm.model.adapter_folder import load_adapter
from herdlm.model.config import ModelConfig
from herdlm.model.folders import model_folder
from herdlm.model.hf import load_for_training, read_config
from herdlm.model.lora import merge_lora
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.model.weights import read_json


@dataclass(frozen=True, slots=True)
class Start:
    """A model folder, with the adapter to merge into it, if any.

    Attributes:
        path: what the user named: the folder, or the adapter's.
        folder: of the (base) model.
        tokenizer: the folder with the tokenizer.
        head: of the model with its adapter.
    """

    path: Path
    folder: Path
    adapter: Path | None
    tokenizer: Path
    shape: ModelConfig
    head: Literal["lm", "score"]

    def load(self, device: torch.device | str = "cpu", *, merge: bool = True) -> Transformer:
        """The model in FP32, with the adapter merged, or beside the base's weights.

        Raises:
            InputError, DamagedError: the weights cannot be read, or the adapter does not fit.
        """
        model = load_for_training(self.folder, device)
        if self.adapter is None:
            return model
        if self.head != self.shape.head:
            model = reward_model_from(model, seed=0)
        load_adapter(model, self.adapter)
        return merge_lora(model) if merge else model


def is_adapter(path: Path) -> bool:
    """Whether ``path`` holds a LoRA adapter and no whole model."""
    return (path / adapter_folder.CONFIG).is_file() and not (path / "config.json").is_file()


def open_start(path: Path) -> Start:
    """The model that ``path`` means: a model folder, a run (its flagship), or a LoRA adapter.

    Raises:
        InputError: there is no model, it is quantized or of an unknown kind, or an adapter's base is not at hand.
        DamagedError: a file cannot be read.
    """
    if not is_adapter(path):
        folder = model_folder(path)
        shape = read_config(folder)
        return Start(path, folder, None, folder, shape, shape.head)
    config = read_json(path / adapter_folder.CONFIG)
    named = config.get("base_model_name_or_path")
    if not (isinstance(named, str) and Path(named).is_dir()):
        raise InputError(
            f"{path} is a LoRA adapter of {named!r}, which is no folder here",
            f"Write its folder as base_model_name_or_path into {path / adapter_folder.CONFIG}",
        )
    folder = model_folder(Path(named))
    own_tokenizer = (path / "tokenizer.json").is_file()
    shape = read_config(folder)
    head: Literal["lm", "score"] = "score" if config.get("task_type") == "SEQ_CLS" else shape.head
    return Start(path, folder, path, path if own_tokenizer else folder, shape, head)


def reward_model_from(policy: Transformer, seed: int) -> Transformer:
    """A reward model with the policy's body and a new head."""
    config = policy.config.model_copy(update={"head": "score", "tied_embeddings": False})
    model = build(config, next(policy.parameters()).device)
    initialize(model, seed)
    model.model.load_state_dict(policy.model.state_dict())
    return model
