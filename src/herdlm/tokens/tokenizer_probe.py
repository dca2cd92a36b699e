"""Loads a ``tokenizer.json`` in a process of its own first, since a wrong one can abort the process that loads it.

The file that stands in front of the library's code is somebody else's: its patterns may never end, its model may stop
the process by a signal, and neither can be caught. Run as a script, this module loads the file that comes on standard
input and encodes a few texts, within limits of time and memory. It imports nothing of herdlm then.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

SECONDS = 120
MEMORY_BYTES = 12 * 2**30  # of addresses, of which libraries reserve far more than they use
PROBES = (
    "What is " + "a" * 40 + " in a cache? " + "1" * 40 + " " * 40 + "\n" * 20 + "!" * 40,
    "Grüße, 世界! 🙂 don't <s> </s> <|eot_id|> \u0301\u200d\x00\x1b",
)


@lru_cache(maxsize=32)
def probe(text: str) -> str | None:
    """What ends a process that loads this ``tokenizer.json`` and encodes with it; None if nothing does."""
    try:
        done = subprocess.run(  # noqa: S603 - this file
            [sys.executable, "-I", str(Path(__file__).resolve())],
            input=text.encode("utf-8", "surrogatepass"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"encoding a line with it takes longer than {SECONDS} s"
    said = " ".join(done.stdout.decode("utf-8", "replace").split())[:300]
    if done.returncode < 0:
        return f"loading it ends the process with signal {-done.returncode}"
    return None if done.returncode == 0 else said or f"loading it ends the process with code {done.returncode}"


def _main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    text = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    try:
        from tokenizers import Tokenizer

        backend = Tokenizer.from_str(text)
        backend.no_truncation()
        backend.no_padding()
        for special in (True, False):
            backend.encode_special_tokens = special
            for line in PROBES:
                ids = backend.encode(line, add_special_tokens=True).ids
                backend.decode(ids, skip_special_tokens=False)
        backend.get_vocab(with_added_tokens=True)
        Tokenizer.from_str(backend.to_str())
    except BaseException as error:  # the library's panics are no Exceptions
        sys.stdout.write(f"{error}" or type(error).__name__)
        sys.stdout.flush()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
