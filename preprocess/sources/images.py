"""Any folder or archive of images. Subfolders are labels; a train/valid/test level above them is the split."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.containers.container import Container, counted, no_images, open_container
from preprocess.containers.file_kinds import check_source, printable
from preprocess.errors import UnreadableImage
from preprocess.images.crop_resize import Crop
from preprocess.shards.annotations import SampleTable, table_without_annotations
from preprocess.shards.manifest import SPLITS, LeftOut, Source
from preprocess.sources.index import (
    Catalogue,
    empty_splits,
    fingerprint,
    group_ignored,
    safe_key,
    seeded_split,
    split_named,
)

_BESIDE_SPLITS = "lies beside the folders of the splits, and in none of them"
_CELEBA_LISTS = ("list_attr_celeba.", "list_eval_partition.", "identity_CelebA.", "factors.csv")
_OTHER_LISTS = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "dataset.json", "labels.csv", "train.csv")
_SPLIT_DEPTH = 2  # folders above the split that an archive may have been unpacked into
_HASHING_THREADS = 8


def open_images(path: Path, seed: int) -> Catalogue:
    """Lists every image of a folder tree, or of a zip or tar archive. Links are followed, and no folder is read twice.

    Without a train/valid/test level the split is a seeded hash of each file's content, so that copies of one image are
    never in two splits.

    Raises:
        UsageError: there is no such folder or archive, or no image in it.
    """
    container = open_container(check_source(path), deep=True)
    if not container.names:
        raise no_images(container)
    level = _split_level(container.names)
    below = 0 if level is None else level + 1
    names = [name for name in container.names if name.count("/") >= below]
    loose = [name for name in container.names if name.count("/") < below]
    if level is None:
        split, how = _split_by_content(container, names, seed), "split 80/10/10 by a seeded hash of each file's content"
    else:
        split, how = [split_named(name.split("/")[level]) for name in names], "split as its folders say"
    # the label is all folders between the split, or the top, and the file
    top = _common_folders(names) if level is None and path.is_file() else below
    table, label_names = _table(names, ["/".join(name.split("/")[top:-1]) for name in names])
    summary = f"images: {path}, {counted(len(names), 'image')}, {counted(len(label_names), 'label')}, {how}"
    return Catalogue(
        source=Source(kind="images", fingerprint=_fingerprint(container), images=len(container.names)),
        table=table,
        split=np.array(split, np.int8),
        reader=lambda rows, scratch: container.reader([names[row] for row in rows], scratch),
        refingerprint=lambda: container.refingerprint(_fingerprint),
        default_crop=Crop(kind="square"),
        notes=(
            *(summary, *container.notes, *_unused_lists(container, path)),
            *(*_doubt(names, level), *empty_splits(np.array(split))),
        ),
        label_names=tuple(printable(name) for name in label_names),
        left_out=(*container.left_out, *(LeftOut(key=printable(name), reason=_BESIDE_SPLITS) for name in loose)),
        ignored=group_ignored(container.ignored),
        unpack=container.unpack,
    )


def _fingerprint(container: Container) -> str:
    return fingerprint(f"{name}\0{version}" for name, version in container.identity())


def _unused_lists(container: Container, path: Path) -> list[str]:
    """Notes about annotation files, which this source does not read."""
    files = [(file.name, file.name.rsplit("/", 1)[-1]) for file in container.ignored]
    found = [name for name, file in files if file.startswith(_CELEBA_LISTS)]
    others = [name for name, file in files if file.lower() in _OTHER_LISTS]
    command = f"`preprocess celeba --source {shlex.quote(str(path))}`"
    notes = [f"not read by this command: {', '.join(found[:3])}; {command} reads them"] if found else []
    if others:
        notes.append(f"annotations that are not read: {', '.join(others[:3])}; labels are the names of folders only")
    return notes


def _split_level(names: list[str]) -> int | None:
    """Returns how many folders lie above those of the splits; None where there are none.

    Every folder at that level must be a split: `train` beside `test` and `cats` may be a label. Files without such a
    folder do not count.
    """
    for level in range(_SPLIT_DEPTH + 1):
        above = {tuple(name.split("/")[:level]) for name in names if name.count("/") >= level}
        folders = _folders_at(names, level)
        if len(above) != 1 or not folders:
            return None
        if all(split_named(folder) >= 0 for folder in folders):
            return level
    return None


def _folders_at(names: list[str], level: int) -> set[str]:
    return {name.split("/")[level].lower() for name in names if name.count("/") > level}


def _doubt(names: list[str], level: int | None) -> list[str]:
    """A note about folders that have a split's name and are taken for labels."""
    folders = _folders_at(names, 0)
    splits = sorted(folder for folder in folders if split_named(folder) >= 0)
    if level is not None or not splits:
        return []
    others = ", ".join(printable(name) for name in sorted(folders.difference(splits))[:3])
    return [
        f"the folders {', '.join(splits)} are taken for labels, not splits, because others lie beside them: {others}"
    ]


def _common_folders(names: list[str]) -> int:
    """How many folders all images have in common."""
    folders = [name.split("/")[:-1] for name in names]
    first, last = min(folders), max(folders)  # what these two have in common, all have
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _table(names: list[str], labels: list[str]) -> tuple[SampleTable, list[str]]:
    """The table, and the names of its labels. Keys are the files' stems, or the whole names of files that share one."""
    labels = [unicodedata.normalize("NFC", label) for label in labels]  # macOS writes letters with accents in two parts
    label_names = sorted({label for label in labels if label})
    numbers = {label: number for number, label in enumerate(label_names)}
    stems = [safe_key(os.path.splitext(name.rsplit("/", 1)[-1])[0]) for name in names]  # noqa: PTH122
    times = Counter(stems)
    keys = [stem if times[stem] == 1 else safe_key(name) for name, stem in zip(names, stems, strict=True)]
    table = table_without_annotations(keys, [printable(name) for name in names])
    return replace(table, label=np.array([numbers.get(label, -1) for label in labels], np.int64)), label_names


def _split_by_content(container: Container, names: list[str], seed: int) -> list[int]:
    def split(name: str) -> int:
        try:
            return seeded_split(seed, container.content_hash(name))
        except (OSError, UnreadableImage):
            return SPLITS.index("train")  # it will be left out with this reason when it is read

    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        return list(pool.map(split, names, chunksize=64))
