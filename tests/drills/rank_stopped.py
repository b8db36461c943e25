"""A rank that is alive but does not answer."""

from __future__ import annotations

import signal

import psutil

from tests.drills.drill import Ground, Removal, drill
from tests.drills.trainer_runs import ends_within, errors_of, ranks_of, wait_for_step, words

SLACK = 5


@drill(
    "a rank stopped with SIGSTOP",
    "the others end within the time-out and 5 s and say so; the stopped one does not stay behind",
    Removal(
        "the step's time-out",
        "pipeline/trainer.py",
        "                limit_waiting(run.config)",
        "                pass",
    ),
)
def a_rank_stopped(ground: Ground) -> str:
    """Stops rank 1 in mid-step."""
    seconds = 12 if ground.full else 5
    out = ground.folder / "run"
    with ground.started(*words(ground, out, f"training.collective_timeout_seconds={seconds}")) as launcher:
        wait_for_step(out, 5)
        ranks = ranks_of(launcher)
        ranks[1].send_signal(signal.SIGSTOP)
        assert not psutil.wait_procs(ranks[:1], timeout=seconds + SLACK)[1], "rank 0 still waits"
        if not ground.full:  # the launcher asks the stopped rank to end, waits 30 s, then kills it
            return f"time-out {seconds} s: rank 0 has ended"
        took, said = ends_within(launcher, 45)
        assert launcher.returncode != 0
        assert not psutil.wait_procs(ranks[1:], timeout=5)[1], "the stopped rank stayed"
    sentences = errors_of(said)
    assert len(sentences) == 1 and "has not answered" in sentences[0], said
    return f"time-out {seconds} s: rank 0 said so and ended, the launcher and the stopped rank {took:.0f} s later"
