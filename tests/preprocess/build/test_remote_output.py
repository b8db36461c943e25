"""`--out` with an fsspec URL: shards are staged, uploaded and read back. Tested with file://."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from preprocess.build import build
from preprocess.build.worker import ShardRecord
from tests.preprocess.trees import command, hashes, invoke, shard

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.local import LocalFileSystem  # noqa: E402
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stages, which must be empty after each command that was not killed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmd-vlae"


def url(folder: Path) -> str:
    return f"file://{folder}"


def failing_after(uploads: int, original: Callable) -> Callable:
    """Returns an upload that fails after `uploads` files: each shard, its record, the specification, the manifest."""
    left = [uploads]

    def put_file(self: LocalFileSystem, source: str, target: str, **options: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionResetError("connection reset by peer")
        original(self, source, target, **options)

    return put_file


def test_url_gets_the_same_files_as_a_folder(tree: Path, shards: Path, cache: Path, tmp_path: Path) -> None:
    done = shard(tree, url(tmp_path / "deep" / "out"))
    assert done.exit_code == 0, done.stderr
    assert hashes(tmp_path / "deep" / "out") == hashes(shards)
    assert invoke("verify", tmp_path / "deep" / "out").exit_code == 0
    assert list(cache.iterdir()) == []


def test_the_manifest_is_uploaded_last(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[str] = []
    original = LocalFileSystem.mv

    def mv(self: LocalFileSystem, source: str, target: str, **options: object) -> None:
        placed.append(Path(target).name)
        original(self, source, target, **options)

    monkeypatch.setattr(LocalFileSystem, "mv", mv)
    assert shard(tree, url(tmp_path / "out")).exit_code == 0
    assert placed[0] == "spec.json"
    assert placed[-1] == "manifest.json"
    assert sum(name.endswith(".tar") for name in placed) == 4
    assert all(placed[i + 1] == f"{name}.json" for i, name in enumerate(placed) if name.endswith(".tar"))


def test_rerun_continues_after_a_failed_upload(
    tree: Path, shards: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as broken:
        broken.setattr(LocalFileSystem, "put_file", failing_after(5, LocalFileSystem.put_file))
        done = shard(tree, url(out))
    assert done.exit_code == 1
    assert "could not be uploaded (connection reset by peer)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "manifest.json").exists()
    assert list(cache.iterdir()) == []
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert len(kept) == 2
    done = shard(tree, url(out))
    assert done.exit_code == 0, done.stderr
    assert "2 of 4 shards are already finished" in done.stderr
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert hashes(out) == hashes(shards)


def test_rerun_after_kills_makes_the_same_bytes(tree: Path, shards: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for wanted in (1, 3):
        process = command(tree, url(out), "--shard-size", 20)
        while process.poll() is None and len(list(out.glob("*.tar"))) < wanted:
            pass
        process.kill()
        process.communicate()
    done = shard(tree, url(out))
    assert done.exit_code == 0, done.stderr
    assert hashes(out) == hashes(shards)
    assert list(cache.iterdir()) == []


def test_damaged_and_missing_shards_are_made_again(tree: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shard(tree, url(out)).exit_code == 0
    damaged = bytearray((out / "train-000001.tar").read_bytes())
    damaged[5000] ^= 1
    (out / "train-000001.tar").write_bytes(damaged)
    (out / "test-000000.tar").unlink()
    done = shard(tree, url(out))
    assert done.exit_code == 0, done.stderr
    assert "2 of 4 shards are already finished" in done.stderr
    assert hashes(out) == hashes(shards)


def test_upload_that_reads_back_different_fails(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LocalFileSystem.put_file

    def put_file(self: LocalFileSystem, source: str, target: str, **options: object) -> None:
        original(self, source, target, **options)
        if ".tar-partial" in target:
            os.truncate(target, 4096)

    monkeypatch.setattr(LocalFileSystem, "put_file", put_file)
    done = shard(tree, url(tmp_path / "out"))
    assert done.exit_code == 1
    assert "reads back different" in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_shards_of_other_options_at_the_url_are_refused(tree: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shard(tree, url(out), "--crop", 108).exit_code == 0
    before = hashes(out)
    done = shard(tree, url(out))
    assert done.exit_code == 2
    assert "crop center 108 there, center 148 now" in done.stderr
    assert hashes(out) == before
    assert shard(tree, url(out), "--overwrite").exit_code == 0
    assert hashes(out) == hashes(shards)
    (out / "manifest.json").unlink()
    done = shard(tree, url(out))
    assert done.exit_code == 2
    assert "without a manifest" in done.stderr


@pytest.mark.parametrize(
    ("out", "words"),
    [("memory://shards", "gone when the command ends"), ("nonsense://shards", "Protocol not known")],
)
def test_unusable_urls_are_refused(out: str, words: str, tree: Path) -> None:
    done = shard(tree, out)
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_url_without_write_permission_gives_one_sentence(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = shard(tree, url(tmp_path / "file" / "out"))
    assert done.exit_code == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def bucket(shards: Path) -> Iterator[MemoryFileSystem]:
    """The shards in an object store, at memory://bucket/set."""
    fs = MemoryFileSystem()
    fs.put(str(shards), "/bucket/set", recursive=True)
    yield fs
    fs.rm("/bucket", recursive=True)


def test_verify_and_show_read_a_url(bucket: MemoryFileSystem, shards: Path, tmp_path: Path) -> None:
    done = invoke("verify", "memory://bucket/set")
    assert done.exit_code == 0, done.stderr
    assert "4 shards, 50 samples, none damaged" in done.stdout
    sheets = set()
    for place in ("memory://bucket/set/", url(shards), shards):
        done = invoke("show", place, "--out", tmp_path / "sheet.png", "--rows", 2)
        assert done.exit_code == 0, done.stderr
        sheets.add((tmp_path / "sheet.png").read_bytes())
    assert len(sheets) == 1


def test_verify_of_a_url_names_each_problem(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    flipped = bytearray(bucket.cat_file("/bucket/set/train-000000.tar"))
    flipped[9000] ^= 1
    bucket.pipe_file("/bucket/set/train-000000.tar", bytes(flipped))
    bucket.pipe_file("/bucket/set/train-000001.tar", bytes(flipped[:5120]))
    bucket.rm("/bucket/set/valid-000000.tar")
    bucket.pipe_file("/bucket/set/holiday.jpg", b"")
    done = invoke("verify", "memory://bucket/set")
    assert done.exit_code == 1
    for words in (
        "memory://bucket/set/train-000000.tar: its content has changed",
        "train-000001.tar: it has 5,120 bytes",
        "valid-000000.tar: it is missing",
        "holiday.jpg: not part of this set",
        "4 problems",
    ):
        assert words in done.stderr
    assert "test-000000.tar" not in done.stderr
    done = invoke("show", "memory://bucket/set", "--out", tmp_path / "sheet.png", "--rows", 9)
    assert done.exit_code == 1
    assert "train-000001.tar cannot be read" in done.stderr
    assert not (tmp_path / "sheet.png").exists()


def unreachable(*arguments: object) -> bytes:
    raise ConnectionResetError("connection reset by peer")


def without_its_library(*arguments: object) -> None:
    raise ImportError("Install s3fs to access S3")


@pytest.mark.parametrize("name", ["verify", "show"])
def test_unreadable_url_gives_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, code, words in (
        ("memory://nothing/here", 1, "holds no finished shards"),
        ("nonsense://bucket/set", 2, "Protocol not known"),
    ):
        refused(invoke(name, place), code, words)
    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "cat_file", unreachable)
        refused(invoke(name, "memory://nothing/here"), 1, "cannot be read (connection reset by peer)")
    monkeypatch.setattr(fsspec.core, "url_to_fs", without_its_library)
    refused(invoke(name, "s3://bucket/set"), 2, "s3://bucket/set cannot be used: Install s3fs")


def refused(done: Result, code: int, words: str) -> None:
    assert done.exit_code == code
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def with_another_run(monkeypatch: pytest.MonkeyPatch, *, after: int, run: Callable[[], object]) -> None:
    """Lets a run of another machine, with its own stage, write to the URL after a number of shards."""
    run_tasks = build.run_tasks

    def interrupted(*arguments: object) -> Iterator[ShardRecord]:
        for number, record in enumerate(run_tasks(*arguments)):
            if number == after:
                with monkeypatch.context() as elsewhere:
                    elsewhere.setattr(build, "run_tasks", run_tasks)
                    elsewhere.setenv("XDG_CACHE_HOME", os.environ["XDG_CACHE_HOME"] + "-elsewhere")
                    run()
            yield record

    monkeypatch.setattr(build, "run_tasks", interrupted)


def test_two_machines_with_equal_options_make_one_set(
    tree: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[int] = []
    out = url(tmp_path / "out")
    with_another_run(monkeypatch, after=2, run=lambda: others.append(shard(tree, out).exit_code))
    done = shard(tree, out)
    assert done.exit_code == 0, done.stderr
    assert others == [0]
    assert hashes(tmp_path / "out") == hashes(shards)


def test_two_machines_with_other_options_do_not_mix(
    tree: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[int] = []
    out = url(tmp_path / "out")

    def another() -> None:
        others.append(shard(tree, out, "--crop", 108).exit_code)  # is refused
        others.append(shard(tree, out, "--overwrite").exit_code)  # takes over

    with_another_run(monkeypatch, after=2, run=another)
    done = shard(tree, out, "--crop", 120)
    assert done.exit_code == 1
    assert "another run has begun to write" in done.stderr
    assert "crop center 148 there, center 120 now" in done.stderr
    assert others == [2, 0]
    assert hashes(tmp_path / "out") == hashes(shards)


@pytest.mark.parametrize("place", [str, url], ids=["folder", "url"])
def test_run_without_usable_images_leaves_the_output_free(
    place: Callable, tree: Path, shards: Path, tmp_path: Path
) -> None:
    done = shard(tree, place(tmp_path / "out"), "--crop", 500)
    assert done.exit_code == 1
    assert "no image could be used" in done.stderr
    assert shard(tree, place(tmp_path / "out")).exit_code == 0
    assert hashes(tmp_path / "out") == hashes(shards)
