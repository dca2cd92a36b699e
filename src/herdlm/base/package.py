"""Makes a package callable as its main function: ``herdlm.train(...)`` is ``herdlm.train.train(...)``.

Commands, packages and functions have the same names.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that calls its function of the same name, imported on first use."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the package's main function."""
        return getattr(self, self.__name__.rpartition(".")[2])(*arguments, **options)


def make_callable(package: str) -> None:
    """Make the package named ``package`` callable."""
    sys.modules[package].__class__ = CallablePackage


def load(names: dict[str, str], package: str, name: str) -> Any:
    """For a package's ``__getattr__``: the object ``name``, imported from its submodule in ``names``."""
    if name not in names:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
