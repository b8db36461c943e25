"""Interruptions, other options, full disks and damaged shards: finished shards are kept, damaged ones are replaced."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import Result

from preprocess.build import build, executors, worker
from preprocess.build.worker import ShardRecord, ShardTask, make_shard
from preprocess.shards.manifest import Manifest
from tests.preprocess.trees import command, hashes, invoke, shard, write_tree


def test_only_missing_and_damaged_shards_are_made_again(tree: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    (out / "train-000000.tar").unlink()
    damaged = bytearray((out / "valid-000000.tar").read_bytes())
    damaged[5000] ^= 4
    (out / "valid-000000.tar").write_bytes(damaged)
    before = (out / "train-000001.tar").stat().st_mtime_ns
    done = shard(tree, out)
    assert done.exit_code == 0, done.stderr
    assert "2 of 4 shards are already finished" in done.stderr
    assert hashes(out) == hashes(shards)
    assert (out / "train-000001.tar").stat().st_mtime_ns == before


def test_left_out_images_are_kept_in_the_manifest(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", 30)
    for number in (3, 8, 30):
        (tree / "img_align_celeba" / f"{number:06d}.jpg").write_bytes(b"")
    assert shard(tree, tmp_path / "out", "--max-bad", 0.1, shard_size=6).exit_code == 0
    first = hashes(tmp_path / "out")
    (tmp_path / "out" / "train-000001.tar").unlink()
    assert shard(tree, tmp_path / "out", "--max-bad", 0.1, shard_size=6).exit_code == 0
    assert hashes(tmp_path / "out") == first
    assert len(Manifest.read(tmp_path / "out").left_out) == 3


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (("--crop", "108"), "crop center 148 there, center 108 now"),
        (("--size", "16"), "image shape 32x32x3 there, 16x16x3 now"),
        (("--seed", "4"), "seed 0 there, 4 now"),
        (("--limit", "9"), "limit none there, 9 now"),
    ],
)
def test_other_options_are_refused(words: tuple[str, ...], difference: str, tree: Path, shards: Path) -> None:
    before = hashes(shards)
    done = shard(tree, shards, *words)
    assert done.exit_code == 2
    assert difference in done.stderr
    assert "--overwrite" in done.stderr
    assert hashes(shards) == before


def test_another_source_is_refused_unless_overwritten(shards: Path, tree: Path, tmp_path: Path) -> None:
    other = write_tree(tmp_path / "other", 12)
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    done = shard(other, out)
    assert done.exit_code == 2
    assert "another source" in done.stderr
    assert shard(other, out, "--overwrite").exit_code == 0
    assert Manifest.read(out).samples == 12
    assert invoke("verify", out).exit_code == 0
    assert shard(tree, out, "--overwrite").exit_code == 0
    assert hashes(out) == hashes(shards)


def test_second_run_in_one_folder_is_refused(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        done = shard(tree, out)
    assert done.exit_code == 1
    assert "another run is writing" in done.stderr
    assert shard(tree, out).exit_code == 0  # a lock file that nobody holds is no obstacle


def test_full_disk_keeps_finished_shards(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", out], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        done = shard(tree, out, shard_size=4)
        assert done.exit_code == 1
        assert "is full" in done.stderr
        assert "Traceback" not in done.stderr
        finished = list(out.glob("*.tar"))
        assert finished
        assert f"{len(finished)} of 14 shards are finished and kept" in done.stderr
        assert len({path.stat().st_size for path in finished}) == 1
        assert not (out / "manifest.json").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", out], check=True)
        again = shard(tree, out, shard_size=4)
        assert again.exit_code == 0, again.stderr
        assert f"{len(finished)} of 14 shards are already finished" in again.stderr
    finally:
        subprocess.run(["umount", out], check=False)


def test_failed_shard_loses_no_other_shard(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is making a shard when another one fails: the run waits for that shard, and counts it."""
    failed = threading.Event()
    started: list[str] = []

    def work(task: ShardTask) -> ShardRecord:
        started.append(task.file)
        if task.file == "train-000001.tar":
            failed.set()
            raise OSError(errno.EIO, "Input/output error")
        assert failed.wait(60)
        time.sleep(0.1)  # the failure is seen first
        return make_shard(task)

    monkeypatch.setattr(worker, "make_shard", work)
    monkeypatch.setattr(executors, "choose_executor", lambda _: ThreadPoolExecutor)
    done = shard(tree, tmp_path / "out", "--workers", 2, shard_size=4)
    assert done.exit_code == 1
    finished = list((tmp_path / "out").glob("*.tar"))
    assert "Input/output error" in done.stderr
    assert f"{len(finished)} of 14 shards are finished and kept" in done.stderr
    assert "train-000000.tar" in {path.name for path in finished}
    assert len(started) < 14  # no further shard is started


def test_more_bad_images_than_a_manifest_can_list_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = write_tree(tmp_path / "tree", 40)
    for number in range(1, 21):
        (tree / "img_align_celeba" / f"{number:06d}.jpg").write_bytes(b"")
    monkeypatch.setattr(build, "MAX_MANIFEST_BYTES", 2000)
    for _ in range(2):  # among new shards, and among finished ones
        done = shard(tree, tmp_path / "out", "--max-bad", 0.9)
        assert done.exit_code == 1
        assert "more images cannot be used than a manifest can list" in done.stderr
        assert "empty file" in done.stderr
    monkeypatch.undo()
    assert shard(tree, tmp_path / "out", "--max-bad", 0.9).exit_code == 0


def test_large_crops_are_resized_a_few_at_a_time(
    tree: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BATCH_BYTES", 148 * 148 * 3 * 2)
    monkeypatch.setattr(executors, "choose_executor", lambda _: ThreadPoolExecutor)
    assert shard(tree, tmp_path / "out").exit_code == 0
    assert hashes(tmp_path / "out") == hashes(shards)


def test_lost_cluster_gives_one_sentence(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(ThreadPoolExecutor):
        def submit(self, *_: object, **__: object) -> Future:
            future: Future = Future()
            future.cancel()  # as a Dask client does with its futures when its scheduler died
            future.set_running_or_notify_cancel()
            return future

    monkeypatch.setattr(executors, "choose_executor", lambda _: Lost)
    done = shard(tree, tmp_path / "out")
    assert done.exit_code == 1
    assert "the Dask cluster was lost" in done.stderr and "Traceback" not in done.stderr


def test_file_size_limit_gives_one_sentence(tree: Path, tmp_path: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    process = command(tree, tmp_path / "out", preexec_fn=small_files_only)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: " in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "out").glob("*.tar")) == []


def test_interrupt_leaves_no_traceback(tree: Path, tmp_path: Path) -> None:
    process = command(tree, tmp_path / "out")
    while not (tmp_path / "out" / ".unfinished").exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in {0, 130}
    assert "Traceback" not in errors


@pytest.mark.parametrize("command_name", ["celeba", "images"])
@pytest.mark.parametrize("same_size", [False, True])
def test_source_that_changes_during_the_run_is_refused(
    command_name: str, same_size: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "tree", 12)
    run_tasks = build.run_tasks

    def run_and_change(*arguments: object) -> Iterator[ShardRecord]:
        yield from run_tasks(*arguments)
        image = tree / "img_align_celeba" / "000003.jpg"
        image.write_bytes(bytes(image.stat().st_size) if same_size else b"shorter now")

    monkeypatch.setattr(build, "run_tasks", run_and_change)
    if command_name == "celeba":
        done = shard(tree, tmp_path / "out")
    else:
        done = invoke("images", tree, "--out", tmp_path / "out", "--size", 32, "--workers", 1)
    assert done.exit_code == 1
    assert "source changed while it was read" in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.undo()

    def make(out: Path, *words: object) -> Result:
        if command_name == "celeba":
            return shard(tree, out, "--max-bad", 0.5, *words)
        return invoke("images", tree, "--out", out, "--size", 32, "--workers", 1, "--max-bad", 0.5, *words)

    assert make(tmp_path / "out").exit_code == 2
    again = make(tmp_path / "out", "--overwrite")
    assert again.exit_code == 0, again.stderr
    assert "already finished" not in again.stderr, "shards of the old source were kept"
    assert make(tmp_path / "new").exit_code == 0
    assert hashes(tmp_path / "out") == hashes(tmp_path / "new")
