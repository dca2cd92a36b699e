"""What commands print: results to standard output, remarks to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")


def say_json(value: Any) -> None:
    """Print a result as JSON."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def remark(text: str) -> None:
    """Print one line to standard error, which leaves standard output to the result."""
    sys.stderr.write(f"herdlm: {' '.join(text.split())}\n")
