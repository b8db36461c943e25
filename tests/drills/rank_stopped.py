"""A rank that is alive but does not answer."""

from __future__ import annotations

import signal
import time

from tests.drills.drill import Ground, Removal, drill
from tests.drills.trainer_runs import gone, launched

SLACK = 5
LAUNCHER_MAY_TAKE = 45  # it asks the stopped rank to end, waits 30 s, and kills it


@drill(
    "a rank stopped with SIGSTOP",
    "the others end within the time-out and 5 s, naming the rank; the stopped one does not stay behind",
    Removal("the step's time-out", "pipeline/peers.py", "        change(timedelta(seconds=seconds))", "        pass"),
)
def a_rank_stopped(ground: Ground) -> str:
    """Stops rank 1 in mid-step."""
    seconds = 12 if ground.full else 5
    out = ground.folder / "run"
    with launched(ground, out, "training.log_every_steps=1", f"training.collective_timeout_seconds={seconds}") as run:
        run.until_step(5)
        ranks = run.ranks()
        ranks[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert gone(ranks[:1], seconds + SLACK), "rank 0 still waits"
        took = time.monotonic() - began
        sentences = run.errors()
        assert len(sentences) == 1 and "rank 1" in sentences[0] and "stopped" in sentences[0], run.said()[-2000:]
        if ground.full:
            assert run.ends(LAUNCHER_MAY_TAKE) != [0]
            assert gone(ranks[1:], SLACK), "the stopped rank stayed"
    return f"time-out {seconds} s: rank 0 named rank 1 and ended after {took:.1f} s"
