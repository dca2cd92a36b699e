"""Losses in one piece, and in pieces of which none divides the number of tokens."""

import pytest

from herdlm.model import losses

VOCABULARY = 101


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that losses work in."""
    if request.param == "many blocks":  # 3 and 5 rows
        monkeypatch.setitem(losses.BLOCK, "cpu", 3 * VOCABULARY)
        monkeypatch.setitem(losses.CHUNK, "cpu", 5 * VOCABULARY)
        monkeypatch.setattr(losses, "PART", 7)
