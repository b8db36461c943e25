"""Signals that ask a run to stop. Uses only the standard library, because it listens before torch is imported.

A thread reads the signals from a socket that Python's C code writes to. A Python handler would have to wait until the
main thread returns from torch, which may be in a collective that never ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

STOPPED_EARLY = 75  # exit code of a run that saved and stopped on a signal (EX_TEMPFAIL: run it again)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
SECONDS_TO_SAVE = 4.0  # of a single rank whose launcher has ended


class StopSignals:
    """SIGTERM, SIGUSR1 (preemption by SLURM), SIGHUP (closed terminal) and SIGINT ask the run to stop.

    A second SIGINT ends the process at once. Before the first step there is nothing to save, so the first signal ends
    the process at once. SIGHUP is left alone where it is ignored, as under nohup.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self._stepping = False
        self._parent: int | None = None

    def listen(self) -> None:
        """Listens from now on. Must be called in the main thread; further calls do nothing."""
        if self._parent is not None:
            return
        self._parent = os.getppid()
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)
        _set_handlers(lambda *_: None)  # the thread does the work
        threading.Thread(target=self._listen, args=(receiver,), name="signals", daemon=True).start()
        os.register_at_fork(after_in_child=_reset_in_child)

    def begin_steps(self) -> None:
        """From now on a signal only sets ``stop_requested``: there is something to save."""
        self.listen()
        self._stepping = True

    def _listen(self, receiver: socket.socket) -> None:
        while True:
            for number in receiver.recv(64):
                if number in STOP_SIGNALS:
                    self._handle(number)

    def _handle(self, number: int) -> None:
        if not self._stepping:
            if os.environ.get("RANK", "0") == "0":
                with contextlib.suppress(OSError):  # a closed terminal
                    os.write(2, b"stopped before the first step as requested; run the same command again\n")
            os._exit(STOPPED_EARLY)
        if self.stop_requested and number == signal.SIGINT:
            os._exit(128 + number)
        self.stop_requested = True
        if os.getppid() != self._parent:  # the launcher has ended: this rank gets the time to save, then ends
            timer = threading.Timer(SECONDS_TO_SAVE, os._exit, [STOPPED_EARLY])
            timer.daemon = True
            timer.start()


def _set_handlers(handler: signal._HANDLER) -> None:
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _reset_in_child() -> None:
    """A forked child shares the socket: its signals would stop the run."""
    signal.set_wakeup_fd(-1)
    _set_handlers(signal.SIG_DFL)


SIGNALS = StopSignals()
