"""A disk that fills up in each stage: a small file system in memory, which takes the right to mount one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.fault import UNFINISHED_NAME, Mutation, NotSupportedHere, Workspace, fault, one_sentence
from tests.faults.folder_hashes import hashes
from tests.faults.trainer_runs import EVERY_STEP, resumed_at
from tests.pipeline.launching import launch_words

SETTINGS = (*EVERY_STEP, "training.checkpoint_every_steps=2", "training.keep_checkpoints=100")


@fault(
    "disk full",
    "a full disk in preprocessing, training, the report: one clear sentence, earlier results intact, no partial file "
    "under a final name, resumable",
    UNFINISHED_NAME,
    Mutation("message for torch's failed write", "pipeline.checkpoint.file:write_checkpoint", "shows_causes"),
    Mutation(
        "temporary name of an unfinished shard",
        "preprocess.build.worker:_write_shard",
        "is_set_to",
        "lambda task, file: (lambda named: original(task, type('Both', (), {'write': lambda self, data: "
        "(named.write(data), file.write(data))[1]})()))((task.folder / task.file).open('wb', buffering=0))",
    ),
    Mutation(
        "message for a full disk",
        "preprocess.progress:_exit",
        "is_set_to",
        "lambda sentence, code, error: (_ for _ in ()).throw(error)",
    ),
)
def disk_full(workspace: Workspace) -> str:
    """Fills the disk in each stage, makes room, and resumes."""
    kept = [_preprocess(workspace), _train(workspace), _report(workspace, workspace.folder / "kept")]
    return "; ".join(kept)


def _preprocess(workspace: Workspace) -> str:
    words = ["preprocess", "celeba", "--source", workspace.faces, "--size", 32, "--shard-size", 30, "--workers", 1]
    whole = workspace.folder / "whole"
    assert workspace.run(*words, "--out", whole).returncode == 0
    with small_disk(workspace.subfolder("preprocess"), 1000) as disk:
        out = disk / "shards"
        full = workspace.run(*words, "--out", out)
        _fails(full, "is full")
        finished = {path.name for path in out.glob("*.tar")}
        assert finished, "nothing fitted at all: the test's disk is too small"
        expected = hashes(whole)
        wrong = [name for name in finished if hashes(out)[name] != expected[name]]
        assert not wrong, f"half-written under its final name: {wrong}"
        assert not (out / "manifest.json").exists()
        grow(disk)
        again = workspace.run(*words, "--out", out)
        assert again.returncode == 0, again.stderr
        assert f"{len(finished)} of {len(expected) - 1} shards are already finished" in again.stderr, again.stderr
        assert hashes(out) == expected
    return f"preprocessing kept {len(finished)} shards"


def _train(workspace: Workspace) -> str:
    with small_disk(workspace.subfolder("train"), 3000) as disk:
        out = disk / "run"
        full = workspace.run(*launch_words(workspace.shards, out, *SETTINGS, steps=200))
        _fails(full, "the checkpoints written so far are complete")
        steps = [int(path.stem[5:]) for path in (out / "checkpoints").glob("step-*.pt")]
        assert steps, "not one checkpoint fitted: the test's disk is too small"
        assert not list(out.rglob(".*.tmp")), "a temporary file still takes up the full disk"
        grow(disk)
        again = workspace.run(*launch_words(workspace.shards, out, *SETTINGS, steps=max(steps) + 2))
        assert again.returncode == 0, again.stderr
        assert "skipped a checkpoint" not in again.stderr, f"half-written under its final name: {again.stderr}"
        assert resumed_at(again.stderr) == max(steps), again.stderr
        shutil.copytree(out, workspace.folder / "kept")
    return f"training kept {len(steps)} checkpoints and continued from step {max(steps)}"


def _report(workspace: Workspace, run: Path) -> str:
    with small_disk(workspace.subfolder("small"), 300) as disk:
        out = disk / "report"
        words = ["analysis", "report", run / "ckpt.pt", "--samples", 40, "--out", out]
        full = workspace.run(*words)
        _fails(full, "No space left on device")
        assert not (out / "index.html").exists(), "a page without its pictures"
        assert not list(out.rglob(".*.tmp")), "a temporary file still takes up the full disk"
        if not workspace.full:
            return "the report left nothing"
        grow(disk)
        again = workspace.run(*words)
        assert again.returncode == 0, again.stderr
        assert (out / "index.html").read_text().rstrip().endswith("</html>")
    return "the report was made again"


def _fails(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 1, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    one_sentence(done.stderr, words)


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    """Mounts a file system in memory. Raises NotSupportedHere where that is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise NotSupportedHere(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)


def grow(disk: Path) -> None:
    """Makes room."""
    subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
