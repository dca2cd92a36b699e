"""An objective of the user's own, which a recipe names as ``module:attribute``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from herdlm.base.errors import HerdError, InputError
from herdlm.base.own_parts import code_hash, describe_error, load_part
from herdlm.tokens.batch import Batch
from herdlm.train.objectives import Objective, OutputHead


@dataclass(frozen=True, slots=True)
class OwnObjective(Objective):
    """The objective ``own``, named by ``where`` in errors. Checks what it returns, without waiting for the device.

    Raises:
        InputError: The objective raises, or returns something else than a loss and what to log.
    """

    own: Objective
    where: str

    def normalizer(self, batch: Batch) -> float:
        """See :class:`Objective`."""
        try:
            return float(self.own.normalizer(batch))
        except Exception as error:
            raise self._raised("normalizer", error) from error

    def prepare(
        self, batches: Sequence[Batch], logprobs: Callable[[Sequence[Batch]], Sequence[Tensor]]
    ) -> Sequence[Batch]:
        """See :class:`Objective`."""
        try:
            return self.own.prepare(batches, logprobs)
        except Exception as error:
            raise self._raised("prepare", error) from error

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`."""
        try:
            result = self.own.read(output_head, hidden, batch)
        except Exception as error:
            raise self._raised("read", error) from error
        if fault := next(_faults(result, trains=hidden.requires_grad), None):
            raise InputError(f"{self.where}: read {fault}", "Return loss, {name: sum}: see docs/own-parts.md")
        return result

    def _raised(self, method: str, error: Exception) -> HerdError:
        if isinstance(error, HerdError):
            return error
        return InputError(f"{self.where}: {method} raised {describe_error(error)}", "Fix the objective")


def _faults(result: Any, *, trains: bool) -> Iterator[str]:
    """Yield what is wrong with what ``read`` returned; ``trains`` says whether its loss must lead to gradients."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        yield f"returned {type(result).__name__}, not a loss and a dictionary of sums to log"
        return
    loss, logged = result
    for name, value in {"the loss": loss, **logged}.items():
        if not (isinstance(value, Tensor) and value.ndim == 0):
            shape = f" of shape {list(value.shape)}" if isinstance(value, Tensor) else ""
            yield f"returned {type(value).__name__}{shape} as {name}, not a tensor without dimensions"
    if trains and not loss.requires_grad:
        yield "returned a loss that does not depend on the model, so it has no gradient"


def open_objective(reference: str | None, key: str, default: Objective) -> Objective:
    """The objective that ``reference`` names, checked as it runs; ``default`` for None.

    ``reference`` names a subclass of Objective, or an instance of one.

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
    return OwnObjective(part, f"{key} ({reference})")


def objective_code(reference: str | None, key: str) -> dict[str, str | None]:
    """What identifies the objective's code in a fingerprint: the hash of its source file; nothing for None.

    Raises:
        InputError: See :func:`open_objective`.
    """
    if reference is None:
        return {}
    part = load_part(reference, key)
    return {"objective": code_hash(part if isinstance(part, type) else type(part))}
