"""SIGKILL of one rank in the middle of a step, and of the launcher."""

from __future__ import annotations

import re
import time

import psutil
import torch

from tests.drills.drill import Ground, Removal, drill
from tests.drills.trainer_runs import checkpoint_steps, ends_within, errors_of, ranks_of, wait_for_step, words
from tests.pipeline.training import weights

LAUNCHER_MAY_TAKE, RANKS_MAY_TAKE = 10, 5


@drill(
    "a rank killed",
    "the launcher ends non-zero within 10 s; the others say in one sentence that a rank left, without a traceback; "
    "the same command goes on, to the weights of an undisturbed run",
    Removal("lost peers in words", "pipeline/command.py", "if lost := lost_peer(error):", "if lost := None:"),
)
def a_rank_killed(ground: Ground) -> str:
    """Kills rank 0 and rank 1 of two runs."""
    seen = []
    settings = ("training.checkpoint_every_steps=7",)
    whole = ground.folder / "whole"
    assert ground.run(*words(ground, whole, *settings, steps=30)).returncode == 0
    for victim in (0, 1) if ground.full else (1,):
        out = ground.folder / f"victim-{victim}"
        with ground.started(*words(ground, out, *settings, steps=30)) as launcher:
            wait_for_step(out, 10)
            ranks_of(launcher)[victim].kill()
            seconds, said = ends_within(launcher, LAUNCHER_MAY_TAKE)
            assert launcher.returncode != 0
        assert "Traceback (most recent call last)" not in _of_ranks(said), said
        sentences = errors_of(said)
        assert len(sentences) == 1 and "another one left" in sentences[0] and "goes on from there" in sentences[0], said
        done = ground.run(*words(ground, out, *settings, steps=30))
        assert done.returncode == 0 and "resumed from" in done.stderr, done.stderr
        assert all(torch.equal(w, weights(out)[key]) for key, w in weights(whole).items()), "other weights"
        seen.append(f"rank {victim}: launcher ended after {seconds:.1f} s, resumed from {checkpoint_steps(out)[0]}")
    return "; ".join(seen) + "; weights bit-equal"


def _of_ranks(said: str) -> str:
    """What the ranks wrote: after them the launcher reports the failure, with a traceback of its own."""
    return re.split(r"^[WE]\d{4} ", said, maxsplit=1, flags=re.MULTILINE)[0]


@drill(
    "the launcher killed",
    "no rank is alive 5 s later",
    Removal("death with the parent", "pipeline/command.py", "    die_with_parent()\n", "    pass\n"),
)
def the_launcher_killed(ground: Ground) -> str:
    """Kills the launcher in mid-step."""
    out = ground.folder / "run"
    with ground.started(*words(ground, out)) as launcher:
        wait_for_step(out, 5)
        ranks = ranks_of(launcher)
        launcher.kill()
        began = time.monotonic()
        assert not psutil.wait_procs(ranks, timeout=RANKS_MAY_TAKE)[1], "a rank outlived the launcher"
        return f"both ranks gone after {time.monotonic() - began:.2f} s"
