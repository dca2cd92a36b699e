"""The command line in a process that kills itself when step STEP of a training is about to be read.

Checkpoints that are being written by then are finished first, so that a slow disk changes nothing.
"""

import os
import signal
import sys
import threading

from herdlm.align.grpo.batches import GrpoBatches
from herdlm.cli.app import main
from herdlm.tokens.dialogs import DialogBatches
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.tokens.thumbs import ThumbBatches


def kill_at(step: int) -> None:
    for kind in (DialogBatches, GrpoBatches, PreferenceBatches, ThumbBatches):
        plain = kind.micro_batches

        def micro_batches(self, number, plain=plain):
            if number == step:
                for thread in threading.enumerate():
                    if thread.name == "checkpoint":
                        thread.join()
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(self, number)

        kind.micro_batches = micro_batches


if __name__ == "__main__":
    kill_at(int(sys.argv.pop(1)))
    main()
