"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe, such as recipes/tiny.toml.", show_default=False)]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key=value laid over the recipe; may be repeated.")]
SeedOption = Annotated[int, typer.Option(help="Same seed, same result.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ModelArgument = Annotated[Path, typer.Argument(help="A model folder, or a run (its flagship).", show_default=False)]
