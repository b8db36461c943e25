"""Signals that ask for a stop, heard from the first line on; the standard library alone, for it comes before torch.

A thread hears them through a socket that the kernel's side of Python writes to: a handler in Python would have to wait
until the main thread comes out of torch, which may be in a collective that never ends.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

STOPPED_EARLY = 75  # exit code of a run that saved and stopped on a signal (EX_TEMPFAIL: run it again)
ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
SECONDS_WITHOUT_LAUNCHER = 4.0  # for a lone rank to save in


class StopSignals:
    """SIGTERM, SIGUSR1 (SLURM's preemption) and SIGINT ask for a stop; a second SIGINT ends the process at once.

    Before the first step nothing is at stake, and the first of them ends the process at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._listening = self._stepping = False
        self._parent = os.getppid()

    def listen(self) -> None:
        """Hears signals from now on. Call in the main thread; once is enough."""
        if self._listening:
            return
        self._listening = True
        hearing, writing = socket.socketpair()
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
        for number in ASKING:
            signal.signal(number, lambda *_: None)  # what is done is done by the thread
        threading.Thread(target=self._hear, args=(hearing,), name="signals", daemon=True).start()
        os.register_at_fork(after_in_child=_forget)

    def begin_steps(self) -> None:
        """From now on a signal only sets ``asked``: there is something to save."""
        self.listen()
        self._stepping = True

    def _hear(self, hearing: socket.socket) -> None:
        while True:
            for number in hearing.recv(64):
                if number in ASKING:
                    self._obey(number)

    def _obey(self, number: int) -> None:
        if not self._stepping:
            if os.environ.get("RANK", "0") == "0":
                os.write(2, b"stopped before the first step as asked; the same command starts again\n")
            os._exit(STOPPED_EARLY)
        if self.asked and number == signal.SIGINT:
            os._exit(128 + number)
        self.asked = True
        if os.getppid() != self._parent:
            threading.Thread(target=_leave_soon, daemon=True).start()


def _leave_soon() -> None:
    """A rank whose launcher is gone saves if it can, and is no orphan if it cannot."""
    time.sleep(SECONDS_WITHOUT_LAUNCHER)
    os._exit(STOPPED_EARLY)


def _forget() -> None:
    """A forked child shares the socket: signals meant for it would stop the run."""
    signal.set_wakeup_fd(-1)
    for number in ASKING:
        signal.signal(number, signal.SIG_DFL)


SIGNALS = StopSignals()
