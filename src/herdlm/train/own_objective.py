"""An objective of the user's own, which a recipe names as ``module:attribute``."""

from __future__ import annotations

from herdlm.base.errors import InputError
from herdlm.base.own_parts import code_hash, describe_error, load_part
from herdlm.train.objectives import Objective


def open_objective(reference: str | None, key: str, default: Objective) -> Objective:
    """The objective that ``reference`` names: a subclass of Objective, or an instance of one; ``default`` for None.

    Args:
        key: of the recipe, for errors.

    Raises:
        InputError: There is no such module or attribute, it is no objective, or it cannot be made without arguments.
    """
    if reference is None:
        return default
    part = load_part(reference, key)
    if isinstance(part, type) and issubclass(part, Objective):
        try:
            part = part()
        except Exception as error:
            raise InputError(
                f"{key} = {reference!r} cannot be created: {describe_error(error)}",
                "Give its arguments defaults, or name an instance",
            ) from error
    if not isinstance(part, Objective):
        raise InputError(
            f"{key} = {reference!r} is no objective",
            "Make it a subclass of herdlm.train.objectives.Objective with the methods normalizer and read",
        )
    return part


def objective_code(reference: str | None, key: str) -> dict[str, str | None]:
    """What identifies the objective's code in a fingerprint: the hash of its source file; nothing for None.

    Raises:
        InputError: See :func:`open_objective`.
    """
    if reference is None:
        return {}
    part = load_part(reference, key)
    return {"objective": code_hash(part if isinstance(part, type) else type(part))}
