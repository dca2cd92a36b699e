"""Which layers of a model a smaller one keeps. Needs no torch, since recipes are planned without it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from herdlm.base.errors import InputError


def spread_layers(layers: int, count: int) -> tuple[int, ...]:
    """``count`` of so many layers at equal distances, the first and the last among them; one alone is the first.

    Raises:
        InputError: ``count`` is not between 1 and one less than ``layers``.
    """
    _check_count(layers, count)
    if count == 1:
        return (0,)
    gaps = count - 1
    return tuple((2 * place * (layers - 1) + gaps) // (2 * gaps) for place in range(count))


def most_influential(influence: Sequence[float], count: int) -> tuple[int, ...]:
    """The ``count`` layers with the most influence, in order; of equals, the earlier.

    Raises:
        InputError: ``count`` is not between 1 and one less than the number of layers.
    """
    _check_count(len(influence), count)
    return tuple(sorted(sorted(range(len(influence)), key=lambda layer: (-influence[layer], layer))[:count]))


def check_kept(layers: int, keep: Sequence[int]) -> tuple[int, ...]:
    """The numbers of the layers to keep, if a model of so many layers can be shrunk to them.

    Raises:
        InputError: there are none, one is not a layer of the model, they do not rise, or none is dropped.
    """
    kept = tuple(keep)
    if not kept or any(later <= earlier for earlier, later in pairwise(kept)):
        raise InputError(f"the layers to keep {list(kept)} do not rise", "Name each layer once, in order: 0,2,5")
    if kept[0] < 0 or kept[-1] >= layers:
        wrong = kept[0] if kept[0] < 0 else kept[-1]
        raise InputError(f"there is no layer {wrong} in a model of {layers} layers", f"Use 0 to {layers - 1}")
    _check_count(layers, len(kept))
    return kept


def _check_count(layers: int, count: int) -> None:
    if not 1 <= count < layers:
        raise InputError(
            f"a model of {layers} layers cannot be shrunk to {count}", f"Keep between 1 and {layers - 1} layers"
        )
