"""Loads parts of the user's own that a recipe names as ``module:attribute``, and identifies their code."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

import herdlm
from herdlm.base.artifact import hash_file
from herdlm.base.errors import InputError

PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
PACKAGES = Path(sysconfig.get_path("platlib"))
NOT_OWN = (Path(herdlm.__file__).parent, Path(sysconfig.get_path("stdlib")))


def _check_reference(text: str) -> str:
    if not PATTERN.fullmatch(text):
        raise ValueError(f"{text!r} is not module:attribute, such as my_module:MyClass")
    return text


Reference = Annotated[str, AfterValidator(_check_reference)]
"""A recipe's value that names a part of the user's own, as ``module:attribute``."""


def load_part(reference: str, key: str) -> Any:
    """Import what ``reference`` (``module:attribute``) names; ``key`` is the recipe's key, for errors.

    Modules are looked for where Python looks, and then in the current folder.

    Raises:
        InputError: There is no such module or attribute, or importing the module failed.
    """
    module, _, attribute = reference.partition(":")
    if (folder := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.append(folder)
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            remedy = f"Install it, on all machines of a cluster, or run in the folder that contains it (now {folder})"
            raise InputError(f"{key} = {reference!r}: there is no module {error.name}", remedy) from error
        raise _failed(reference, key, error) from error
    except Exception as error:
        raise _failed(reference, key, error) from error
    if not hasattr(loaded, attribute):
        near = difflib.get_close_matches(attribute, dir(loaded), n=1)
        remedy = f"Did you mean {module}:{near[0]}?" if near else f"Define it in {loaded.__file__}"
        raise InputError(f"{key} = {reference!r}: module {module} has no {attribute}", remedy)
    return getattr(loaded, attribute)


def code_hash(part: Any) -> str | None:
    """Return the SHA-256 of the source file that defines a class or function, or None if it has no source file."""
    try:
        return hash_file(Path(inspect.getfile(part)))
    except (TypeError, OSError):
        return None


def describe_error(error: BaseException) -> str:
    """Return an error's type and text on one line, and the last line of the user's code that led to it, if any."""
    text = " ".join(str(error).split())
    places = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    others = [place for place in places if place[0].is_file() and not any(map(place[0].is_relative_to, NOT_OWN))]
    own = [place for place in others if not place[0].is_relative_to(PACKAGES)] or others
    where = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def _failed(reference: str, key: str, error: BaseException) -> InputError:
    return InputError(f"{key} = {reference!r}: importing it failed with {describe_error(error)}", "Fix that module")
