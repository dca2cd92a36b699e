"""The help of every command: whole sentences, an example that parses, and no wait for heavy libraries."""

import shlex
import subprocess
import sys

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from herdlm.cli.app import app

ROOT = get_command(app)


def commands(group=ROOT, path=()):
    """(words, command) of every command below ``group``; groups have no example of their own."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_ends_with_an_example_that_parses_to_this_command(path):
    shown = CliRunner().invoke(app, [*path, "--help"]).output
    _, _, text = shown.partition(" Example:\n\n")
    assert text, f"{path} has no example"
    assert all(len(line) < 80 for line in text.splitlines())
    line = text.strip().replace("\\\n", "")
    program, *words = shlex.split(line.partition(" > ")[0])
    assert program == "herdlm"
    context, group = click.Context(ROOT), ROOT
    for name in path:
        found, command, words = group.resolve_command(context, words)
        assert found == name
        group = command
    context = group.make_context(path[-1], words, parent=context)
    assert context.params


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_is_whole_sentences(path):
    command = ALL[path]
    texts = [command.help, *(option.help for option in command.params)]
    for text in texts:
        assert text, f"an option of {path} has no help"
        assert text[0].isupper(), text
        assert text.rstrip().endswith("."), text


def test_the_command_line_answers_without_heavy_libraries():
    code = "import sys, herdlm.cli.app; print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
