"""The error for a library that is not installed."""

from __future__ import annotations

from herdlm.base.errors import InputError


def not_installed(what: str, error: ImportError) -> InputError:
    """The error that ``what`` needs the package whose import failed."""
    return InputError(f"{what} needs the package {error.name}", "Install it: pip install 'herdlm[evaluate]'")
