"""One run folder: other runs that want it, runs that left it, and files whose times say nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.faults.fault import Mutation, Workspace, fault
from tests.faults.trainer_runs import EVERY_STEP, finish, ranked, resumed_at

SETTINGS = (*EVERY_STEP, "training.checkpoint_every_steps=2")
YEAR_S = 365 * 86400


@fault(
    "folder and clock",
    "checkpoint times shuffled, clock set back: the right checkpoint is chosen, and the right ones are kept; two runs "
    "into one folder: the second refuses, a dead run's lock is taken over",
    Mutation(
        "lock of a run's folder",
        "pipeline.run.run_dir:lock_folder",
        "is_set_to",
        "lambda folder: (folder.mkdir(parents=True, exist_ok=True), FileLock(folder / '.lock'))[1]",
    ),
    Mutation(
        "order of checkpoints by step, for resuming",
        "pipeline.checkpoint.folder:checkpoint_files",
        "is_set_to",
        "lambda folder: sorted((folder / ARCHIVE).glob('step-*.pt'), key=lambda path: -path.stat().st_mtime)",
    ),
    Mutation(
        "order of checkpoints by step, for keeping",
        "pipeline.checkpoint.file:_surplus",
        "is_set_to",
        "lambda archive, keep: sorted(archive.glob('step-*.pt'), key=lambda path: path.stat().st_mtime)[:-keep]",
    ),
)
def folder_and_clock(workspace: Workspace) -> str:
    """Sets times as a clock does that jumps; then has two runs want one folder."""
    out = workspace.subfolder("run") / "run"
    finish(workspace, out, *SETTINGS, world=1, steps=6)
    chance, step, trials = random.Random(3), 6, 4 if workspace.full else 1
    for trial in range(trials):
        _shuffle_times(out, chance, future=trial % 2 == 0)
        said = finish(workspace, out, *SETTINGS, world=1, steps=step + 2).said()
        assert resumed_at(said) == step, f"continued from step {resumed_at(said)}, not from {step}"
        step += 2
        kept = sorted(int(path.stem[5:]) for path in (out / "checkpoints").glob("step-*.pt"))
        assert kept == [step - 4, step - 2, step], f"kept the checkpoints of steps {kept} at step {step}"
    with ranked(workspace, out, *SETTINGS, world=1) as first:
        first.until_step(step + 1)
        first.processes[0].send_signal(signal.SIGSTOP)  # alive, and sure to hold the folder while the other looks
        before = _files(out)
        with ranked(workspace, out, *SETTINGS, world=1, steps=step + 3) as second:
            assert second.ends(60) == [1], f"a second run was let in: {second.said()[-2000:]}"
            assert f"another run is training into {out}" in second.said(), second.said()[-2000:]
        assert _files(out) == before, "the run that was refused has changed the folder"
        first.processes[0].kill()
        first.ends(10)
    assert (out / ".lock").exists(), "the dead run left no lock to be taken over"
    stood = max(int(path.stem[5:]) for path in (out / "checkpoints").glob("step-*.pt"))
    assert resumed_at(finish(workspace, out, *SETTINGS, world=1, steps=stood + 1).said()) == stood
    return (
        f"{trials} shuffles: each continued from the last step; the second run was refused, the dead one's lock taken"
    )


def _shuffle_times(out: Path, chance: random.Random, future: bool) -> None:
    """Newest files oldest, and some from next year: a clock that was set back since they were written."""
    files = sorted((out / "checkpoints").glob("step-*.pt"), reverse=True)
    for age, path in enumerate(files):
        when = time.time() + (YEAR_S if future else -YEAR_S) + 3600 * age + chance.uniform(0, 60)
        os.utime(path, (when, when))


def _files(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in out.rglob("*") if path.is_file()}
