"""A disk that fills up in each stage: a small file system in memory, which takes the right to mount one."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.fault import Mutation, NotSupportedHere, Workspace, fault
from tests.faults.trainer_runs import EVERY_STEP, resumed_at
from tests.launch.runs import trainer_words

TRAIN = ("python", "pipeline/train.py")
SETTINGS = (*EVERY_STEP, "training.checkpoint_every_steps=2", "training.keep_checkpoints=100")


@fault(
    "disk full",
    "a full disk in preprocessing, training, the report: one clear sentence, earlier results intact, no partial file "
    "under a final name, resumable",
    Mutation(
        "temporary name of an unfinished file",
        "preprocess.shards.atomic:replace_file",
        "is_set_to",
        "contextlib.contextmanager(lambda path, temporary=None, durable=True: (path for _ in [0]))",
    ),
    Mutation("message for torch's failed write", "pipeline.checkpoint.file:write_checkpoint", "shows_causes"),
    Mutation(
        "temporary name of an unfinished shard",
        "preprocess.build.worker:_write_shard",
        "is_set_to",
        "lambda task, file: original(task, (task.folder / task.file).open('wb', buffering=0))",
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
        out = disk.folder / "shards"
        full = workspace.run(*words, "--out", out)
        _one_sentence(full, "is full")
        finished = {path.name for path in out.glob("*.tar")}
        assert finished, "nothing fitted at all: the test's disk is too small"
        expected = hashes(whole)
        wrong = [name for name in finished if hashes(out)[name] != expected[name]]
        assert not wrong, f"half-written under its final name: {wrong}"
        assert not (out / "manifest.json").exists()
        disk.grow()
        again = workspace.run(*words, "--out", out)
        assert again.returncode == 0, again.stderr
        assert f"{len(finished)} of {len(expected) - 1} shards are already finished" in again.stderr, again.stderr
        assert hashes(out) == expected
    return f"preprocessing kept {len(finished)} shards"


def _train(workspace: Workspace) -> str:
    with small_disk(workspace.subfolder("train"), 3000) as disk:
        out = disk.folder / "run"
        words = [*TRAIN, *trainer_words(workspace.shards, out, *SETTINGS, steps=200)]
        full = workspace.run(*words, env={"CUDA_VISIBLE_DEVICES": ""})
        _one_sentence(full, "the checkpoints written so far are complete")
        steps = [int(path.stem[5:]) for path in (out / "checkpoints").glob("step-*.pt")]
        assert steps, "not one checkpoint fitted: the test's disk is too small"
        assert not list(out.rglob(".*.tmp")), "a temporary file still takes up the full disk"
        disk.grow()
        words = [*TRAIN, *trainer_words(workspace.shards, out, *SETTINGS, steps=max(steps) + 2)]
        again = workspace.run(*words, env={"CUDA_VISIBLE_DEVICES": ""})
        assert again.returncode == 0, again.stderr
        assert "skipped a checkpoint" not in again.stderr, f"half-written under its final name: {again.stderr}"
        assert resumed_at(again.stderr) == max(steps), again.stderr
        shutil.copytree(out, workspace.folder / "kept")
    return f"training kept {len(steps)} checkpoints and continued from step {max(steps)}"


def _report(workspace: Workspace, run: Path) -> str:
    with small_disk(workspace.subfolder("small"), 300) as disk:
        out = disk.folder / "report"
        words = ["analysis", "report", run / "ckpt.pt", "--samples", 40, "--out", out]
        full = workspace.run(*words)
        _one_sentence(full, "No space left on device")
        assert not (out / "index.html").exists(), "a page without its pictures"
        assert not list(out.rglob(".*.tmp")), "a temporary file still takes up the full disk"
        if not workspace.full:
            return "the report left nothing"
        disk.grow()
        again = workspace.run(*words)
        assert again.returncode == 0, again.stderr
        assert (out / "index.html").read_text().rstrip().endswith("</html>")
    return "the report was made again"


def hashes(shards: Path) -> dict[str, str]:
    """SHA-256 of each shard and of the manifest."""
    files = [*shards.glob("*.tar"), *shards.glob("manifest.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _one_sentence(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 1, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and words in said[0], f"not one sentence with '{words}': {done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr, done.stderr[-2000:]


@dataclass
class SmallDisk:
    """A file system in memory."""

    folder: Path

    def grow(self) -> None:
        """Makes room."""
        subprocess.run(["mount", "-o", "remount,size=200m", self.folder], check=True)


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[SmallDisk]:
    """Mounts one. Raises NotSupportedHere where that is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise NotSupportedHere(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)
