"""The command that compares files with their recorded hashes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import DamagedError
from herdlm.cli.options import JsonOption, example
from herdlm.cli.output import remark, say, say_json

app = typer.Typer()


@app.command(**example("herdlm verify runs/tiny"))
def verify(
    path: Annotated[Path, typer.Argument(help="A run, an artifact such as RUN/models/flagship, or a checkpoint.")],
    json_: JsonOption = False,
) -> None:
    """Compare every file of a run, an artifact or a checkpoint with its recorded hash. Exit 2 if one differs."""
    from herdlm.run.verify import verify_path

    found = verify_path(path)
    if json_:
        say_json(asdict(found))
    else:
        for line in found.notes:
            remark(line)
        for line in found.damage:
            say(line)
    if found.damage:
        many = "" if len(found.damage) == 1 else f" and {len(found.damage) - 1} more"
        raise DamagedError(f"{path} is damaged: {found.damage[0]}{many}", "Make what is damaged again")
    if not json_:
        say(
            f"{found.files} files ({found.bytes:,} bytes) of {found.artifacts} artifacts and {found.checkpoints} "
            "checkpoints are as they were written"
        )
