"""Commands of the sandbox: what isolation this machine has, and running programs for other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdlm.base.errors import HerdError, InputError
from herdlm.cli.options import JsonOption, example
from herdlm.cli.output import remark, say, say_json

app = typer.Typer()
sandbox = typer.Typer(no_args_is_help=True, help="Check and serve the sandbox for programs that models write.")
app.add_typer(sandbox, name="sandbox")
IsolationOption = Annotated[
    str, typer.Option(help="Isolation: auto, namespaces, bubblewrap, nsjail, systemd-run, podman or docker.")
]
ImageOption = Annotated[
    str | None, typer.Option(help="The image of podman or docker; by default Python's official one.")
]


@sandbox.command(**example("herdlm sandbox check --isolation bubblewrap"))
def check(isolation: IsolationOption = "auto", image: ImageOption = None, json_: JsonOption = False) -> None:
    """Print which isolation works here and what it gives, and run the attack set against it."""
    from herdlm.sandbox.check import layers, run_attacks, scene
    from herdlm.sandbox.isolation import REMOTE, UNPROTECTED
    from herdlm.sandbox.sandbox import open_sandbox

    if isolation == UNPROTECTED:
        raise InputError("attacks would reach this machine", "Check an isolation")
    if isolation.startswith(REMOTE):
        raise InputError("attacks must run on the machine that they aim at", "Run `herdlm sandbox check` there")
    outcomes = []
    with scene() as made, open_sandbox(isolation, workers=1, image=image) as opened:
        given = layers(opened)
        if not json_:
            for name, value in given.items():
                say(f"{name}: {value}")
        for outcome in run_attacks(opened, made):
            outcomes.append(outcome)
            if not json_:
                result = f"GOT OUT: {outcome.escaped}" if outcome.escaped else "contained"
                say(f"{outcome.attack.kind:<10}  {outcome.attack.name:<55}  {outcome.status:<8}  {result}")
    escaped = [outcome for outcome in outcomes if outcome.escaped]
    if json_:
        rows = [
            {"kind": o.attack.kind, "name": o.attack.name, "status": o.status, "escaped": o.escaped} for o in outcomes
        ]
        say_json({"layers": given, "attacks": rows})
    else:
        say(f"{len(outcomes) - len(escaped)} of {len(outcomes)} attacks contained")
    if escaped:
        raise HerdError(
            f"{len(escaped)} attacks got out of {given['isolation']}", "Use another isolation: docs/sandbox.md"
        )


@sandbox.command(**example("herdlm sandbox serve --key-file sandbox.key --port 8123"))
def serve(
    key_file: Annotated[
        Path, typer.Option(help="A file with the key that clients give, of 16 characters or more.", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8123,
    isolation: IsolationOption = "auto",
    image: ImageOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time; by default one per processor.")
    ] = None,
) -> None:
    """Run programs for other machines, whose sandbox has this one's address as its isolation."""
    from herdlm.sandbox.isolation import REMOTE, UNPROTECTED
    from herdlm.sandbox.remote import server
    from herdlm.sandbox.sandbox import open_sandbox

    if isolation == UNPROTECTED or isolation.startswith(REMOTE):
        raise InputError("a served sandbox has an isolation of its own", "Leave out --isolation")
    if not key_file.is_file():
        raise InputError(f"{key_file} does not exist", f"Make one: openssl rand -hex 32 > {key_file}")
    key = key_file.read_text(encoding="utf-8").strip()
    with open_sandbox(isolation, workers=workers, image=image) as opened, server(opened, key, host, port) as http:
        remark(f"{opened.isolation} at http://{host}:{http.server_address[1]}")
        http.serve_forever()
