"""The command line: thin over the library, with errors on one line."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from herdlm import __version__
from herdlm.base.errors import HerdError, memory_error, storage_error
from herdlm.base.processor import choice
from herdlm.cli import (
    align,
    curate,
    data,
    dryrun,
    evaluate,
    finetune,
    generate,
    grpo,
    judge,
    models,
    plan,
    planner,
    run,
    safety,
    sample,
    sandbox,
    scaling,
    select,
    serve,
    synth,
    train,
    verify,
)
from herdlm.cli.output import remark, say

app = typer.Typer(
    name="herdlm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raises a herd of Llama-class language models: raw web pages in, a served chat model out.",
)

for commands in (
    run,
    verify,
    curate,
    data,
    train,
    finetune,
    grpo,
    align,
    plan,
    planner,
    dryrun,
    scaling,
    models,
    generate,
    evaluate,
    synth,
    sample,
    judge,
    select,
    safety,
    sandbox,
    serve,
):
    app.add_typer(commands.app)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options of every command."""
    if version:
        say(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line. Exit 2 for bad input, 1 for failure, 130 when interrupted."""
    debug = "--debug" in sys.argv  # before or after the command's name
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        choice()
        app(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):  # a message, which Python prints
            raise
        _exit(end.code or 0)
    except Exception as error:
        known = storage_error(error) if isinstance(error, OSError) else memory_error(error) or error
        reported = "RANK" in os.environ and _record(error)  # the process that started this one prints it
        if not (reported or isinstance(known, HerdError)):
            raise
        if debug:
            traceback.print_exception(error)
        if not reported:
            remark(str(known))
        _exit(known.exit_code if isinstance(known, HerdError) else 1)


def _exit(code: int) -> NoReturn:
    """End this process. A rank of a group skips the interpreter's clean-up, in which gloo's threads can abort it."""
    if "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _record(error: Exception) -> bool:
    from herdlm.parallel.launcher import record_error

    return record_error(error)


if __name__ == "__main__":
    main()
