"""Checkpoints with flipped bits and cut ends: read by the trainer, the report and the public functions."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from pipeline.checkpoint.file import CheckpointError, read_checkpoint
from pipeline.checkpoint.manager import newest_valid
from tests.faults.fault import Mutation, Workspace, fault, one_sentence
from tests.pipeline.launching import launch_words

Damage = tuple[str, int]
"""("flip", number of a bit) or ("cut", remaining bytes)."""
DAMAGED, ONE_BEFORE = "checkpoints/step-00000010.pt", "checkpoints/step-00000005.pt"
EVERY = "training.checkpoint_every_steps=5"


def damaged(whole: bytes, damage: Damage) -> bytes:
    """The content of a file after the damage."""
    kind, place = damage
    if kind == "cut":
        return whole[:place]
    content = bytearray(whole)
    content[place // 8] ^= 1 << place % 8
    return bytes(content)


def read_each(run: Path, damages: list[Damage]) -> None:
    """Damages the newest checkpoint in each way and reads it; each time the one before must be chosen."""
    target = run / DAMAGED
    whole = target.read_bytes()
    for damage in damages:
        target.write_bytes(damaged(whole, damage))
        try:
            read_checkpoint(target)
            raise AssertionError(f"not found: {damage}")
        except CheckpointError as error:
            assert str(target) in str(error) and "\n" not in str(error), error
        path, state, passed_over = newest_valid(run)
        assert path == run / ONE_BEFORE and state["progress"]["step"] == 5 and len(passed_over) == 1, damage
    target.write_bytes(whole)
    read_checkpoint(target)


@fault(
    "damaged checkpoints",
    "100 bit flips, 20 truncations: all found; the trainer uses the newest whole one and says so; the report refuses",
    Mutation(
        "comparison of a checkpoint with its checksum",
        "pipeline.checkpoint.file:_digest",
        "is_set_to",
        "lambda path, length: path.read_bytes()[-64:].decode() if path.read_bytes()[length:] else "
        "original(path, length)",
    ),
    Mutation(
        "line about a skipped checkpoint",
        "pipeline.checkpoint.resume:find_resume_point",
        "is_set_to",
        "lambda out, resume: (lambda point: point and __import__('dataclasses').replace(point, "
        "damaged={}))(original(out, resume))",
    ),
)
def damaged_checkpoints(workspace: Workspace) -> str:
    run = workspace.folder / "run"
    done = workspace.run(*launch_words(workspace.shards, run, EVERY, steps=10))
    assert done.returncode == 0, done.stderr
    size, places = (run / DAMAGED).stat().st_size, random.Random(7)
    damages = [("flip", places.randrange(8 * size)) for _ in range(100)]
    damages += [("cut", length) for length in (0, 1, size - 1, size - 64, *(places.randrange(size) for _ in range(16)))]
    code = f"from tests.faults.damaged_checkpoints import *; read_each(Path({str(_unlinked_copy(run))!r}), {damages})"
    read = workspace.run("python", "-c", code)
    assert read.returncode == 0, read.stderr

    tried: list[Damage] = [("flip", 4 * size)]
    if workspace.full:
        tried += [("flip", 8 * size - 3), ("cut", size // 2)]
    for number, damage in enumerate(tried):
        broken = _unlinked_copy(run)
        for path in (broken / DAMAGED, broken / "ckpt.pt"):
            path.write_bytes(damaged((run / DAMAGED).read_bytes(), damage))
        reported = workspace.run(
            "analysis", "report", broken / "ckpt.pt", "--samples", 40, "--out", workspace.folder / f"r{number}"
        )
        assert reported.returncode == 1, "a report was made of a damaged checkpoint"
        one_sentence(reported.stderr, str(broken / "ckpt.pt"))
        resumed = workspace.run(*launch_words(workspace.shards, broken, EVERY, steps=12))
        assert resumed.returncode == 0, resumed.stderr
        assert f"skipped a checkpoint: {broken / DAMAGED}" in resumed.stderr, "it fell back without a word"
        assert "step-00000005.pt at step 5" in resumed.stderr, resumed.stderr
    return (
        f"{len(damages)} of {len(damages)} damages found, each time the one before was chosen; {len(tried)} times the "
        "real trainer fell back and said so, and the report refused"
    )


def _unlinked_copy(run: Path) -> Path:
    """A copy of a run in which ckpt.pt is a file of its own."""
    copy = run.with_name(f"copy {len(list(run.parent.glob('copy *')))}")
    shutil.copytree(run, copy)
    return copy
