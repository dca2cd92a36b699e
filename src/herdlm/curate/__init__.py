"""Raw pages to clean, unique documents: one file per step, and the funnel that accounts for every page."""

from typing import TYPE_CHECKING, Any

from herdlm.base.package import load, make_callable

if TYPE_CHECKING:
    from herdlm.curate.config import CurateConfig
    from herdlm.curate.pipeline import curate

__all__ = ["CurateConfig", "curate"]

_NAMES = {"curate": "pipeline", "CurateConfig": "config"}


def __getattr__(name: str) -> Any:
    # On first use, so that reading a recipe imports none of the curation libraries.
    return load(_NAMES, __name__, name)


make_callable(__name__)
