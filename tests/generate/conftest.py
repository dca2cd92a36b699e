"""What tests of generation have in common."""

from __future__ import annotations

import pytest

from herdlm.generate.cpu import compiled


@pytest.fixture(params=["torch", "compiled"])
def forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A CPU computes with torch's operations, then with code compiled for it, which small models are spared."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the extra cpu is not installed")
        monkeypatch.setattr(compiled, "COMPILED_FROM", 0)
    return str(request.param)
