"""Checkpoints with flipped bits and cut ends: read by the trainer, the report and the public functions."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from tests.faults.damaged_shards import one_sentence
from tests.faults.fault import Mutation, Workspace, fault
from tests.pipeline.launching import launch_words

SCRIPT = """
import json, sys
from pathlib import Path
from pipeline.checkpoint.file import CheckpointError, read_checkpoint
from pipeline.checkpoint.manager import newest_valid
damages, run = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
target = run / "checkpoints/step-00000010.pt"
whole, missed, fallen_back = target.read_bytes(), [], 0
for damage, place in damages:
    content = bytearray(whole)
    if damage == "cut":
        del content[place:]
    else:
        content[place // 8] ^= 1 << place % 8
    target.write_bytes(content)
    try:
        read_checkpoint(target)
        missed.append([damage, place])
    except CheckpointError as error:
        assert str(target) in str(error) and "\\n" not in str(error), error
    path, state, passed_over = newest_valid(run)
    fallen_back += path.name == "step-00000005.pt" and len(passed_over) == 1 and state["progress"]["step"] == 5
target.write_bytes(whole)
read_checkpoint(target)
print(json.dumps({"missed": missed, "fallen_back": fallen_back}))
"""


@fault(
    "damaged checkpoints",
    "100 bit flips, 20 truncations: all found; the trainer falls back to the newest whole one and says so; the report "
    "refuses",
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
    often = "training.checkpoint_every_steps=5"
    done = workspace.run(*launch_words(workspace.shards, run, often, steps=10))
    assert done.returncode == 0, done.stderr
    target = run / "checkpoints/step-00000010.pt"
    size, places = target.stat().st_size, random.Random(7)
    damages = [("flip", places.randrange(8 * size)) for _ in range(100)]
    damages += [("cut", length) for length in (0, 1, size - 1, size - 64, *(places.randrange(size) for _ in range(16)))]
    (workspace.folder / "damages.json").write_text(json.dumps(damages))
    read = workspace.run("python", "-c", SCRIPT, workspace.folder / "damages.json", _unlinked_copy(run))
    assert read.returncode == 0, read.stderr
    result = json.loads(read.stdout)
    assert not result["missed"], f"{len(result['missed'])} of {len(damages)} damages were not found: {result['missed']}"
    assert result["fallen_back"] == len(damages), f"fell back {result['fallen_back']} of {len(damages)} times"

    tried = (
        (("flip", 4 * size), ("flip", 8 * size - 3), ("cut", size // 2)) if workspace.full else (("flip", 4 * size),)
    )
    for number, (damage, place) in enumerate(tried):
        broken = _unlinked_copy(run)
        content = bytearray(target.read_bytes())
        if damage == "cut":
            del content[place:]
        else:
            content[place // 8] ^= 1 << place % 8
        for path in (broken / "checkpoints/step-00000010.pt", broken / "ckpt.pt"):
            path.write_bytes(content)
        reported = workspace.run(
            "analysis", "report", broken / "ckpt.pt", "--samples", 40, "--out", workspace.folder / f"r{number}"
        )
        assert reported.returncode == 1, "a report was made of a damaged checkpoint"
        one_sentence(reported.stderr, str(broken / "ckpt.pt"))
        resumed = workspace.run(*launch_words(workspace.shards, broken, often, steps=12))
        assert resumed.returncode == 0, resumed.stderr
        assert f"skipped a checkpoint: {broken / 'checkpoints/step-00000010.pt'}" in resumed.stderr, (
            "it fell back without a word"
        )
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
