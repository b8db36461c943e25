"""CelebA, and trees like it: finds images and annotation files, and makes a catalogue of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.errors import UnreadableImage, UsageError
from preprocess.manifest import Crop, LeftOut, Source
from preprocess.sample_json import SampleTable
from preprocess.sources.catalogue import Catalogue, printable, safe_key, seeded_split
from preprocess.sources.celeba_lists import Columns, read_attributes, read_factors, read_numbers, stem_of
from preprocess.sources.containers import Container, FolderContainer, ZipContainer, is_image_name

DATA_FOLDER = "data/celeba"
CELEBA_CROP = Crop(kind="centre", size=148)
_LOOKED_AT = 20  # images, to see which crop suits them
_DEPTH, _MAX_FOLDERS = 3, 500  # how far below --source images are looked for
_USUAL_NAMES = frozenset({"img_align_celeba", "CelebA-HQ-img"})
_ARCHIVES = ("img_align_celeba.zip", "Img/img_align_celeba.zip", "celeba/img_align_celeba.zip", "archive.zip")
_LIST_FOLDERS = (".", "Anno", "Eval")  # the official distribution has the last two
_LISTS: dict[str, tuple[tuple[str, ...], Callable[[bytes, str], Columns]]] = {
    "attributes": (
        ("list_attr_celeba.txt", "list_attr_celeba.csv", "CelebAMask-HQ-attribute-anno.txt"),
        read_attributes,
    ),
    "partition": (
        ("list_eval_partition.txt", "list_eval_partition.csv"),
        lambda content, where: read_numbers(content, where, "partition (0, 1 or 2)", range(3)),
    ),
    "identities": (
        ("identity_CelebA.txt", "identity_CelebA.csv"),
        lambda content, where: read_numbers(content, where, "identity"),
    ),
    "factors": (("factors.csv",), read_factors),
}


def find_source(given: Path | None) -> Path | None:
    """The place to read: the one given, else $CELEBA_ROOT, else data/celeba; None where none of them is there.

    Raises:
        UsageError: the one given does not exist.
    """
    if given is not None:
        if not given.exists():
            raise UsageError(f"--source {given} does not exist")
        return given
    places = (os.environ.get("CELEBA_ROOT"), DATA_FOLDER)
    return next((Path(place) for place in places if place and Path(place).exists()), None)


def no_source() -> UsageError:
    """Says where CelebA was looked for, which files are needed, and what to do instead."""
    from_environment = os.environ.get("CELEBA_ROOT")
    variable = f"$CELEBA_ROOT ({from_environment})" if from_environment else "$CELEBA_ROOT (not set)"
    return UsageError(
        f"no CelebA found: looked at --source (not given), {variable} and {DATA_FOLDER}; put img_align_celeba.zip "
        "(or the folder img_align_celeba/), list_attr_celeba.txt, list_eval_partition.txt and identity_CelebA.txt "
        "into one of them, add --yes to download them, or draw a substitute with "
        f"`preprocess faces --out {DATA_FOLDER}`"
    )


def open_celeba(path: Path, seed: int) -> Catalogue:
    """Lists the images and reads the annotations of one CelebA-format source.

    Args:
        path: a folder, a folder of images, or a zip archive.
        seed: of the split, where the source has no partition.

    Raises:
        UsageError: there are no images, or an annotation file is damaged.
    """
    container = _find_images(path)
    if not container.names:
        raise UsageError(f"{path} holds no images")
    lists = {what: found for what in _LISTS if (found := _find_list(container, what))}
    columns = {what: _LISTS[what][1](found.content, found.where) for what, found in lists.items()}
    fingerprint = _fingerprint(container, lists)
    names = [name for name in container.names if stem_of(name)]
    stems = [stem_of(name) for name in names]
    _refuse_duplicates(container, names, stems)
    table = _table(names, stems, columns)
    kind = "celeba zip" if isinstance(container, ZipContainer) else "celeba folder"
    default_crop, crop_note = _default_crop(container, names)
    return Catalogue(
        source=Source(kind=kind, fingerprint=fingerprint, images=len(names)),
        table=table,
        split=_split(table, stems, columns.get("partition"), seed),
        attribute_names=columns["attributes"].names if "attributes" in columns else (),
        factor_names=columns["factors"].names if "factors" in columns else (),
        label_names=(),
        channels=3,
        reader=lambda rows: container.reader([names[row] for row in rows]),
        left_out=_missing(stems, columns, lists),
        notes=(f"{kind}: {container.path}", *crop_note, *_notes(stems, columns)),
        default_crop=default_crop,
        refingerprint=lambda: _fingerprint(_find_images(path), lists),
    )


@dataclass(frozen=True)
class _Found:
    where: str
    content: bytes


def _find_images(path: Path) -> Container:
    if path.is_file():
        return ZipContainer(path)
    folders = _image_folders(path)
    named = [folder for folder in folders if folder.name in _USUAL_NAMES]
    chosen = folders if len(folders) == 1 else named
    if len(chosen) == 1:
        return FolderContainer(chosen[0])
    if folders:
        some = ", ".join(str(folder) for folder in folders[:4])
        raise UsageError(f"{path} holds several folders of images ({some}): point --source to one of them")
    for archive in _ARCHIVES:
        if (path / archive).is_file():
            return ZipContainer(path / archive)
    raise UsageError(
        f"{path} holds no images: looked for a folder of images (as img_align_celeba/) up to {_DEPTH} levels down, "
        "and for img_align_celeba.zip or archive.zip"
    )


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


def _find_list(container: Container, what: str) -> _Found | None:
    """Looks for an annotation file inside the archive, then beside the images and up to two levels above."""
    file_names, _ = _LISTS[what]
    for name in file_names:
        content = container.text(name)
        if content is not None:
            return _Found(f"{name} in {container.path}", content)
    here = container.path.resolve()
    above = [here.parent, here.parent.parent] if here.is_file() else [here, here.parent, here.parent.parent]
    for folder in above:
        for path in (folder / part / name for part in _LIST_FOLDERS for name in file_names):
            if path.is_file():
                try:
                    return _Found(str(path), path.read_bytes())
                except OSError as error:
                    raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return None


def _default_crop(container: Container, names: list[str]) -> tuple[Crop, list[str]]:
    """The crop that suits most of the first images, and what to say about it."""
    looked_at = container.reader(names[:_LOOKED_AT]).pixels()
    sizes = Counter(image.shape[:2] for image in looked_at if not isinstance(image, UnreadableImage))
    if not sizes:
        return CELEBA_CROP, []
    ((height, width), _), *_ = sizes.most_common(1)
    if height == width:
        return Crop(kind="square"), ["the images are square, as CelebA-HQ's: no crop unless one is asked for"]
    if min(height, width) < (CELEBA_CROP.size or 0):
        words = f"the images ({width} x {height}) are smaller than the usual crop: taking the largest central square"
        return Crop(kind="square"), [words]
    return CELEBA_CROP, []


def _fingerprint(container: Container, lists: dict[str, _Found]) -> str:
    """SHA-256 over names and sizes of the images and the content of the lists, not over where they lie."""
    digest = hashlib.sha256()
    for line in container.identity():
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    for what in sorted(lists):
        digest.update(f"{what} {hashlib.sha256(lists[what].content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _refuse_duplicates(container: Container, names: list[str], stems: list[str]) -> None:
    first: dict[str, str] = {}
    for name, stem in zip(names, stems, strict=True):
        other = first.setdefault(stem, name)
        if other != name:
            raise UsageError(f"{container.path} holds two images of one name, {other} and {name}: remove one of them")


def _table(names: list[str], stems: list[str], columns: dict[str, Columns]) -> SampleTable:
    """Joins images and annotations by stem; what an image lacks stays -1 or NaN."""
    count = len(stems)
    joined: dict[str, np.ndarray] = {}
    for what, absent, kind in (("attributes", -1, np.int8), ("factors", np.nan, np.float64)):
        found = columns.get(what)
        joined[what] = _join(stems, found, absent, kind) if found else np.empty((count, 0), kind)
    identity = np.full((count, 1), -1, np.int64)
    if "identities" in columns:
        identity = _join(stems, columns["identities"], -1, np.int64)
    return SampleTable(
        keys=[safe_key(stem) for stem in stems],
        sources=[printable(name) for name in names],
        attributes=joined["attributes"],
        factors=joined["factors"],
        identity=identity[:, 0],
        label=np.full(count, -1, np.int64),
    )


def _join(stems: list[str], columns: Columns, absent: float, kind: type) -> np.ndarray:
    result = np.full((len(stems), columns.values.shape[1]), absent, kind)
    rows = np.array([columns.rows.get(stem, -1) for stem in stems], np.int64)
    result[rows >= 0] = columns.values[rows[rows >= 0]]
    return result


def _split(table: SampleTable, stems: list[str], partition: Columns | None, seed: int) -> np.ndarray:
    split = np.full(len(stems), -1, np.int64)
    if partition is not None:
        split = _join(stems, partition, -1, np.int64)[:, 0]
    for row in np.flatnonzero(split < 0).tolist():
        split[row] = seeded_split(seed, table.keys[row])
    return split.astype(np.int8)


def _missing(stems: list[str], columns: dict[str, Columns], lists: dict[str, _Found]) -> tuple[LeftOut, ...]:
    """What the lists name and the source does not have."""
    known, missing = set(stems), {}
    for what, found in columns.items():
        if what not in {"attributes", "partition"}:
            continue
        list_name = Path(lists[what].where.split(" in ")[0]).name
        for name in found.files:
            if stem_of(name) not in known:
                missing.setdefault(safe_key(stem_of(name)), f"listed in {list_name}, but there is no such image")
    return tuple(LeftOut(key=key, reason=reason) for key, reason in sorted(missing.items()))


def _notes(stems: list[str], columns: dict[str, Columns]) -> list[str]:
    notes = []
    without = {
        "attributes": "no attribute list (list_attr_celeba.txt): going on without attributes",
        "partition": "no partition list (list_eval_partition.txt): splitting 80/10/10 by a seeded hash of the name",
        "identities": "no identity list (identity_CelebA.txt): going on without identities",
    }
    for what, words in without.items():
        found = columns.get(what)
        if found is None:
            notes.append(words)
            continue
        unlisted = sum(stem not in found.rows for stem in stems)
        if unlisted:
            notes.append(f"{unlisted:,} images are not in the list of {what}")
        if found.note:
            notes.append(found.note)
    return notes
