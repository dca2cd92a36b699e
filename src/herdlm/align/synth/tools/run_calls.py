"""Runs calls of the bank's functions in the sandbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from herdlm.align.synth.tools import functions
from herdlm.base.errors import HerdError
from herdlm.sandbox.sandbox import Sandbox

SOURCE = Path(functions.__file__)


def run_calls(sandbox: Sandbox, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The result of each call as ``{"result": value}``, or ``{"error": text}``.

    Raises:
        HerdError: the sandbox does not run the functions.
    """
    if not calls:
        return []
    ran = sandbox.run(SOURCE.read_text("utf-8"), stdin=json.dumps(list(calls)))
    if ran.status != "ok":
        raise HerdError(
            f"running tools in the sandbox ended with {ran.status}: {ran.stderr[-200:].strip()}",
            "Try herdlm sandbox check",
        )
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return found
