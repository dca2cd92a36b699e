"""Every reader of a user's file, with files changed at random: a value, a counted record, or one error of the input.

``make fuzz`` runs it for long (HERDLM_FUZZ is the number of inputs of each reader) and ``python -m tests.fuzz.count``
prints the counts by reader.
"""

import os
import resource
import shutil
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.readers import READERS, outcome

EXAMPLES = int(os.environ.get("HERDLM_FUZZ", "15"))
MEMORY_KIB = 600 * 1024  # beyond what the process held before


@pytest.fixture(scope="module", params=READERS)
def whole(request, tmp_path_factory):
    """A reader, a folder of whole files of its kind, and the content of the file to be changed."""
    reader = READERS[request.param]
    folder = tmp_path_factory.mktemp("whole")
    reader.make(folder)
    assert outcome(reader, shutil.copytree(folder, folder.with_name(f"{folder.name}-copy"))) in ("clean", "counted")
    reader.read(shutil.copytree(folder, folder.with_name(f"{folder.name}-again")))  # a whole one raises nothing
    return reader, folder, reader.path(folder).read_bytes()


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), print_blob=True)
@given(seed=st.integers(0, 2**32))
def test_a_changed_file_gives_a_value_or_one_error(whole, tmp_path_factory, seed):
    reader, folder, content = whole
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    changed = tmp_path_factory.mktemp("changed") / "f"
    shutil.copytree(folder, changed)
    reader.path(changed).write_bytes(reader.change(content, Random(seed)))
    try:
        assert outcome(reader, changed) in ("clean", "counted")
    finally:
        shutil.rmtree(changed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB
