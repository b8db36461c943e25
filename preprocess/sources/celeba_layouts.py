"""The forms in which people have CelebA: recognized by looking, or forced with --kind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from preprocess.errors import UnreadableImage, UsageError
from preprocess.shards.manifest import Crop
from preprocess.sources.archives import Container, FolderContainer, ZipContainer, is_image_name
from preprocess.sources.parquet_files import holds_parquet

Kind = Literal["folder", "zip", "kaggle", "hq", "parquet"]
KIND_WORDS: dict[Kind, str] = {
    "folder": "a folder of aligned CelebA images",
    "zip": "an archive of aligned CelebA images",
    "kaggle": "Kaggle's CelebA, with its CSV files",
    "hq": "CelebA-HQ: square images",
    "parquet": "Hugging Face parquet files",
}
CELEBA_CROP = Crop(kind="center", size=148)
_LOOKED_AT = 20  # images, to see which crop suits them
_DEPTH, _MAX_FOLDERS = 5, 500  # how far below --source images are looked for: VERSIONS/2/ and Kaggle's double folder
_USUAL_NAMES = frozenset({"img_align_celeba", "CelebA-HQ-img"})
_ARCHIVES = ("img_align_celeba.zip", "Img/img_align_celeba.zip", "celeba/img_align_celeba.zip", "archive.zip")


def choose_kind(text: str) -> Kind | None:
    """What --kind says; None for auto.

    Raises:
        UsageError: the kind is not known.
    """
    if text == "auto":
        return None
    for kind in get_args(Kind):
        if kind == text:
            return kind
    raise UsageError(f"--kind {text} is not known: auto, {', '.join(get_args(Kind))} are")


def find_images(path: Path, forced: Kind | None) -> Container:
    """The one folder or archive of images at or below `path`.

    Raises:
        UsageError: there is none, there are several, or not of the forced kind.
    """
    if path.is_file():
        if forced == "folder":
            raise UsageError(f"--kind folder: {path} is a file, not a folder of images")
        return ZipContainer(path)
    folders = [] if forced == "zip" else _image_folders(path)
    named = [folder for folder in folders if folder.name in _USUAL_NAMES]
    chosen = folders if len(folders) == 1 else named
    if len(chosen) == 1:
        return FolderContainer(chosen[0])
    if folders:
        some = ", ".join(str(folder) for folder in folders[:4])
        raise UsageError(
            f"{path} holds several folders of images ({some}): point --source to one of them, or make shards of all "
            f"with `preprocess images {path}`, which takes folders for splits and labels"
        )
    archives = [] if forced == "folder" else _archives(path)
    if len(archives) > 1:
        some = ", ".join(archive.name for archive in archives[:4])
        raise UsageError(f"{path} holds several archives ({some}): point --source to one of them")
    if archives:
        return ZipContainer(archives[0])
    wanted = f" of --kind {forced}" if forced else ""
    raise UsageError(
        f"{path} holds no images{wanted}: looked for a folder of images (as img_align_celeba/) up to {_DEPTH} levels "
        "down, for img_align_celeba.zip or another zip archive, and for parquet files"
    )


def is_parquet(path: Path) -> bool:
    """Whether a source is parquet files; a folder of images or an archive beside them goes first."""
    if path.is_file() or not holds_parquet(path):
        return path.is_file() and path.suffix == ".parquet"
    return not _image_folders(path) and not _archives(path)


def recognize(container: Container, size: tuple[int, int] | None, lists: Iterable[str], forced: Kind | None) -> Kind:
    """What kind of CelebA a folder or archive of images is.

    Args:
        container: with the images.
        size: height and width of most images; None where they cannot be read.
        lists: names of the annotation files that were found.
        forced: what --kind says.

    Raises:
        UsageError: --kind says kaggle and Kaggle's lists are not there.
    """
    has_csv = any(name.endswith(".csv") for name in lists)
    if forced == "kaggle" and not has_csv:
        raise UsageError(
            f"--kind kaggle: no list_attr_celeba.csv or list_eval_partition.csv in or beside {container.path}"
        )
    if forced:
        return forced
    if size and size[0] == size[1]:
        return "hq"
    if has_csv:
        return "kaggle"
    return "zip" if isinstance(container, ZipContainer) else "folder"


def usual_size(container: Container) -> tuple[int, int] | None:
    """Height and width of most of the first images; None where none of them can be read."""
    looked_at = container.reader(container.names[:_LOOKED_AT]).pixels()
    sizes = Counter(image.shape[:2] for image in looked_at if not isinstance(image, UnreadableImage))
    if not sizes:
        return None
    ((height, width), _), *_ = sizes.most_common(1)
    return height, width


def default_crop(kind: Kind, size: tuple[int, int] | None) -> tuple[Crop, list[str]]:
    """The crop that suits images of a kind and size, and what to say about it."""
    if kind == "hq":
        return Crop(kind="square"), ["the images are square, as CelebA-HQ's: no crop unless one is asked for"]
    if size and min(size) < (CELEBA_CROP.size or 0):
        height, width = size
        words = f"the images ({width} x {height}) are smaller than the usual crop: taking the largest central square"
        return Crop(kind="square"), [words]
    return CELEBA_CROP, []


def recognized(kind: Kind, forced: Kind | None, path: Path, images: int) -> str:
    """One line for the terminal: what the source was taken for."""
    how = f"as --kind {forced} says" if forced else "another --kind forces another reading"
    return f"{path}: {KIND_WORDS[kind]} ({kind}), {images:,} images; {how}"


def _archives(folder: Path) -> list[Path]:
    """The archive of a usual name; otherwise all zip archives in the folder."""
    usual = [folder / name for name in _ARCHIVES if (folder / name).is_file()]
    return usual[:1] or sorted(path for path in folder.glob("*.zip") if path.is_file())


def _image_folders(top: Path) -> list[Path]:
    """Folders that directly hold images, breadth first; nothing below them is looked at."""
    found: list[Path] = []
    level = [top]
    for _ in range(_DEPTH + 1):
        deeper: list[Path] = []
        for folder in level[:_MAX_FOLDERS]:
            subfolders = _subfolders_unless_images(folder)
            if subfolders is None:
                found.append(folder)
            else:
                deeper += subfolders
        level = deeper
    return found


def _subfolders_unless_images(folder: Path) -> list[Path] | None:
    subfolders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_image_name(entry.name) and entry.is_file():
                    return None
                if not entry.name.startswith(".") and entry.is_dir():
                    subfolders.append(folder / entry.name)
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from None
    return sorted(subfolders)
