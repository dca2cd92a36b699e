"""Fixtures of the curation tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.curate.crawls import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the given name and content."""

    def to_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return to_file
