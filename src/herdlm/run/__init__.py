"""Runs a recipe: its stages, the order they run in, the state of each, and the lineage of what they make."""

from typing import TYPE_CHECKING, Any

from herdlm.base.package import load, make_callable

if TYPE_CHECKING:
    from herdlm.recipe import Recipe, read_recipe
    from herdlm.run.execute import RunResult, run

__all__ = ["Recipe", "RunResult", "read_recipe", "run"]

_NAMES = {"run": "execute", "RunResult": "execute"}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that importing the package loads no stage.
    if name in ("Recipe", "read_recipe"):
        from herdlm import recipe

        return getattr(recipe, name)
    return load(_NAMES, __name__, name)


make_callable(__name__)
