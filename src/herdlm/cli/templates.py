"""The chat template that an option names."""

from __future__ import annotations

from pathlib import Path

from herdlm.base.errors import InputError


def template_text(given: str | None) -> str | None:
    """A template's text from its file; the name of one of ours stays.

    Raises:
        InputError: the file cannot be read.
    """
    from herdlm.tokens.chat_template import TEMPLATES

    if given is None or given in TEMPLATES:
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        remedy = f"Give a file, {' or '.join(TEMPLATES)}"
        raise InputError(f"the chat template {given} cannot be read: {error}", remedy) from error
