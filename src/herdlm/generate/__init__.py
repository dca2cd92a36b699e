"""The generation engine: paged key/value cache, continuous batching, prefix sharing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from herdlm.generate.engine import Engine
    from herdlm.generate.request import Completion, Event, SamplingParams

__all__ = ["Completion", "Engine", "Event", "SamplingParams"]


def __getattr__(name: str) -> Any:
    # Imported on first use: reading a recipe needs this package's schema, but not torch.
    if name == "Engine":
        from herdlm.generate.engine import Engine

        return Engine
    if name in __all__:
        from herdlm.generate import request

        return getattr(request, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
