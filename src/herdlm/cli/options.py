"""Options and arguments that several commands share, and the example that each command's help ends with."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from herdlm.base.errors import InputError

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe, such as recipes/tiny.toml.", show_default=False)]
ModelArgument = Annotated[
    Path, typer.Argument(help="A model folder, or a run, which means its flagship.", show_default=False)
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the recipe: key=value. May be repeated.")
]
TokensOption = Annotated[Path, typer.Option(help="The folder of token shards, as the tokens stage writes it.")]
TokenizerOption = Annotated[Path, typer.Option(help="The tokenizer's folder.")]
SeedOption = Annotated[int, typer.Option(help="Seed of all randomness: the same seed gives the same result.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Hide progress.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")]
DtypeOption = Annotated[str, typer.Option(help="Precision of the weights: auto, float32, bfloat16 or float16.")]
TensorParallelOption = Annotated[int, typer.Option(min=1, help="Processes that share each layer.")]
PipelineParallelOption = Annotated[int, typer.Option(min=1, help="Pipeline stages, each in a process of its own.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="Sampling temperature; 0 is greedy.")]
TopPOption = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Sample from the likeliest tokens with this total probability.")
]
TemplateOption = Annotated[
    str | None, typer.Option(help="A chat template in place of the model's: a Jinja file, llama3 or chatml.")
]
MapOption = Annotated[list[str] | None, typer.Option("--map", help="Rename columns first: messages=chat,prompt=frage.")]
ProcessesOption = Annotated[int, typer.Option(min=1, help="Start this many processes on this machine.")]
HeldOutOption = Annotated[
    list[str] | None, typer.Option(help="A further held-out shard to measure on: NAME=FOLDER. May be repeated.")
]


class ExampleCommand(TyperCommand):
    """A command whose help ends with its epilog, an example, line by line as it is written.

    typer would fold the lines, or put blank lines between them, by its version. Neither could be pasted into a shell.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the example."""
        text, self.epilog = self.epilog, None
        super().format_help(ctx, formatter)
        self.epilog = text
        shown = f" Example:\n\n{indent(text or '', '  ')}\n"
        if formatter.buffer:
            formatter.write(f"\n{shown}")
        else:
            typer.echo(shown)  # typer has printed the rest through rich


def example(*lines: str) -> dict[str, Any]:
    """The options of a command's decorator that end its help with an example: one command on several ``lines``."""
    return {"cls": ExampleCommand, "epilog": " \\\n  ".join(lines)}


def without_option(arguments: list[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept


def api_key(path: Path | None) -> str:
    """The API key in a file, or else in the environment.

    Raises:
        InputError: the file cannot be read, or is empty.
    """
    from herdlm.base.openai_api import environment_key

    if path is None:
        return environment_key()
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Give a file that holds the key alone") from error
    if not key:
        raise InputError(f"{path} is empty", "Give a file that holds the key alone")
    return key
