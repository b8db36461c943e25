"""SIGKILL while a checkpoint is being written."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

from tests.faults.fault import UNFINISHED_NAME, Mutation, Workspace, fault
from tests.faults.trainer_runs import EVERY_STEP, Started, finish, ranked, resumed_at

# some 70 MB a checkpoint and one a step: most of the time goes into writing them
WIDE = ('model.layers=["8/2", "16/2", "fc1024, fc2048"]', *EVERY_STEP)
MOMENTS = 30
EVERY = (*WIDE, "training.checkpoint_every_steps=1")
DIGEST_PREFIX, HEX = b"sha256:", 64

SWEPT = Mutation("removal of leftovers", "pipeline.checkpoint.folder:sweep_leftovers", "returns")


@fault(
    "save killed",
    "SIGKILL during a checkpoint write: a valid checkpoint is always found, never older than the one before; no "
    "damaged file has a final name; leftovers swept",
    UNFINISHED_NAME,
    SWEPT,
)
def save_killed(workspace: Workspace) -> str:
    """One run, killed in its saves and resumed, again and again."""
    chance = random.Random(13)
    out = workspace.subfolder("run") / "run"
    moments = MOMENTS if workspace.full else 2
    stood, cut = 0, [False]  # whether each kill left a part of a file; the last must, for the sweep to have work
    while len(cut) <= moments or not cut[-1]:
        assert len(cut) < 3 * MOMENTS, "no kill came while a file was being written"
        with ranked(workspace, out, *EVERY, world=1) as run:
            _until_after(stood, run)
            before = _newest(out)
            time.sleep(chance.uniform(0, 0.4))
            run.processes[0].kill()
            run.ends(10)
            said = run.said()
        assert "skipped a checkpoint" not in said, f"a damaged checkpoint has a final name: {said[-3000:]}"
        if stood:
            assert resumed_at(said) >= stood, f"continued from step {resumed_at(said)} where {stood} had been finished"
        for path in [*(out / "checkpoints").glob("step-*.pt"), out / "ckpt.pt"]:
            assert _is_whole(path), f"kill {len(cut)}: {path.name} is not whole"
        stood = _newest(out)
        assert stood >= before, f"step {before} was there before the kill, {stood} is the newest after it"
        cut.append(any(out.rglob(".*.tmp")))
    last = finish(workspace, out, *WIDE, "training.checkpoint_every_steps=0", world=1, steps=stood + 9)
    assert resumed_at(last.said()) == stood
    left = [path.name for path in out.rglob(".*.tmp")]
    assert not left, f"left by killed runs: {left}"
    return (
        f"{len(cut) - 1} kills, {sum(cut)} of them in mid-write; {stood} steps, each resume from the newest checkpoint"
    )


def _until_after(stood: int, run: Started) -> None:
    """Until a checkpoint after step ``stood`` is there, and another is being written, wherever that may be."""

    def writing() -> bool:
        return any(run.out.rglob(".*.tmp")) or not all(map(_has_digest, (run.out / "checkpoints").glob("step-*.pt")))

    run.until(lambda: _newest(run.out) > stood and writing(), "a checkpoint being written")


def _newest(out: Path) -> int:
    return max((int(path.stem[5:]) for path in (out / "checkpoints").glob("step-*.pt")), default=0)


def _has_digest(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-min(path.stat().st_size, len(DIGEST_PREFIX) + HEX), os.SEEK_END)
            return file.read(len(DIGEST_PREFIX)) == DIGEST_PREFIX
    except FileNotFoundError:  # it was one too many
        return True


def _is_whole(path: Path) -> bool:
    content = path.read_bytes()
    body, digest = content[: -len(DIGEST_PREFIX) - HEX], content[-len(DIGEST_PREFIX) - HEX :]
    return digest == DIGEST_PREFIX + hashlib.sha256(body).hexdigest().encode()
