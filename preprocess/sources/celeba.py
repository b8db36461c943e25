"""CelebA, and trees like it: finds images and annotation files, and makes a catalogue of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.errors import UsageError
from preprocess.shards.annotations import NO_LANDMARK, SampleTable
from preprocess.shards.manifest import LeftOut, Source
from preprocess.sources.archives import Container, refuse_long_list
from preprocess.sources.celeba_layouts import (
    Kind,
    default_crop,
    find_images,
    is_parquet,
    recognize,
    recognized,
    usual_size,
)
from preprocess.sources.celeba_lists import (
    Columns,
    read_attributes,
    read_factors,
    read_landmarks,
    read_numbers,
    stem_of,
)
from preprocess.sources.index import Catalogue, printable, safe_key, seeded_split

DATA_FOLDER = "data/celeba"
_LIST_FOLDERS = (".", "Anno", "Eval")  # the official distribution has the last two
_COLUMNS = (("attributes", -1, np.int8), ("factors", np.nan, np.float64), ("landmarks", NO_LANDMARK, np.int32))
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
    "landmarks": (("list_landmarks_align_celeba.txt", "list_landmarks_align_celeba.csv"), read_landmarks),
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


def open_celeba(path: Path, seed: int, forced: Kind | None = None) -> Catalogue:
    """Lists the images and reads the annotations of one CelebA-format source.

    Args:
        path: a folder, a folder of images, a zip archive, or parquet files.
        seed: of the split, where the source has no partition.
        forced: what the source is to be taken for; recognized by looking at it where None.

    Raises:
        UsageError: there are no images, or an annotation file is damaged.
    """
    if forced == "parquet" or (forced is None and is_parquet(path)):
        from preprocess.sources.celeba_parquet import open_parquet  # noqa: PLC0415 - needs an extra

        return open_parquet(path, seed, forced)
    container = find_images(path, forced)
    if not container.names:
        refused = "".join(f" but {left.key}: {left.reason}" for left in container.refused[:1])
        raise UsageError(f"{path} holds no images{refused}")
    lists = {what: found for what in _LISTS if (found := _find_list(container, what))}
    columns = {what: _LISTS[what][1](found.content, found.where) for what, found in lists.items()}
    fingerprint = _fingerprint(container, lists)
    stamp = container.stamp()
    names = [name for name in container.names if stem_of(name)]
    stems = [stem_of(name) for name in names]
    _refuse_duplicates(container, names, stems)
    table = _table(names, stems, columns)
    size = usual_size(container)
    kind = recognize(container, size, [f.name for what, f in lists.items() if what != "factors"], forced)
    crop, crop_note = default_crop(kind, size)
    return Catalogue(
        source=Source(kind=f"celeba {kind}", fingerprint=fingerprint, images=len(names)),
        table=table,
        split=_split(table, stems, columns.get("partition"), seed),
        attribute_names=columns["attributes"].names if "attributes" in columns else (),
        factor_names=columns["factors"].names if "factors" in columns else (),
        label_names=(),
        landmark_names=columns["landmarks"].names if "landmarks" in columns else (),
        channels=3,
        reader=lambda rows, _: container.reader([names[row] for row in rows]),
        left_out=(*container.refused, *_missing(stems, columns, lists)),
        notes=(recognized(kind, forced, container.path, len(names)), *crop_note, *_notes(stems, columns)),
        default_crop=crop,
        refingerprint=lambda: _fingerprint_again(find_images(path, forced), lists, stamp),
    )


@dataclass(frozen=True)
class _Found:
    name: str  # of the file, without folders
    where: str  # for a person
    content: bytes


def _find_list(container: Container, what: str) -> _Found | None:
    """Looks for an annotation file inside the archive, then beside the images and up to two levels above."""
    file_names, _ = _LISTS[what]
    for name in file_names:
        content = container.text(name)
        if content is not None:
            return _Found(name, f"{name} in {container.path}", content)
    here = container.path.resolve()
    above = [here.parent, here.parent.parent] if here.is_file() else [here, here.parent, here.parent.parent]
    for folder in above:
        for path in (folder / part / name for part in _LIST_FOLDERS for name in file_names):
            if path.is_file():
                try:
                    refuse_long_list(path.stat().st_size, str(path))
                    return _Found(path.name, str(path), path.read_bytes())
                except OSError as error:
                    raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return None


def _fingerprint(container: Container, lists: dict[str, _Found]) -> str:
    """SHA-256 over names and sizes of the images and the content of the lists, not over where they lie."""
    digest = hashlib.sha256()
    for line in container.identity():
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    for what in sorted(lists):
        digest.update(f"{what} {hashlib.sha256(lists[what].content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _fingerprint_again(container: Container, lists: dict[str, _Found], stamp: int) -> str:
    """The fingerprint, or something else where a file was written again at its old size."""
    return _fingerprint(container, lists) if container.stamp() == stamp else "written again"


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
    for what, absent, kind in _COLUMNS:
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
        landmarks=joined["landmarks"],
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
        list_name = lists[what].name
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
        "landmarks": "no landmark list (list_landmarks_align_celeba.txt): going on without landmarks",
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
