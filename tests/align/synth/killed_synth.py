"""Runs ``herdlm synth`` with a scripted teacher, and kills itself when the teacher is asked for answer number N.

Arguments: N, a file that notes each question, then those of ``herdlm``.
"""

import os
import signal
import sys
from pathlib import Path

from herdlm.cli.app import main
from herdlm.evaluate import publish
from tests.align.synth.scripted import Scripted


class Counted(Scripted):
    """Answers by the question's length, and notes what it is asked."""

    def __init__(self, most: int, notes: Path) -> None:
        super().__init__(lambda messages, sample: f"One, two, {len(messages[-1]['content'])} and {sample}.")
        self.most, self.notes, self.count = most, notes, 0

    def answer(self, requests):
        for number in range(len(requests)):
            self.count += 1
            if self.count == self.most:
                os.kill(os.getpid(), signal.SIGKILL)
            with self.notes.open("a") as file:
                file.write(f"{requests[number].question.shown()!r} {requests[number].seed}\n")
            yield number, next(super().answer([requests[number]]))[1]


if __name__ == "__main__":
    most, notes = int(sys.argv.pop(1)), Path(sys.argv.pop(1))
    publish.open_model = lambda *options: Counted(most, notes)
    main()
