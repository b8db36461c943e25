"""The forms in which people have CelebA: recognized by looking at the source, or set by --kind."""

from __future__ import annotations

import itertools
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn

import numpy as np

from preprocess.containers.container import Container, IgnoredFile, counted, no_images, open_container
from preprocess.containers.file_kinds import (
    ARCHIVE_SUFFIXES,
    UNREAD_ARCHIVE_SUFFIXES,
    has_image_suffix,
    ignored_file,
    ignored_folder,
    is_parquet_name,
    link_target,
    printable,
    read_head,
    refuse_file,
    type_of,
    unread_picture,
)
from preprocess.containers.folder import FolderContainer, is_file, is_folder, scan
from preprocess.errors import UnreadableImage, UsageError
from preprocess.images.crop_resize import CELEBA_SIZE, Crop, has_celeba_frame, scaled_crop
from preprocess.images.file_types import PARQUET, file_type

Kind = Literal["folder", "archive", "kaggle", "hq", "parquet"]
KIND_WORDS: dict[Kind, str] = {
    "folder": "a folder of aligned CelebA images",
    "archive": "an archive of aligned CelebA images",
    "kaggle": "Kaggle's CelebA, with its CSV files",
    "hq": "CelebA-HQ: square images",
    "parquet": "Hugging Face parquet files",
}
CELEBA_CROP, _SQUARE = Crop(kind="center", size=148), Crop(kind="square")
LOOKED_AT = 20  # images, to see which crop suits them; files without an image's suffix, to see whether one is an image
_DEPTH, _MAX_FOLDERS = 5, 500  # how far below --source images are looked for: VERSIONS/2/ and Kaggle's double folder
_OWN_FOLDERS = frozenset(("img_align_celeba", "img_align_celeba_png", "celeba-hq-img", "celeba_hq_256"))
_OWN_ARCHIVES = ("img_align_celeba", "img_align_celeba_png", "celebamask-hq", "celeba-hq", "celeba")
_ARCHIVE_FOLDERS = frozenset(("img", "celeba"))  # below --source, where archives are looked for too
LIST_STEMS = (
    *("list_attr_celeba", "list_eval_partition", "identity_celeba", "list_landmarks_align"),
    "celebamask-hq-attr",
)
_BY_FAR = 20  # times as many bytes as all others make a nameless candidate the data set
_NOUNS = {"folder": "image", "parquet": "parquet file", "archive": "archive"}


@dataclass(frozen=True)
class Candidate:
    """What may hold the data set: a folder with images directly in it, an archive, or a folder of parquet files."""

    path: Path
    form: Literal["folder", "archive", "parquet"]
    files: tuple[str, ...] = ("",)  # names of the images, or of the parquet files, relative to the path

    def __str__(self) -> str:
        """Returns the candidate as a message names it."""
        path = printable(str(self.path))
        return path if self.form == "archive" else f"{path} ({counted(len(self.files), _NOUNS[self.form])})"

    def rank(self) -> int:
        """0 for a folder of the data set's own name, then archives of such names; all others share the last rank."""
        name, last = self.path.name.lower(), len(_OWN_ARCHIVES) + 1
        if self.form == "folder":
            return 0 if {name, self.path.resolve().name.lower()} & _OWN_FOLDERS else last
        stem = next((name.removesuffix(suffix) for suffix in ARCHIVE_SUFFIXES if name.endswith(suffix)), "")
        return 1 + _OWN_ARCHIVES.index(stem) if self.form == "archive" and stem in _OWN_ARCHIVES else last

    def bytes(self) -> int:
        """The size of its files."""
        return sum((self.path / file).stat().st_size for file in self.files)


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
        is_parquet = forced == "parquet" or type_of(path) is PARQUET
        return None if is_parquet else open_container(path, deep=False), [], []
    if forced == "parquet":
        return None, [], []
    found, unread, unused = _survey(path)
    broken = [entry.path for entry in scan(path) if entry.is_symlink() and not Path(entry.path).exists()]
    forms = {"folder": {"folder"}, "archive": {"archive"}, None: {"folder", "archive", "parquet"}}
    allowed = [candidate for candidate in found if candidate.form in forms.get(forced, {"folder", "archive"})]
    if not allowed:
        _refuse_without_images(path, forced, unread, broken)
    chosen = _choose(path, allowed, forced)
    others = [candidate for candidate in found if candidate != chosen]
    notes = [f"{link} is a link to {link_target(link)}, which leads nowhere" for link in broken if chosen.path != path]
    if others:
        some = ", ".join(map(str, others[:4])) + (f" and {len(others) - 4:,} more" if len(others) > 4 else "")
        notes.append(f"not used, because the images are read from {chosen.path.name}: {some}")
    ignored = []
    for other in others:
        name = _relative(other.path, path) + ("" if other.form == "archive" else "/")
        ignored.append(IgnoredFile(name, f"{_NOUNS[other.form]}s beside those that were chosen", len(other.files)))
    for file in unused:
        if (file.parent, "folder") != (chosen.path, chosen.form) and (reason := _reason(file)):
            ignored.append(IgnoredFile(_relative(file, path), reason))
    return None if chosen.form == "parquet" else open_container(chosen.path, deep=False), notes, ignored


def _relative(path: Path, top: Path) -> str:
    return printable(os.path.relpath(path, top))


def own_images(container: Container) -> tuple[list[str], list[IgnoredFile]]:
    """The images in an archive's folder of the data set's own name, or all where there is none; and the others."""
    own = [name for name in container.names if PurePosixPath(name).parent.name.lower() in _OWN_FOLDERS]
    if not own or len(own) == len(container.names):
        return container.names, []
    others = Counter(str(PurePosixPath(name).parent) for name in set(container.names) - set(own))
    reason = f"images beside the folder {PurePosixPath(own[0]).parent.name} of the archive"
    return own, [IgnoredFile(f"{printable(folder)}/", reason, count) for folder, count in sorted(others.items())]


def recognize(container: Container, size: tuple[int, int] | None, has_csv: bool, forced: Kind | None) -> Kind:
    """Recognizes the kind of CelebA.

    Args:
        container: with the images.
        size: (H, W) of most images; None where they cannot be read.
        has_csv: whether the lists are CSV files, as Kaggle's are.
        forced: the value of --kind; None for auto.

    Raises:
        UsageError: When --kind is kaggle and Kaggle's lists are not there.
    """
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
    return "folder" if container.path.is_dir() else "archive"


def recognized(kind: Kind, forced: Kind | None, path: Path, images: int) -> str:
    """The line that says what the source was taken for."""
    how = "as set by --kind" if forced else "override with --kind"
    return f"{path}: {KIND_WORDS[kind]} ({kind}), {counted(images, 'image')}; {how}"


def usual_size(images: Iterator[np.ndarray | UnreadableImage]) -> tuple[int, int] | None:
    """Height and width of most of the first images; None where none of them can be read."""
    looked_at = itertools.islice(images, LOOKED_AT)
    sizes = Counter(image.shape[:2] for image in looked_at if not isinstance(image, UnreadableImage))
    return sizes.most_common(1)[0][0] if sizes else None


def default_crop(kind: Kind, size: tuple[int, int] | None) -> tuple[Crop, tuple[str, ...]]:
    """Chooses the crop that suits images of a kind and size (height, width); also returns notes for the terminal.

    Images in CelebA's frame of another size get the same part of it: 74 pixels of 89 x 109 are 148 of 178 x 218.
    """
    if kind == "hq":
        return _SQUARE, ("the images are square, as CelebA-HQ's: no crop unless one is asked for",)
    if size is None or size == CELEBA_SIZE:
        return CELEBA_CROP, ()
    images = f"the images ({size[1]} x {size[0]})"
    if has_celeba_frame(size):
        crop = scaled_crop(CELEBA_CROP, CELEBA_SIZE, size)
        return crop, (f"{images} have CelebA's frame in another size: center crop of {crop.size}",)
    if min(size) < (CELEBA_CROP.size or 0):
        return _SQUARE, (f"{images} are smaller than the usual crop: taking the largest central square",)
    images += " do not have CelebA's frame (178 x 218)"
    if min(size) >= 2 * CELEBA_SIZE[1]:
        return _SQUARE, (f"{images}: taking the largest central square",)
    return CELEBA_CROP, (f"{images}: center crop of {CELEBA_CROP.size} pixels; --crop chooses another",)


def _choose(top: Path, candidates: list[Candidate], forced: Kind | None) -> Candidate:
    """The candidate that is the data set, or a UsageError that names all of them."""
    first = min(candidate.rank() for candidate in candidates)
    own = [candidate for candidate in candidates if candidate.rank() == first]
    if len(own) == 1:
        return own[0]
    direct = next((candidate for candidate in own if candidate.path == top and candidate.form == "folder"), None)
    below = sum(len(candidate.files) for candidate in own if candidate.form == "folder" and candidate is not direct)
    if direct and (forced == "folder" or (below and len(direct.files) >= below)):
        return direct
    sizes = {candidate: candidate.bytes() for candidate in own}
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


def _refuse_without_images(path: Path, forced: Kind | None, unread: list[Path], broken: list[str]) -> NoReturn:
    if unread:
        raise refuse_file(unread[0])
    if broken:
        target = link_target(broken[0])
        raise UsageError(f"{path} holds no images: {broken[0]} is a link to {target}, which does not exist")
    looked_for = (
        f"; looked for a folder (as img_align_celeba/) up to {_DEPTH} levels down, "
        "img_align_celeba.zip or another zip or tar archive, or parquet files"
    )
    wanted = f" of --kind {forced}" if forced else ""
    raise no_images(FolderContainer(path, deep=forced is None), wanted, looked_for)


def _survey(top: Path) -> tuple[list[Candidate], list[Path], list[Path]]:
    """All candidates at and below `top`, breadth first; archives of kinds that are not read; and the other files."""
    found: list[Candidate] = []
    unread: list[Path] = []
    unused: list[Path] = []
    parquet_files: list[str] = []
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
            names = sorted(entry.name for entry in entries if is_folder(entry))
            deeper += [folder / name for name in names if not ignored_folder(name)]
            files = sorted(entry.name for entry in entries if is_file(entry))
            if images := _images(folder, files):
                found.append(Candidate(folder, "folder", images))
            parquet_files += [str((folder / name).relative_to(top)) for name in files if is_parquet_name(name)]
            if folder == top or (folder.parent == top and folder.name.lower() in _ARCHIVE_FOLDERS):
                found += [Candidate(folder / name, "archive") for name in files if _is_archive(name)]
                unread += [folder / name for name in files if name.lower().endswith(UNREAD_ARCHIVE_SUFFIXES)]
            others = (n for n in files if not (has_image_suffix(n) or is_parquet_name(n) or _is_archive(n)))
            unused += [folder / name for name in others]
        level = deeper
    if parquet_files:
        found.append(Candidate(top, "parquet", tuple(parquet_files)))
    return found, unread, unused


def _is_archive(name: str) -> bool:
    """Whether a file may be an archive of images: its name says so, and is not that of a packed list."""
    return name.lower().endswith(ARCHIVE_SUFFIXES) and not name.lower().startswith(LIST_STEMS)


def _reason(path: Path) -> str:
    """Why a file that is not an image, an archive or parquet is not used; "" for an image, which is counted already."""
    try:
        found = file_type(read_head(path))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return unread_picture(path.name, found) or ("" if found.family == "picture" else found.name)


def _images(folder: Path, files: list[str]) -> tuple[str, ...]:
    """The images among a folder's files: by their suffix, or by content if one of the first ones is an image."""
    named = tuple(filter(has_image_suffix, files))
    if named or not any(not _reason(folder / name) for name in files[:LOOKED_AT]):
        return named
    return tuple(name for name in files if not _reason(folder / name))
