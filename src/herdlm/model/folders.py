"""Finds the model folder that a path means: the path itself, or a run's flagship."""

from __future__ import annotations

import os
from pathlib import Path

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import read_object

CONFIG = "config.json"  # marks a Hugging Face model; repeated here, so that the server process does not import torch
ADAPTER = "adapter_config.json"  # marks an adapter alone
EITHER = f"Give a model folder (it holds {CONFIG}) or the folder of a finished run"


def model_folder(path: Path) -> Path:
    """The model folder that ``path`` means: itself, or the flagship of a run.

    Raises:
        InputError: there is no model.
        DamagedError: the run's recipe.json cannot be read.
    """
    if (path / CONFIG).is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path} is a file" if path.exists() else f"{path} does not exist", EITHER)
    recipe = path / "recipe.json"
    if recipe.is_file():
        flagship = path / "models" / _flagship_name(recipe)
        if not (flagship / CONFIG).is_file():
            raise InputError(
                f"the run {path} has no flagship yet: looked for {flagship / CONFIG}",
                "Run its recipe to the end with the same --out, or name another model folder",
            )
        return flagship
    inside = sorted(folder.name for folder in path.iterdir() if (folder / CONFIG).is_file())
    if inside:
        raise InputError(f"{path} holds several models", f"Name one: {', '.join(str(path / name) for name in inside)}")
    if (path / ADAPTER).is_file():
        raise InputError(
            f"{path} is an adapter without its model",
            "Fine-tune with --merge, which writes a whole model, and name that",
        )
    raise InputError(f"{path} is neither a model nor a run: it has no {CONFIG} and no recipe.json", EITHER)


def model_name(folder: Path) -> str:
    """A model's name: that of its folder. A run's ``models/flagship`` is "flagship", whatever it links to."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100 - Path.resolve would follow the link


def _flagship_name(recipe: Path) -> str:
    try:
        name = read_object(recipe, "Run the recipe again with the same --out, or name a model folder")["herd"][
            "flagship"
        ]
    except (KeyError, TypeError) as error:
        raise DamagedError(
            f"{recipe} does not name herd.flagship ({error!r})",
            "Run the recipe again with the same --out, or name a model folder",
        ) from error
    if not isinstance(name, str) or Path(name).name != name:
        raise DamagedError(f"{recipe}: herd.flagship is {name!r}", "Run the recipe again with the same --out")
    return name
