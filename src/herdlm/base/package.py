"""Lets a package be called like its main function: ``herdlm.train(...)`` is ``herdlm.train.train(...)``.

Packages and functions share names because the command line, the folders and the library tell the same story.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is its function of the package's own name, imported on first use."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the package's main function."""
        return getattr(self, self.__name__.rpartition(".")[2])(*arguments, **options)


def make_callable(package: str) -> None:
    """Turn the package named ``package`` into one that can be called."""
    sys.modules[package].__class__ = CallablePackage


def load(names: dict[str, str], package: str, name: str) -> Any:
    """For a package's ``__getattr__``: the object ``name``, from the submodule ``names`` says it is in."""
    if name not in names:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
