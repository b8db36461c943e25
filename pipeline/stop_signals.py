"""The signals that ask for a stop. Nothing slow is imported here: they are noted from a rank's first moment."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOPPED_EARLY = 75  # exit code of a run that saved and stopped on a signal (EX_TEMPFAIL: run it again)


class StopSignals:
    """SIGTERM, SIGUSR1 (SLURM's preemption) and SIGINT ask for a stop; a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """From now on the signals are noted instead of ending the process."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            os._exit(128 + number)
        self.asked = True


STOP_SIGNALS = StopSignals()
"""Of this process: signals belong to a process, not to an object in it."""
