"""Any folder of images. Subfolders are labels; a train/valid/test level above them is the split."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from preprocess.errors import UsageError
from preprocess.shards.annotations import SampleTable
from preprocess.shards.manifest import SPLITS, Crop, LeftOut, Source
from preprocess.sources.archives import FolderImages, is_image_name
from preprocess.sources.index import SPLIT_NAMES, Catalogue, printable, safe_key, seeded_split

_BESIDE_SPLITS = "lies beside the folders of the splits, and in none of them"
_SPLIT_DEPTH = 2  # folders above the split that an archive may have been unpacked into
_HASHING_THREADS = 8


def open_images(folder: Path, seed: int) -> Catalogue:
    """Lists every image below a folder; links to other folders are not followed.

    Without a train/valid/test level the split is a seeded hash of each file's content, so that copies of one image
    never lie on both sides.

    Raises:
        UsageError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of images")
    found = sorted(_walk(str(folder)))
    sizes = {name: size for name, size, _ in found}
    names = list(sizes)
    if not names:
        raise UsageError(f"{folder} holds no images")
    level = _split_level(names)
    loose = [] if level is None else [name for name in names if name.count("/") <= level]
    names = [name for name in names if level is None or name.count("/") > level]
    labels = [_label(name, level) for name in names]
    label_names = tuple(sorted({label for label in labels if label}))
    if level is not None:
        split = np.array([SPLIT_NAMES[name.split("/")[level].lower()] for name in names], np.int8)
        how = "split as its folders say"
    else:
        split = np.array(_split_by_content(folder, names, seed), np.int8)
        how = "split 80/10/10 by a seeded hash of each file's content"
    return Catalogue(
        source=Source(kind="images", fingerprint=_fingerprint(sizes), images=len(sizes)),
        table=_table(names, labels, label_names),
        split=split,
        attribute_names=(),
        factor_names=(),
        label_names=tuple(printable(name) for name in label_names),
        channels=3,
        reader=lambda rows, _: FolderImages(str(folder.resolve()), [names[row] for row in rows]),
        left_out=tuple(LeftOut(key=printable(name), reason=_BESIDE_SPLITS) for name in loose),
        notes=(f"images: {folder}, {len(names):,} images, {len(label_names):,} labels, {how}", *_doubt(names, level)),
        default_crop=Crop(kind="square"),
        refingerprint=lambda: _fingerprint(sizes) if sorted(_walk(str(folder))) == found else "changed",
    )


def _walk(top: str) -> Iterator[tuple[str, int, int]]:
    """(relative name, bytes, time of change in ns) of each image; hidden and linked folders are passed over."""
    waiting = [(top, "")]  # not by recursion: folders may lie a thousand deep
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            raise UsageError(f"{folder} cannot be read: {error.strerror}") from None
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
            elif is_image_name(entry.name) and entry.is_file():
                yield prefix + entry.name, entry.stat().st_size, entry.stat().st_mtime_ns


def _split_level(names: list[str]) -> int | None:
    """How many folders lie above those that are splits; None where there are none.

    Every folder at that level must be a split: of `train`, `test` and `cats` none is known to be one. Files without
    such a folder do not count.
    """
    for level in range(_SPLIT_DEPTH + 1):
        above = {tuple(name.split("/")[:level]) for name in names if name.count("/") >= level}
        folders = _folders_at(names, level)
        if len(above) != 1 or not folders:
            return None
        if folders <= SPLIT_NAMES.keys():
            return level
    return None


def _folders_at(names: list[str], level: int) -> set[str]:
    return {name.split("/")[level].lower() for name in names if name.count("/") > level}


def _doubt(names: list[str], level: int | None) -> list[str]:
    """What to say of folders that look like splits and are taken for labels."""
    folders = _folders_at(names, 0)
    splits = sorted(folders & SPLIT_NAMES.keys())
    if level is not None or not splits:
        return []
    others = ", ".join(printable(name) for name in sorted(folders - SPLIT_NAMES.keys())[:3])
    return [
        f"the folders {', '.join(splits)} are taken for labels, not splits, because others lie beside them: {others}"
    ]


def _label(name: str, level: int | None) -> str:
    """The folders between the split, or the top, and the file."""
    return "/".join(name.split("/")[0 if level is None else level + 1 : -1])


def _table(names: list[str], labels: list[str], label_names: tuple[str, ...]) -> SampleTable:
    count = len(names)
    number = {label: i for i, label in enumerate(label_names)}
    return SampleTable(
        keys=_keys(names),
        sources=[printable(name) for name in names],
        attributes=np.empty((count, 0), np.int8),
        factors=np.empty((count, 0)),
        identity=np.full(count, -1, np.int64),
        label=np.array([number.get(label, -1) for label in labels], np.int64),
        landmarks=np.empty((count, 0), np.int32),
    )


def _keys(names: list[str]) -> list[str]:
    """The files' stems where all are different; the whole relative names where not."""
    stems = [safe_key(os.path.splitext(name.rsplit("/", 1)[-1])[0]) for name in names]  # noqa: PTH122
    if len(set(stems)) == len(stems):
        return stems
    twice = {stem for stem, times in Counter(stems).items() if times > 1}
    return [safe_key(name) if stem in twice else stem for name, stem in zip(names, stems, strict=True)]


def _split_by_content(folder: Path, names: list[str], seed: int) -> list[int]:
    def split(name: str) -> int:
        try:
            with (folder / name).open("rb") as file:
                return seeded_split(seed, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError:
            return SPLITS.index("train")  # it will be left out with this reason when it is read

    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        return list(pool.map(split, names, chunksize=64))


def _fingerprint(sizes: dict[str, int]) -> str:
    digest = hashlib.sha256()
    for name, size in sizes.items():
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
