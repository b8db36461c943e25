"""The forms in which people have CelebA: recognized by looking at the source, or set by --kind."""

from __future__ import annotations

import itertools
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from preprocess.containers.container import Container, IgnoredFile, counted, printable
from preprocess.containers.file_kinds import (
    ARCHIVE_SUFFIXES,
    UNREAD_ARCHIVE_SUFFIXES,
    has_image_suffix,
    ignored_file,
    ignored_folder,
    is_parquet_name,
    no_images,
    read_head,
    refuse_file,
    unread_picture,
)
from preprocess.containers.folder import FolderContainer, is_folder, scan
from preprocess.containers.open_container import open_container
from preprocess.errors import UnreadableImage, UsageError
from preprocess.images.crop_resize import Crop, scaled_crop
from preprocess.images.file_types import PARQUET, file_type

Kind = Literal["folder", "archive", "kaggle", "hq", "parquet"]
KIND_WORDS: dict[Kind, str] = {
    "folder": "a folder of aligned CelebA images",
    "archive": "an archive of aligned CelebA images",
    "kaggle": "Kaggle's CelebA, with its CSV files",
    "hq": "CelebA-HQ: square images",
    "parquet": "Hugging Face parquet files",
}
CELEBA_SIZE = (218, 178)  # height, width
CELEBA_CROP = Crop(kind="center", size=148)
LOOKED_AT = 20  # images, to see which crop suits them; files without an image's suffix, to see whether one is an image
_DEPTH, _MAX_FOLDERS = 5, 500  # how far below --source images are looked for: VERSIONS/2/ and Kaggle's double folder
_OWN_FOLDERS = frozenset(("img_align_celeba", "img_align_celeba_png", "celeba-hq-img", "celeba_hq_256"))
_OWN_ARCHIVES = ("img_align_celeba", "img_align_celeba_png", "celebamask-hq", "celeba-hq", "celeba")
_ARCHIVE_FOLDERS = frozenset(("img", "celeba"))  # below --source, where archives are looked for too
LIST_STEMS = (
    "list_attr_celeba",
    "list_eval_partition",
    "identity_celeba",
    "list_landmarks_align",
    "celebamask-hq-attr",
)
_BY_FAR = 20  # times as many bytes as all others make a nameless candidate the data set


@dataclass(frozen=True)
class Candidate:
    """A folder, an archive or parquet files that may hold the data set's images."""

    path: Path  # a folder with images directly in it, an archive, or the folder of parquet files
    form: Literal["folder", "archive", "parquet"]
    files: int  # image files in the folder, parquet files, or 1

    def __str__(self) -> str:
        """Returns the candidate as a message names it."""
        path = printable(str(self.path))
        return path if self.form == "archive" else f"{path} ({counted(self.files, _NOUNS[self.form])})"


_NOUNS = {"folder": "image", "parquet": "parquet file", "archive": "archive"}


def find_images(path: Path, forced: Kind | None) -> tuple[Container | None, list[str], list[IgnoredFile]]:
    """Opens the one folder or archive of images at or below `path`.

    The data set's own name (img_align_celeba) counts most. Without it there must be one candidate, or one that is
    larger by far than all others.

    Returns:
        The container, or None where the source is parquet files; notes on what is not used; and the same as files.

    Raises:
        UsageError: there is none, there are several, or not of the forced kind.
    """
    if path.is_file():
        if forced == "folder":
            raise UsageError(f"--kind folder: {path} is a file, not a folder of images")
        try:
            parquet = forced == "parquet" or file_type(read_head(path)) is PARQUET
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        return None if parquet else open_container(path, deep=False), [], []
    if forced == "parquet":
        return None, [], []
    found, unread, unused = _survey(path)
    broken = [entry.path for entry in scan(path) if entry.is_symlink() and not Path(entry.path).exists()]
    allowed = [candidate for candidate in found if _is_allowed(candidate, forced)]
    if not allowed:
        _refuse_without_images(path, forced, unread, broken)
    chosen = _choose(path, allowed, forced)
    others = [candidate for candidate in found if candidate != chosen]
    notes = [f"{link} is a link to {_target(link)}, which leads nowhere" for link in broken if chosen.path != path]
    if others:
        some = ", ".join(map(str, others[:4])) + (f" and {len(others) - 4:,} more" if len(others) > 4 else "")
        notes.append(f"not used, because the images are read from {chosen.path.name}: {some}")
    ignored = [_as_ignored(path, other) for other in others]
    others_by_content = (
        (file, _reason(file)) for file in unused if (file.parent, "folder") != (chosen.path, chosen.form)
    )
    ignored += [IgnoredFile(printable(os.path.relpath(file, path)), why) for file, why in others_by_content if why]
    container = None if chosen.form == "parquet" else open_container(chosen.path, deep=False)
    return container, notes, ignored


def own_images(container: Container) -> tuple[list[str], list[IgnoredFile]]:
    """The images in an archive's folder of the data set's own name, or all where there is none; and the others."""
    own = [name for name in container.names if PurePosixPath(name).parent.name.lower() in _OWN_FOLDERS]
    if not own or len(own) == len(container.names):
        return container.names, []
    others = Counter(str(PurePosixPath(name).parent) for name in set(container.names) - set(own))
    reason = f"images beside the folder {PurePosixPath(own[0]).parent.name} of the archive"
    return own, [IgnoredFile(f"{printable(folder)}/", reason, count) for folder, count in sorted(others.items())]


def recognize(container: Container, size: tuple[int, int] | None, lists: Iterable[str], forced: Kind | None) -> Kind:
    """Recognizes the kind of CelebA that a folder or archive of images is.

    Args:
        container: with the images.
        size: height and width of most images; None where they cannot be read.
        lists: names of the annotation files that were found.
        forced: the value of --kind; None for auto.

    Raises:
        UsageError: --kind is kaggle and Kaggle's lists are not there.
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
    return "folder" if isinstance(container, FolderContainer) else "archive"


def usual_size(images: Iterator[np.ndarray | UnreadableImage]) -> tuple[int, int] | None:
    """Height and width of most of the first images; None where none of them can be read."""
    looked_at = itertools.islice(images, LOOKED_AT)
    sizes = Counter(image.shape[:2] for image in looked_at if not isinstance(image, UnreadableImage))
    return sizes.most_common(1)[0][0] if sizes else None


def default_crop(kind: Kind, size: tuple[int, int] | None) -> tuple[Crop, list[str]]:
    """Chooses the crop that suits images of a kind and size (height, width).

    Images in CelebA's frame of another size get the same part of it: 74 pixels of 89 x 109 are 148 of 178 x 218.

    Returns:
        The crop, and notes for the terminal.
    """
    if kind == "hq":
        return Crop(kind="square"), ["the images are square, as CelebA-HQ's: no crop unless one is asked for"]
    if size is None or size == CELEBA_SIZE:
        return CELEBA_CROP, []
    height, width = size
    if abs(width - CELEBA_SIZE[1] * height / CELEBA_SIZE[0]) <= 1.5:  # the same frame, but for rounding
        crop = scaled_crop(CELEBA_CROP, CELEBA_SIZE, size)
        words = f"the images ({width} x {height}) have CelebA's frame in another size: center crop of {crop.size}"
        return crop, [words]
    if min(size) < (CELEBA_CROP.size or 0):
        words = f"the images ({width} x {height}) are smaller than the usual crop: taking the largest central square"
        return Crop(kind="square"), [words]
    words = f"the images ({width} x {height}) do not have CelebA's frame (178 x 218)"
    if min(size) >= 2 * CELEBA_SIZE[1]:
        return Crop(kind="square"), [f"{words}: taking the largest central square"]
    return CELEBA_CROP, [f"{words}: center crop of {CELEBA_CROP.size} pixels; --crop chooses another"]


def recognized(kind: Kind, forced: Kind | None, path: Path, images: int) -> str:
    """The line that says what the source was taken for."""
    how = "as set by --kind" if forced else "override with --kind"
    return f"{path}: {KIND_WORDS[kind]} ({kind}), {counted(images, 'image')}; {how}"


def _is_allowed(candidate: Candidate, forced: Kind | None) -> bool:
    if forced in {"folder", "archive"}:
        return candidate.form == forced
    return forced is None or candidate.form != "parquet"


def _choose(top: Path, candidates: list[Candidate], forced: Kind | None) -> Candidate:
    """The candidate that is the data set, or a UsageError that names all of them."""
    ranks = {candidate: _own_rank(candidate) for candidate in candidates}
    first = min(ranks.values())
    own = [candidate for candidate in candidates if ranks[candidate] == first]
    if len(own) == 1:
        return own[0]
    direct = next((candidate for candidate in own if candidate.path == top and candidate.form == "folder"), None)
    below = sum(candidate.files for candidate in own if candidate.form == "folder" and candidate is not direct)
    if direct and (forced == "folder" or (below and direct.files >= below)):
        return direct
    sizes = {candidate: _bytes(candidate) for candidate in own}
    largest = max(own, key=lambda candidate: sizes[candidate])
    if sizes[largest] >= _BY_FAR * (sum(sizes.values()) - sizes[largest]):
        return largest
    some = ", ".join(map(str, own[:4]))
    forms = {candidate.form for candidate in own}
    if forms == {"folder"}:
        raise UsageError(
            f"{top} holds several folders of images ({some}): point --source to one of them, or make shards of all "
            f"with `preprocess images {shlex.quote(str(top))}`, which takes folders for splits and labels"
        )
    what = "several archives" if forms == {"archive"} else "several sources of images"
    raise UsageError(f"{top} holds {what} ({some}): point --source to one of them, or choose with --kind")


def _own_rank(candidate: Candidate) -> int:
    """0 for a folder of the data set's own name, then archives of such names; all others share the last rank."""
    last = len(_OWN_ARCHIVES) + 1
    if candidate.form == "folder":
        names = {candidate.path.name.lower(), candidate.path.resolve().name.lower()}
        return 0 if names & _OWN_FOLDERS else last
    if candidate.form == "archive":
        suffix = next(suffix for suffix in ARCHIVE_SUFFIXES if candidate.path.name.lower().endswith(suffix))
        stem = candidate.path.name.lower().removesuffix(suffix)
        return 1 + _OWN_ARCHIVES.index(stem) if stem in _OWN_ARCHIVES else last
    return last


def _bytes(candidate: Candidate) -> int:
    if candidate.form == "archive":
        return candidate.path.stat().st_size
    if candidate.form == "parquet":
        return sum(path.stat().st_size for path in candidate.path.rglob("*") if is_parquet_name(path.name))
    entries = (entry for entry in scan(candidate.path) if has_image_suffix(entry.name) and entry.is_file())
    return sum(entry.stat().st_size for entry in entries)


def _as_ignored(top: Path, candidate: Candidate) -> IgnoredFile:
    where = printable(os.path.relpath(candidate.path, top))
    name = where if candidate.form == "archive" else f"{where}/"
    return IgnoredFile(name, f"{_NOUNS[candidate.form]}s beside those that were chosen", candidate.files)


def _refuse_without_images(path: Path, forced: Kind | None, unread: list[Path], broken: list[str]) -> None:
    if unread:
        raise refuse_file(unread[0])
    if broken:
        raise UsageError(f"{path} holds no images: {broken[0]} is a link to {_target(broken[0])}, which does not exist")
    wanted = f" of --kind {forced}" if forced else ""
    looked_for = (
        f"; looked for a folder (as img_align_celeba/) up to {_DEPTH} levels down, "
        "img_align_celeba.zip or another zip or tar archive, or parquet files"
    )
    raise no_images(FolderContainer(path, deep=forced is None), wanted, looked_for)


def _target(link: str) -> str:
    return printable(os.readlink(link))  # noqa: PTH115


def _survey(top: Path) -> tuple[list[Candidate], list[Path], list[Path]]:
    """All candidates at and below `top`, breadth first; archives of kinds that are not read; and the other files."""
    found: list[Candidate] = []
    unread: list[Path] = []
    unused: list[Path] = []
    parquet_files = 0
    seen: set[tuple[int, int]] = set()
    level = [top]
    for _ in range(_DEPTH + 1):
        deeper: list[Path] = []
        for folder in level[:_MAX_FOLDERS]:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a link that leads back
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = [entry for entry in scan(folder) if not ignored_file(entry.name)]
            folders = [entry.name for entry in entries if is_folder(entry)]
            deeper += [folder / name for name in sorted(folders) if not ignored_folder(name)]
            files = [entry.name for entry in entries if not is_folder(entry) and _is_file(entry)]
            if images := _count_images(folder, files):
                found.append(Candidate(folder, "folder", images))
            parquet_files += sum(map(is_parquet_name, files))
            unused += [folder / name for name in files if not _is_candidate(name)]
            if folder == top or (folder.parent == top and folder.name.lower() in _ARCHIVE_FOLDERS):
                names = sorted(files)
                found += [Candidate(folder / n, "archive", 1) for n in names if _is_archive(n)]
                unread += [folder / n for n in names if n.lower().endswith(UNREAD_ARCHIVE_SUFFIXES)]
        level = deeper
    if parquet_files:
        found.append(Candidate(top, "parquet", parquet_files))
    return found, unread, unused


def _is_candidate(name: str) -> bool:
    return has_image_suffix(name) or is_parquet_name(name) or _is_archive(name)


def _is_archive(name: str) -> bool:
    """Whether a file may be an archive of images: its name says so, and is not that of a packed list."""
    return name.lower().endswith(ARCHIVE_SUFFIXES) and not name.lower().startswith(LIST_STEMS)


def _reason(path: Path) -> str:
    """Why a file that is not an image, an archive or parquet is not used; "" for an image, which is counted already."""
    try:
        found = file_type(read_head(path))
        reason = unread_picture(path.name, found)
        return reason or ("" if found.family == "picture" else found.name)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _count_images(folder: Path, files: list[str]) -> int:
    """How many files of a folder are images: by their suffix, or by content if one of the first ones is an image."""
    if count := sum(map(has_image_suffix, files)):
        return count
    pictures = (not _reason(folder / name) for name in sorted(files))
    first = sum(itertools.islice(pictures, LOOKED_AT))
    return first + sum(pictures) if first else 0


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False
