"""`--out` behind an fsspec URL: staged, uploaded, read back; tried on file://."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.preprocess.test_nothing_lost import command
from tests.preprocess.trees import hashes, invoke, shard

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.local import LocalFileSystem  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stages lie; it must be empty after each command that was not killed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmd-vlae"


def url(folder: Path) -> str:
    return f"file://{folder}"


def failing_after(uploads: int, original: Callable) -> Callable:
    """An upload that works so many times; a shard is one, and so are its record, the recipe and the manifest."""
    left = [uploads]

    def put_file(self: LocalFileSystem, source: str, target: str, **options: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionResetError("connection reset by peer")
        original(self, source, target, **options)

    return put_file


def test_a_url_gets_what_a_folder_gets(tree: Path, shards: Path, cache: Path, tmp_path: Path) -> None:
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
    assert placed[0] == "recipe.json"
    assert placed[-1] == "manifest.json"
    assert sum(name.endswith(".tar") for name in placed) == 4
    assert all(placed[i + 1] == f"{name}.json" for i, name in enumerate(placed) if name.endswith(".tar"))


def test_an_upload_that_fails_is_gone_on_with(
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
    assert "2 of 4 shards are there already" in done.stderr
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert hashes(out) == hashes(shards)


def test_killed_and_run_again(tree: Path, shards: Path, cache: Path, tmp_path: Path) -> None:
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
    assert "2 of 4 shards are there already" in done.stderr
    assert hashes(out) == hashes(shards)


def test_what_reads_back_different_is_no_success(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_another_recipe_at_the_url_is_refused(tree: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shard(tree, url(out), "--crop", 108).exit_code == 0
    before = hashes(out)
    done = shard(tree, url(out))
    assert done.exit_code == 2
    assert "crop centre 108 there, centre 148 now" in done.stderr
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
def test_urls_that_cannot_be_used(out: str, words: str, tree: Path) -> None:
    done = shard(tree, out)
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_place_that_cannot_be_written_to(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = shard(tree, url(tmp_path / "file" / "out"))
    assert done.exit_code == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
