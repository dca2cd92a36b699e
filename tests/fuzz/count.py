"""Counts of the fuzzer by reader: ``python -m tests.fuzz.count [INPUTS] [READER ...]``.

Prints how many changed files gave a value or one error ("clean"), records counted as faults ("counted"), or anything
else ("other"), with the first of those.
"""

import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.fuzz.readers import READERS, outcome


def count(name: str, inputs: int, first: int = 0) -> tuple[Counter[str], str, float]:
    """The outcomes of a reader over ``inputs`` changed files, the first wrong one, and the slowest in seconds."""
    reader, found, wrong, slowest = READERS[name], Counter[str](), "", 0.0
    with tempfile.TemporaryDirectory() as base:
        whole = Path(base) / "whole"
        whole.mkdir()
        reader.make(whole)
        content = reader.path(whole).read_bytes()
        for seed in range(first, first + inputs):
            folder = shutil.copytree(whole, Path(base) / "changed")
            reader.path(folder).write_bytes(reader.change(content, Random(seed)))
            began = time.process_time()
            try:
                kind = outcome(reader, folder)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                kind = "other"
                wrong = wrong or f"seed {seed}: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
            found[kind] += 1
            slowest = max(slowest, time.process_time() - began)
            shutil.rmtree(folder)
    return found, wrong, slowest


if __name__ == "__main__":
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for name in sys.argv[2:] or READERS:
        found, wrong, slowest = count(name, inputs)
        told = (
            f"{found['clean']:6} clean {found['counted']:6} counted {found['other']:4} other, at most {slowest:5.2f} s"
        )
        print(f"{name:24} {inputs:6} inputs {told}  {wrong}", flush=True)
