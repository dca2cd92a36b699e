"""What of a recipe's section is in the settings of a stage."""

from __future__ import annotations

from typing import Any


def dump(section: Any) -> Any:
    """A section as JSON values."""
    return section.model_dump(mode="json")


def without(section: Any, *keys: str) -> Any:
    """A section without keys that affect how its work is done but not the result."""
    return {key: value for key, value in dump(section).items() if key not in keys}
