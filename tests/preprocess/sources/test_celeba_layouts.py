"""The forms in which people have CelebA, and what happens when they do not have it."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest
from torchvision.datasets import MNIST, CelebA, utils

from preprocess.shards.manifest import Manifest
from preprocess.shards.reader import ShardSet
from tests.preprocess.sources.test_mnist import write_digits
from tests.preprocess.trees import hashes, invoke, jpeg, shard, write_tree, write_zip


def shard_hashes(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name.endswith(".tar")}


def kaggle_tree(tree: Path, folder: Path) -> Path:
    """Kaggle's layout: the images one level deeper, the lists as CSVs with a header, no identities."""
    shutil.copytree(tree / "img_align_celeba", folder / "img_align_celeba" / "img_align_celeba")
    lines = (tree / "list_attr_celeba.txt").read_text().splitlines()[1:]
    rows = ["image_id," + ",".join(lines[0].split()), *(",".join(line.split()) for line in lines[1:])]
    (folder / "list_attr_celeba.csv").write_text("\n".join(rows) + "\n")
    lines = (tree / "list_eval_partition.txt").read_text().splitlines()
    rows = ["image_id,partition", *(line.replace(" ", ",") for line in lines)]
    (folder / "list_eval_partition.csv").write_text("\n".join(rows) + "\n")
    (folder / "list_bbox_celeba.csv").write_text("image_id,x_1,y_1,width,height\n")
    return folder


def without_identities(tree: Path, folder: Path) -> Path:
    shutil.copytree(tree, folder)
    (folder / "identity_CelebA.txt").unlink()
    return folder


def test_kaggles_folder_and_archive(tree: Path, tmp_path: Path) -> None:
    assert shard(without_identities(tree, tmp_path / "plain"), tmp_path / "expected").exit_code == 0
    folder = kaggle_tree(tree, tmp_path / "kaggle")
    done = shard(folder, tmp_path / "loose")
    assert done.exit_code == 0, done.stderr
    assert shard_hashes(tmp_path / "loose") == shard_hashes(tmp_path / "expected")
    holder = tmp_path / "downloads"
    holder.mkdir()
    with zipfile.ZipFile(holder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    for source, out in ((holder / "archive.zip", "archive"), (holder, "beside")):
        done = shard(source, tmp_path / out)
        assert done.exit_code == 0, done.stderr
        assert "(kaggle)" in done.stderr
        assert shard_hashes(tmp_path / out) == shard_hashes(tmp_path / "expected")


def test_members_that_climb_or_link_are_left_out_with_the_reason(tree: Path, shards: Path, tmp_path: Path) -> None:
    official = tmp_path / "CelebA"
    shutil.copytree(tree, official, ignore=shutil.ignore_patterns("img_align_celeba"))
    write_zip(tree, official / "img_align_celeba.zip")
    link = zipfile.ZipInfo("000900.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(official / "img_align_celeba.zip", "a") as archive:
        archive.writestr("../../000901.jpg", jpeg(1))
        archive.writestr(link, "/etc/passwd")
    done = shard(official, tmp_path / "out", "--max-bad", "0.1")
    assert done.exit_code == 0, done.stderr
    reasons = {left.key: left.reason for left in Manifest.read(tmp_path / "out").left_out}
    assert set(reasons) == {"../../000901.jpg", "000900.jpg"}
    assert "leaves the archive" in reasons["../../000901.jpg"] and "a link" in reasons["000900.jpg"]
    assert shard_hashes(tmp_path / "out") == shard_hashes(shards), "all others are as ever"
    assert not (tmp_path.parent / "000901.jpg").exists()
    assert shard(official, tmp_path / "strict").exit_code == 1, "two in 52 are more than --max-bad allows by default"


def test_the_official_folders(tree: Path, shards: Path, tmp_path: Path) -> None:
    official = tmp_path / "CelebA"
    for folder in ("Img", "Anno", "Eval"):
        (official / folder).mkdir(parents=True)
    write_zip(tree, official / "Img" / "img_align_celeba.zip")
    shutil.copy(tree / "list_attr_celeba.txt", official / "Anno")
    shutil.copy(tree / "identity_CelebA.txt", official / "Anno")
    shutil.copy(tree / "list_eval_partition.txt", official / "Eval")
    done = shard(official, tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert shard_hashes(tmp_path / "out") == shard_hashes(shards)


def test_square_images_are_not_cropped(tmp_path: Path) -> None:
    images = tmp_path / "CelebAMask-HQ" / "CelebA-HQ-img"
    images.mkdir(parents=True)
    for number in range(6):
        (images / f"{number}.jpg").write_bytes(jpeg(number, 256, 256))
    masks = tmp_path / "CelebAMask-HQ" / "CelebAMask-HQ-mask-anno" / "0"
    masks.mkdir(parents=True)
    (masks / "00000_hair.png").write_bytes(b"a mask, not a face")
    rows = "".join(f"{number}.jpg  -1  1\n" for number in range(6))
    (tmp_path / "CelebAMask-HQ" / "CelebAMask-HQ-attribute-anno.txt").write_text(f"6\nMale Smiling\n{rows}")
    done = shard(tmp_path, tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "the images are square" in done.stderr
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.crop.kind == "square"
    assert manifest.samples == 6
    assert ShardSet.open(tmp_path / "out").annotations("train").attributes[0].tolist() == [0, 1]
    assert shard(tmp_path, tmp_path / "cropped", "--crop", 148).exit_code == 0
    assert Manifest.read(tmp_path / "cropped").crop.size == 148


def test_small_images_are_not_all_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(jpeg(number, 90, 130))
    done = shard(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "smaller than the usual crop" in done.stderr
    assert Manifest.read(tmp_path / "out").samples == 6
    done = shard(tmp_path / "in", tmp_path / "none", "--crop", 148)
    assert done.exit_code == 1
    assert "no image could be used (the first: 90 x 130 is smaller than the crop of 148 x 148)" in done.stderr


def test_the_kind_is_said_and_can_be_forced(tree: Path, shards: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(tree, both)
    write_zip(tree, both / "img_align_celeba.zip")
    for words, said in (
        ((), "a folder of aligned CelebA images (folder), 50 images; override with --kind"),
        (("--kind", "folder"), "(folder), 50 images; as set by --kind"),
        (
            ("--kind", "archive"),
            "celeba.zip: an archive of aligned CelebA images (archive), 50 images; as set by --kind",
        ),
    ):
        out = tmp_path / f"out{len(words)}{words[-1:]}"
        done = shard(both, out, *words)
        assert done.exit_code == 0, done.stderr
        assert said in " ".join(done.stderr.split())
        assert shard_hashes(out) == shard_hashes(shards)
    done = shard(both, tmp_path / "hq", "--kind", "hq")
    assert done.exit_code == 0, done.stderr
    assert Manifest.read(tmp_path / "hq").crop.kind == "square"
    assert Manifest.read(tmp_path / "hq").source.kind == "celeba hq"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("kaggle", "no list_attr_celeba.csv"),
        ("archive", "holds no images of --kind archive"),
        ("rar", "'rar' is not one of"),
    ],
)
def test_a_kind_that_does_not_fit(kind: str, words: str, tree: Path, tmp_path: Path) -> None:
    done = shard(tree, tmp_path / "out", "--kind", kind)
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_downloaded_archive_of_any_name_and_deep_folders(tree: Path, shards: Path, tmp_path: Path) -> None:
    deep = tmp_path / "hub" / "datasets" / "celeba" / "versions" / "2"
    shutil.copytree(tree, deep)
    assert shard(tmp_path / "hub", tmp_path / "deep").exit_code == 0
    assert len(shard_hashes(tmp_path / "deep")) == len(shard_hashes(shards))
    downloads = without_images(tree, tmp_path / "downloads")
    write_zip(tree, downloads / "celeba-dataset.zip")
    done = shard(downloads, tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert shard_hashes(tmp_path / "out") == shard_hashes(shards)
    write_zip(tree, downloads / "other.zip")
    done = shard(downloads, tmp_path / "two")
    assert done.exit_code == 2
    assert "several archives" in done.stderr and "celeba-dataset.zip" in done.stderr and "other.zip" in done.stderr


def without_images(tree: Path, folder: Path) -> Path:
    return Path(shutil.copytree(tree, folder, ignore=shutil.ignore_patterns("img_align_celeba")))


def test_several_folders_of_images_are_not_guessed_at(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "1.jpg").write_bytes(jpeg(1))
    done = shard(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 2
    assert "several folders of images" in done.stderr
    assert "`preprocess images" in done.stderr


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without data."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CELEBA_ROOT", raising=False)
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    return folder


def test_the_download_is_checked_and_resumed(tmp_path: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = write_tree(tmp_path / "remote", 20)
    write_zip(tree, tree / "img_align_celeba.zip")
    names = ["img_align_celeba.zip", "list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"]
    md5 = {name: hashlib.md5((tree / name).read_bytes()).hexdigest() for name in names}
    monkeypatch.setattr(CelebA, "file_list", [(f"id-{name}", md5[name], name) for name in names])
    asked: list[str] = []
    quota = True

    def drive(file_id: str, root: Path, filename: str, md5: str) -> None:
        asked.append(filename)
        bad = quota and filename == "identity_CelebA.txt"
        (Path(root) / filename).write_bytes(b"<html>Quota exceeded" if bad else (tree / filename).read_bytes())

    monkeypatch.setattr(utils, "download_file_from_google_drive", drive)
    words = ("celeba", "--out", "out", "--size", 32, "--workers", 1, "--yes")
    done = invoke(*words)
    assert done.exit_code == 1
    for expected in ("identity_CelebA.txt could not be downloaded", "data/celeba", "preprocess faces", "quota"):
        assert expected in done.stderr
    assert not (nowhere / "data" / "celeba").exists()
    quota, asked[:] = False, []
    done = invoke(*words)
    assert done.exit_code == 0, done.stderr
    assert "non-commercial" in done.stderr
    assert asked == ["identity_CelebA.txt", "list_eval_partition.txt"]
    assert Manifest.read(Path("out")).samples == 20
    assert sorted(path.name for path in Path("data").iterdir()) == ["celeba"]


def test_without_yes_nothing_is_downloaded(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "download_file_from_google_drive", None)
    assert invoke("celeba", "--out", "out").exit_code == 2
    assert invoke("mnist", "--out", "out").exit_code == 2
    assert list(nowhere.iterdir()) == []


def test_mnist_is_downloaded_from_the_mirror_that_answers(
    tmp_path: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_digits(tmp_path / "remote", ".gz")
    files = sorted((tmp_path / "remote").iterdir())
    monkeypatch.setattr(MNIST, "resources", [(p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in files])
    monkeypatch.setattr(MNIST, "mirrors", ["https://dead.example/", "https://alive.example/"])

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        if "dead" in url:
            raise OSError("no route to host")
        shutil.copy(tmp_path / "remote" / filename, root)

    monkeypatch.setattr(utils, "download_url", fetch)
    done = invoke("mnist", "--out", "out", "--workers", 1, "--yes")
    assert done.exit_code == 0, done.stderr
    assert Manifest.read(Path("out")).samples == 80
