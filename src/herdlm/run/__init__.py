"""From a recipe to stages to manifests: what runs, in which order, what is already there, and where it came from."""

from typing import TYPE_CHECKING, Any

from herdlm.base.package import load, make_callable

if TYPE_CHECKING:
    from herdlm.recipe import Recipe, read_recipe
    from herdlm.run.execute import RunResult, run

__all__ = ["Recipe", "RunResult", "read_recipe", "run"]

_NAMES = {"run": "execute", "RunResult": "execute", "Recipe": "recipe", "read_recipe": "recipe"}


def __getattr__(name: str) -> Any:
    # On first use: importing the package loads none of its stages.
    return load(_NAMES, __name__, name)


make_callable(__name__)
