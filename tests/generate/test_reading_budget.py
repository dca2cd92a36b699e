"""One engine step, from scheduling to events, takes at most 1,440 lines of code in 10 files to read."""

import sys

from herdlm.generate import Engine, SamplingParams
from tests.conftest import small_model
from tests.reading_budget import check_budget, source_files


def test_a_step_of_the_engine_is_read_within_the_budget():
    engine = Engine(small_model(), None, cache_tokens=1024, max_batch=4)
    engine.submit(list(range(1, 40)), SamplingParams(max_tokens=4, n=2, top_p=0.9))
    seen, before = set(), sys.gettrace()

    def trace(frame, event, argument):
        seen.add(frame.f_code.co_filename)

    sys.settrace(trace)
    try:
        while engine.busy:  # a step of the prompt, and steps that decode
            engine.step()
    finally:
        sys.settrace(before)
    files = source_files(seen)
    assert {"generate/engine.py", "generate/scheduler.py", "generate/paged_attention.py"} <= files.keys()
    check_budget(files, 1440, 10)
