"""The command line: thin over the library, with errors on one line."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from herdlm import __version__
from herdlm.base.errors import HerdError
from herdlm.base.processor import choice
from herdlm.cli import curate, generate, models, plan, run, serve, train
from herdlm.cli.output import say, tell

app = typer.Typer(
    name="herdlm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raises a herd of Llama-class language models: raw web pages in, a served chat model out.",
)

for commands in (run, curate, train, plan, models, generate, serve):
    app.add_typer(commands.app)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options of every command."""
    if version:
        say(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line. Exit 2 for bad input, 1 for failure, 130 when interrupted."""
    debug = "--debug" in sys.argv  # wherever it stands
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        choice()
        app(arguments)
    except HerdError as error:
        _fail(error, str(error), error.exit_code, debug)
    except OSError as error:
        from herdlm.run.worker import storage_error

        told = storage_error(error)
        _fail(error, str(told), told.exit_code, debug)


def _fail(error: BaseException, text: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    tell(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
