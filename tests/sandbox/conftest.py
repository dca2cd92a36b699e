"""One sandbox for all tests of a session, as this machine can have it."""

from collections.abc import Iterator

import pytest

from herdlm.base.errors import InputError
from herdlm.sandbox.check import Scene, scene
from herdlm.sandbox.sandbox import Sandbox, open_sandbox


@pytest.fixture(scope="session")
def attacked() -> Iterator[Scene]:
    with scene() as made:
        yield made


@pytest.fixture(scope="session")
def sandbox(attacked) -> Iterator[Sandbox]:
    """One worker, so that what a run leaves would be found by the next."""
    try:
        opened = open_sandbox(workers=1)
    except InputError as error:
        pytest.skip(str(error))
    with opened:
        yield opened
