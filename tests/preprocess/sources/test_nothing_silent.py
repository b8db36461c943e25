"""Sources as people have them: each result is complete, or a line says what is not in it and why."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import UsageError
from preprocess.shards.manifest import Manifest
from preprocess.sources.celeba import find_source, open_celeba
from preprocess.sources.images import open_images
from preprocess.sources.index import Catalogue
from tests.preprocess.trees import ATTRIBUTES, hashes, invoke, jpeg, shard, write_lists, write_tree, write_zip

COUNT = 12


def tars(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name.endswith(".tar")}


def notes(catalogue: Catalogue) -> str:
    return "\n".join(catalogue.notes)


def ignored(catalogue: Catalogue) -> dict[str, int]:
    return {name: group.files for group in catalogue.ignored for name in group.names}


def is_annotated(catalogue: Catalogue) -> bool:
    """Whether the attributes and the official split were found."""
    return catalogue.attribute_names == ATTRIBUTES and "80/10/10" not in notes(catalogue)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "small", COUNT)


def test_lists_beside_a_link_come_before_those_beside_its_target(small: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (small / "img_align_celeba").rename(tmp_path / "moved")
    disk.mkdir()
    (tmp_path / "moved").rename(disk / "img_align_celeba")
    (small / "img_align_celeba").symlink_to(disk / "img_align_celeba")
    for source in (small, small / "img_align_celeba", small / ".." / "small"):
        assert is_annotated(open_celeba(source, 0))
    write_lists(disk, COUNT)
    (disk / "list_attr_celeba.txt").write_text("".join(["A\n", *(f"{n:06d}.jpg 1\n" for n in range(1, COUNT + 1))]))
    assert is_annotated(open_celeba(small, 0)), "beside the link first"
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"):
        (small / name).unlink()
    found = open_celeba(small, 0)
    assert found.attribute_names == ("A",) and "80/10/10" not in notes(found), "then beside its target"


def test_an_archive_and_lists_that_are_links(small: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    write_zip(small, disk / "celeba-1.zip")
    shutil.rmtree(small / "img_align_celeba")
    (small / "img_align_celeba.zip").symlink_to(disk / "celeba-1.zip")
    assert is_annotated(open_celeba(small, 0))
    (small / "list_attr_celeba.txt").unlink()
    (small / "list_attr_celeba.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(UsageError, match=r"list_attr_celeba\.txt is a link to .*gone\.txt, which does not exist"):
        open_celeba(small, 0)


def test_dangling_links_are_named(small: Path, tmp_path: Path) -> None:
    (small / "img_align_celeba" / "000099.jpg").symlink_to(tmp_path / "gone.jpg")
    (left,) = open_celeba(small, 0).left_out
    assert left.key == "000099.jpg" and "gone.jpg, which does not exist" in left.reason
    shutil.rmtree(small / "img_align_celeba")
    (small / "img_align_celeba").symlink_to(tmp_path / "unmounted")
    with pytest.raises(UsageError, match=r"is a link to .*unmounted, which does not exist"):
        open_celeba(small, 0)
    with pytest.raises(UsageError, match=r"is a link to .*unmounted, which does not exist"):
        find_source(small / "img_align_celeba")
    with pytest.raises(UsageError, match=r"is a link to .*unmounted, which does not exist"):
        open_images(small / "img_align_celeba", 0)


@pytest.mark.parametrize("form", ["zip", "tar.gz", "folder"])
def test_the_own_name_wins_over_stray_pictures(form: str, small: Path, tmp_path: Path) -> None:
    if form == "zip":
        write_zip(small, small / "img_align_celeba.zip")
    elif form == "tar.gz":
        with tarfile.open(small / "img_align_celeba.tar.gz", "w:gz") as archive:
            archive.add(small / "img_align_celeba", "img_align_celeba")
    if form != "folder":
        shutil.rmtree(small / "img_align_celeba")
    (small / "contact-sheet.png").write_bytes(jpeg(3, 300, 300))
    (small / "holiday").mkdir()
    for number in range(40):
        (small / "holiday" / f"{number}.jpg").write_bytes(jpeg(number))
    (small / "other.zip").write_bytes(b"PK\x03\x04")
    found = open_celeba(small, 0)
    assert found.source.images == COUNT and is_annotated(found)
    for words in ("not used", "(1 image)", "holiday (40 images)", "other.zip"):
        assert words in notes(found)
    assert ignored(found) == {"./": 41, "holiday/": 41, "other.zip": 1}


def test_a_nameless_data_set_wins_by_far_or_is_not_guessed_at(small: Path, tmp_path: Path) -> None:
    write_zip(small, small / "celeba-dataset-v2.zip")
    shutil.rmtree(small / "img_align_celeba")
    (small / "sheet.jpg").write_bytes(jpeg(1, 40, 40))
    found = open_celeba(small, 0)
    assert found.source.images == COUNT and "not used" in notes(found) and "(1 image)" in notes(found)
    (small / "sheet.jpg").write_bytes(jpeg(1, 900, 900))
    with pytest.raises(UsageError, match=r"several sources of images .*point --source to one of them, or choose with"):
        open_celeba(small, 0)
    assert open_celeba(small, 0, "archive").source.images == COUNT
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"):
        (small / name).unlink()
    assert open_celeba(small, 0, "folder").source.images == 1


def test_folders_below_the_images_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    (folder / "thumbs").mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
        (folder / "thumbs" / f"{number}.jpg").write_bytes(jpeg(number))
    found = open_celeba(folder, 0)
    assert found.source.images == 6 and "thumbs (6 images)" in notes(found)


def test_other_folders_inside_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "CelebAMask-HQ.zip", "w") as archive:
        for number in range(4):
            archive.writestr(f"CelebAMask-HQ/CelebA-HQ-img/{number}.jpg", jpeg(number, 64, 64))
            archive.writestr(f"CelebAMask-HQ/CelebAMask-HQ-mask-anno/0/{number:05d}_hair.png", b"mask")
        archive.writestr(
            "CelebAMask-HQ/CelebAMask-HQ-attribute-anno.txt", "4\nMale\n0.jpg 1\n1.jpg -1\n2.jpg 1\n3.jpg 1"
        )
    found = open_celeba(tmp_path, 0)
    assert found.source.images == 4 and found.attribute_names == ("Male",)
    assert ignored(found) == {"CelebAMask-HQ/CelebAMask-HQ-mask-anno/0/": 4}
    assert "not used: 4 images" in notes(found)


def test_an_archive_with_backslashes_keeps_its_lists(small: Path, tmp_path: Path) -> None:
    assert shard(small, tmp_path / "expected").exit_code == 0
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "data.zip", "w") as archive:
        for path in sorted(small.rglob("*")):
            if path.is_file():
                archive.writestr("celeba\\" + str(path.relative_to(small)).replace("/", "\\"), path.read_bytes())
        archive.writestr("celeba\\backup\\list_attr_celeba.txt", "A\n000001.jpg 1\n")
    done = shard(tmp_path / "in" / "data.zip", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert tars(tmp_path / "out") == tars(tmp_path / "expected")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_makes_the_shards_that_the_folder_makes(mode: str, small: Path, tmp_path: Path) -> None:
    assert shard(small, tmp_path / "expected", shard_size=5).exit_code == 0
    with tarfile.open(tmp_path / "celeba.tgz", mode) as archive:
        archive.add(small, "CelebA")
    done = shard(tmp_path / "celeba.tgz", tmp_path / "out", shard_size=5)
    assert done.exit_code == 0, done.stderr
    (tmp_path / "out" / "train-000000.tar").unlink()
    assert shard(tmp_path / "celeba.tgz", tmp_path / "out", shard_size=5).exit_code == 0
    assert tars(tmp_path / "out") == tars(tmp_path / "expected")


def test_lfw_as_it_is_distributed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "lfw.tgz", "w:gz") as archive:
        for number, person in enumerate(["Aaron_Eckhart", "Zoe_Ball"] * 15):
            info = tarfile.TarInfo(f"lfw/{person}/{person}_{number:04d}.jpg")
            data = jpeg(number, 50, 50)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    done = invoke("images", tmp_path / "lfw.tgz", "--out", tmp_path / "out", "--size", 32, "--workers", 1)
    assert done.exit_code == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.label_names == ("Aaron_Eckhart", "Zoe_Ball") and manifest.samples == 30


def test_a_list_of_other_images_is_not_used(small: Path) -> None:
    (small / "identity_CelebA.txt").write_text("a.jpg 1\nb.jpg 2\n")
    with pytest.raises(
        UsageError, match=r"identity_CelebA\.txt names none of the images: it has a\.jpg, .* 000001\.jpg"
    ):
        open_celeba(small, 0)


def test_the_crop_scales_with_the_images(tmp_path: Path) -> None:
    for name, width, height, crop in (
        ("half", 89, 109, 74),
        ("whole", 178, 218, 148),
        ("double", 356, 436, 296),
        ("other", 200, 300, 148),
        ("photo", 400, 700, None),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(jpeg(1, width, height))
        found = open_celeba(tmp_path / name, 0)
        assert found.default_crop.size == crop
        assert (f"({width} x {height})" in " ".join(found.crop_notes)) == (name != "whole")
        assert found.source_size == (height, width)


def test_factors_beside_lists_of_half_size_images(tmp_path: Path) -> None:
    images = tmp_path / "img_align_celeba"
    images.mkdir()
    for number in range(1, COUNT + 1):
        (images / f"{number:06d}.jpg").write_bytes(jpeg(number, 89, 109))
    write_lists(tmp_path, COUNT)
    rows = [f"{n:06d}.jpg,{n / 7:.5f},{'' if n == 3 else n}" for n in range(1, COUNT)]
    (tmp_path / "factors.csv").write_text("image,yaw,smile\n" + "\n".join(rows) + "\n")
    found = open_celeba(tmp_path, 0)
    assert found.factor_names == ("yaw", "smile") and found.default_crop.size == 74
    assert np.isnan(found.table.factors).sum() == 3
    assert "1 image is not in the list of factors" in notes(found)


def test_lists_that_another_command_reads_are_named(small: Path) -> None:
    assert "`preprocess celeba --source" in notes(open_images(small, 0))


def test_files_in_a_folder_without_images_are_described(tmp_path: Path) -> None:
    (tmp_path / "img_celeba.7z.001").write_bytes(b"7z\xbc\xaf\x27\x1c\0\4")
    with pytest.raises(UsageError, match="is a 7z archive, which is not read: unpack it with `7z x"):
        open_celeba(tmp_path, 0)
    with pytest.raises(UsageError, match=r"holds no images: img_celeba\.7z\.001 is a 7z archive inside the source"):
        open_images(tmp_path, 0)


def test_what_another_command_reads_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\0")
    for open_source in (open_images, open_celeba):
        with pytest.raises(UsageError, match=r"is an IDX file, as MNIST has: make shards .* `preprocess mnist`"):
            open_source(tmp_path, 0)


def test_names_and_ends_of_other_systems(tmp_path: Path) -> None:
    folder = tmp_path / "my data" / "img_align_celeba"
    folder.mkdir(parents=True)
    for number in range(1, COUNT + 1):
        (folder / f"{number:06d}.JPG").write_bytes(jpeg(number))
        (folder / f"._{number:06d}.JPG").write_bytes(b"\0\5\x16\7")
    write_lists(tmp_path / "my data", COUNT)
    for path in (tmp_path / "my data").glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace("\n", "\r\n").encode())
    found = open_celeba(tmp_path / "my data", 0)
    assert is_annotated(found) and found.source.images == COUNT
    assert sum(group.files for group in found.ignored) == COUNT


def test_lists_as_they_are_downloaded(small: Path) -> None:
    attributes = (small / "list_attr_celeba.txt").read_text()
    (small / "list_attr_celeba.txt").unlink()
    with zipfile.ZipFile(small / "list_attr_celeba.csv.zip", "w") as archive:
        archive.writestr("list_attr_celeba.csv", attributes)
    (small / "labels").mkdir()
    (small / "list_eval_partition.txt").rename(small / "labels" / "List_Eval_Partition.TXT")
    (small / "identity_CelebA.txt").rename(small / "identity_CelebA (1).txt")
    (small / "list_bbox_celeba.txt").write_text("1")
    (small / "factors.csv").write_text("image,yaw\n000001.jpg,0.5\n")
    found = open_celeba(small, 0)
    assert is_annotated(found) and found.factor_names == ("yaw",)
    assert "identity_CelebA (1).txt is not used: save or rename it as identity_celeba.txt" in notes(found)
    assert ignored(found).keys() == {"identity_CelebA (1).txt", "list_bbox_celeba.txt"}
    (small / "list_attr_celeba.txt").write_text(attributes)
    assert "list_attr_celeba.txt is read: " in notes(open_celeba(small, 0))


def test_folders_of_splits_have_many_names(tmp_path: Path) -> None:
    for number, name in enumerate(("Training_set", "split=val", "eval")):
        (tmp_path / name / "Zoe\u0308").mkdir(parents=True)
        (tmp_path / name / "Zoe\u0308" / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "metadata.csv").write_text("file_name,text\n")
    found = open_images(tmp_path, 0)
    assert found.split.tolist() == [0, 2, 1] and found.label_names == ("Zoë",)
    assert "annotations that are not read: metadata.csv" in notes(found)
    (tmp_path / "eval" / "Bo").mkdir()
    assert ignored(open_images(tmp_path, 0))["eval/Bo/"] == 1
    shutil.rmtree(tmp_path / "eval")
    assert "no image is in the split test" in notes(open_images(tmp_path, 0))
