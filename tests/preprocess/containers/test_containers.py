"""Folders and archives: which files are images, which are not used and why."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.containers.container import Container, open_container
from preprocess.containers.file_kinds import check_source, printable
from preprocess.errors import UnreadableImage, UsageError
from tests.preprocess.trees import encoded, jpeg, smooth_picture


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def reasons(container: Container) -> dict[str, str]:
    return {file.name: file.reason for file in container.ignored} | {e.key: e.reason for e in container.left_out}


def pixels(container: Container, scratch: Path) -> list[np.ndarray]:
    scratch.mkdir(exist_ok=True)
    if container.unpack:
        container.unpack(scratch)
    found = [np.array(image) for image in container.reader(container.names, scratch).pixels()]
    assert not any(isinstance(image, UnreadableImage) for image in found)
    return found


def test_images_are_recognized_by_content(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture = Image.fromarray(smooth_picture(1))
    for name in ("a.jpg.1", "b.JFIF", "c", "d.JPG", "e.apng"):
        write(folder / name, encoded(picture, "PNG" if "png" in name else "JPEG"))
    write(folder / "f.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50))
    write(folder / "g.dng", b"II*\0" + bytes(50))
    write(folder / "h.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    write(folder / "notes", b"text")
    write(folder / "old.zip", b"PK\x03\x04")
    write(folder / "clip.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp42")
    container = open_container(folder, deep=True)
    assert container.names == ["a.jpg.1", "b.JFIF", "c", "d.JPG", "e.apng", "h.heic"]
    found = reasons(container)
    assert "JPEG XL" in found["f.jxl"] and "raw picture" in found["g.dng"]
    assert (
        found["notes"] == "a text file" and "zip archive inside" in found["old.zip"] and found["clip.mp4"] == "a video"
    )


def test_files_of_operating_systems_are_ignored_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "a" / "1.jpg", jpeg(1))
    for size in ("S", "M", "XL"):
        write(folder / "a" / "@eaDir" / "1.jpg" / f"SYNOPHOTO_THUMB_{size}.jpg", jpeg(2))
    for name in ("._1.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", ".thumbnails/1.jpg", "__MACOSX/a/._1.jpg"):
        write(folder / name, jpeg(3))
    container = open_container(folder, deep=True)
    assert container.names == ["a/1.jpg"]
    assert sum(file.files for file in container.ignored) == 3 + 6
    assert reasons(container)["._1.jpg"] == "a macOS resource fork"


def test_links_are_followed_once(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    write(disk / "cats" / "1.jpg", jpeg(1))
    write(tmp_path / "in" / "dogs" / "2.jpg", jpeg(2))
    (tmp_path / "in" / "cats").symlink_to(disk / "cats")
    (disk / "cats" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "birds").symlink_to(tmp_path / "gone")
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "dogs")
    (tmp_path / "in" / "3.jpg").symlink_to(disk / "cats" / "1.jpg")
    container = open_container(tmp_path / "in", deep=True)
    assert container.names == ["3.jpg", "cats/1.jpg", "dogs/2.jpg"]
    found = reasons(container)
    assert found["./birds"] == f"a link to {tmp_path / 'gone'}, which does not exist"
    assert "Too many levels of symbolic links" in found["./self"]
    assert found["again/"] == found["cats/up/"] == "a link to a folder that is read already"


MEMBERS = {f"set/img_align_celeba/{n:06d}.jpg": jpeg(n) for n in range(1, 6)}


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")])
def test_tars_hold_what_the_zip_holds(suffix: str, mode: str, tmp_path: Path) -> None:
    others = {"list_attr_celeba.txt": b"1\nA\n", "._x.jpg": jpeg(9), "README": b"hello", "../../evil.jpg": jpeg(1)}
    tar = write_tar(tmp_path / f"in.{suffix}", {**MEMBERS, **others}, mode)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name, data in {**MEMBERS, **others}.items():
            archive.writestr(name.replace("/", "\\"), data)
    zipped, container = open_container(tmp_path / "in.zip", deep=True), open_container(tar, deep=True)
    assert container.names == zipped.names == list(MEMBERS)
    assert reasons(container) == reasons(zipped)
    assert container.text("list_attr_celeba.txt") == zipped.text("list_attr_celeba.txt") == b"1\nA\n"
    for mine, theirs in zip(pixels(container, tmp_path / "a"), pixels(zipped, tmp_path / "b"), strict=True):
        assert np.array_equal(mine, theirs)
    assert [container.content_hash(n) for n in MEMBERS] == [zipped.content_hash(n) for n in MEMBERS]
    assert len(list(container.first_pixels(3))) == 3
    assert container.list_again() is container
    os.utime(tar, (1, 1))
    assert container.list_again().stamp != container.stamp


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_odd_members_of_a_tar(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "in.tar"
    with tarfile.open(path, mode) as archive:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for data in (jpeg(1), jpeg(2)):
            info = tarfile.TarInfo("twice.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    container = open_container(path, deep=True)
    assert container.names == ["twice.jpg"]
    found = reasons(container)
    assert "a link" in found["link.jpg"] and "a link" in found["hard.jpg"] and "pipe" in found["pipe.jpg"]
    assert "later version" in found["twice.jpg"]
    (image,) = pixels(container, tmp_path / "scratch")
    assert np.abs(image.astype(int) - smooth_picture(2)).mean() < 5


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_tars_that_were_joined(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    names = list(MEMBERS)
    tars = [write_tar(tmp_path / "one.tar", {name: MEMBERS[name]}).read_bytes() for name in names[:3]]
    container = open_container(write(tmp_path / "in.tar", pack(b"".join(tars))), deep=True)
    assert container.names == names[:3]
    assert len(pixels(container, tmp_path / "scratch")) == 3
    spoilt = bytearray(write_tar(tmp_path / "one.tar", MEMBERS).read_bytes())
    with tarfile.open(tmp_path / "one.tar") as archive:
        spoilt[archive.getmembers()[2].offset + 5] ^= 255
    with pytest.raises(UsageError, match=r"a damaged header at byte [0-9,]+\); download it again"):
        open_container(write(tmp_path / "in.tar", pack(bytes(spoilt))), deep=True)


def test_links_and_gaps_in_a_tar(tmp_path: Path) -> None:
    (tmp_path / "t" / "b").mkdir(parents=True)
    write(tmp_path / "t" / "a" / "1.jpg", jpeg(1))
    os.link(tmp_path / "t" / "a" / "1.jpg", tmp_path / "t" / "b" / "2.jpg")
    (tmp_path / "t" / "current").symlink_to("a")
    with (tmp_path / "t" / "gaps.jpg").open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["tar", "-S", "--format=gnu", "-cf", "in.tar", "t"], cwd=tmp_path, check=True)
    container = open_container(tmp_path / "in.tar", deep=True)
    assert container.names == ["t/a/1.jpg", "t/b/2.jpg"] and len(pixels(container, tmp_path / "scratch")) == 2
    found = reasons(container)
    assert "tar -h" in found["t/current"] and "without `tar -S`" in found["t/gaps.jpg"]
    subprocess.run(["tar", "--format=v7", "-cf", "old", "t/a"], cwd=tmp_path, check=True)
    assert open_container(tmp_path / "old", deep=True).names == ["t/a/1.jpg"]
    assert open_container(write_tar(tmp_path / "empty.tar", {}), deep=True).names == []


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_was_cut_short(mode: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "in.tar", MEMBERS, mode)
    os.truncate(path, path.stat().st_size * 2 // 3)
    with pytest.raises(UsageError, match=r"not a whole tar archive: it was cut short .* download it again"):
        open_container(path, deep=True)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.7z", b"7z\xbc\xaf\x27\x1c\0\4", "is a 7z archive, which is not read: unpack it with `7z x "),
        ("a.rar", b"Rar!\x1a\x07\0", "is a RAR archive, which is not read: unpack it with `unrar x "),
        ("my pictures.rar", b"Rar!\x1a\x07\0", "pictures.rar'`, and give its folder"),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd", "tar --zstd -xf"),
        ("one.jpg", jpeg(1), "is a JPEG picture, one image and not a data set: give the folder"),
        ("list.txt", b"000001.jpg 1\n", "is a text file, not images: give the folder that holds"),
        ("a.zip", b"<!DOCTYPE html><p>quota", "is a web page: download it again"),
        ("a.zip", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.zip", b"", "is empty: download it again"),
        ("a.zip", b"\1\2\3\4", "is not a whole zip file: it was cut short or damaged"),
        ("a.zip", b"PK\x03\x04broken", "is not a whole zip archive: it was cut short or damaged"),
        ("a.zip.002", b"\1\2\3\4", "one part of a split archive: join the parts with `cat "),
        ("a.zip.001", b"PK\x03\x04", "one part of a split archive: join the parts with `cat "),
        ("a.z01", b"PK\x03\x04", "one part of a split zip archive: join the parts with `zip -s 0 "),
        ("a.tar.gz.aa", b"\x1f\x8b\x08\0", "one part of a split archive"),
        ("a.zip.part", b"PK\x03\x04", "is a download that has not finished"),
        ("a.arrow", b"\xff\xff\xff\xff\x10\1\0\0", "is an Arrow file, as datasets' save_to_disk writes it: convert it"),
        ("a.csv.gz", b"\x1f\x8b\x08\0", "cut short or damaged"),
        ("a.h5", b"\x89HDF\r\n", "is an HDF5 file, not images"),
        ("a.parquet", b"PAR1", "preprocess celeba --source"),
    ],
)
def test_other_files_are_named_for_what_they_are(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        open_container(write(tmp_path / name, data), deep=True)
    assert words in str(error.value)


def test_a_gzip_of_one_list_is_not_a_tar(tmp_path: Path) -> None:
    import gzip

    path = write(tmp_path / "list.csv.gz", gzip.compress(b"image_id,Male\n" * 100))
    with pytest.raises(UsageError, match=r"a gzip file that holds a text file, not a tar archive"):
        open_container(path, deep=True)


def test_two_members_of_one_name(tmp_path: Path) -> None:
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.jpg", jpeg(1))
        archive.writestr("1.jpg", jpeg(2))
    with pytest.raises(UsageError, match=r"holds 1\.jpg twice"):
        open_container(tmp_path / "a.zip", deep=True)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3://bucket/faces", "--source s3://bucket/faces is an address"),
        ("https://host/faces.zip", "download it first"),
        ("gone/*.jpg", "does not exist; patterns are not read: give the folder"),
        ("a" * 5000, "cannot be read: File name too long"),
        ("/dev/null", "is a pipe or a device"),
        ("a\nb", "--source a\\nb does not exist"),
    ],
)
def test_sources_that_are_not_files(path: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        check_source(Path(path), "--source ")
    assert words in str(error.value)


def test_the_home_folder_as_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "faces").mkdir()
    assert check_source(Path("~/faces")) == tmp_path / "faces"


def test_a_file_that_shrinks_while_it_is_read_is_read_to_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 200_000)
    reader = open_container(tmp_path, deep=False).reader(["a.jpg"], tmp_path)
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result([0] * 10))  # as of files in /proc, which have no end
    assert list(reader.files()) == [b"x" * (1 << 16)]


def test_names_with_characters_that_cannot_be_encoded() -> None:
    assert printable(os.fsdecode(b"\xc3\xa9 \xff\x1b") + "\ud800") == r"é \xff\x1b\ud800"
