"""herdlm raises a herd of Llama-class language models: raw web pages in, a served chat model out."""

import importlib
from typing import Any

from herdlm.base.processor import limit_instructions

__version__ = "0.2.0"

limit_instructions()  # before torch or Numba computes anything

_PACKAGES = ("curate", "generate", "model", "run", "serve", "tokens", "train")


def __getattr__(name: str) -> Any:
    # ``herdlm.run(...)`` works after ``import herdlm`` alone, and ``import herdlm`` stays light.
    if name in _PACKAGES:
        return importlib.import_module(f"herdlm.{name}")
    raise AttributeError(f"module 'herdlm' has no attribute {name!r}")
