"""CelebA, and trees like it: finds images and annotation files, and makes a catalogue of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.containers.container import Container, counted, refuse_long_list
from preprocess.containers.file_kinds import LIST_SUFFIXES, check_source, no_images
from preprocess.containers.folder import is_folder, scan
from preprocess.errors import UsageError
from preprocess.shards.annotations import NO_LANDMARK, SampleTable
from preprocess.shards.manifest import LeftOut, Source
from preprocess.sources.celeba_layouts import (
    LIST_STEMS,
    LOOKED_AT,
    Kind,
    default_crop,
    find_images,
    own_images,
    recognize,
    recognized,
    usual_size,
)
from preprocess.sources.celeba_lists import (
    Columns,
    list_key,
    read_attributes,
    read_factors,
    read_identities,
    read_landmarks,
    read_partition,
    stem_of,
)
from preprocess.sources.index import Catalogue, empty_splits, group_ignored, printable, safe_key, seeded_split
from preprocess.sources.list_lines import unpacked_list

DATA_FOLDER = "data/celeba"
_LIST_FOLDERS = ("anno", "eval", "labels", "annotations", "lists")  # the official distribution has the first two
_LIST_ENDS = (".gz", ".zip")  # Kaggle's single files are zipped
_COLUMNS = (("attributes", -1, np.int8), ("factors", np.nan, np.float64), ("landmarks", NO_LANDMARK, np.int32))
_LISTS: dict[str, tuple[tuple[str, ...], Callable[[bytes, str], Columns]]] = {
    "attributes": (
        ("list_attr_celeba.txt", "list_attr_celeba.csv", "CelebAMask-HQ-attribute-anno.txt"),
        read_attributes,
    ),
    "partition": (("list_eval_partition.txt", "list_eval_partition.csv"), read_partition),
    "identities": (("identity_CelebA.txt", "identity_CelebA.csv"), read_identities),
    "landmarks": (("list_landmarks_align_celeba.txt", "list_landmarks_align_celeba.csv"), read_landmarks),
    "factors": (("factors.csv",), read_factors),
}
_SPLIT_BY_HASH = "splitting 80/10/10 by a seeded hash of the name"
_WITHOUT = {
    "attributes": "no attribute list (list_attr_celeba.txt): continuing without attributes",
    "partition": f"no partition list (list_eval_partition.txt): {_SPLIT_BY_HASH}",
    "identities": "no identity list (identity_CelebA.txt): continuing without identities",
    "landmarks": "no landmark list (list_landmarks_align_celeba.txt): continuing without landmarks",
}


def find_source(given: Path | None) -> Path | None:
    """Finds the source to read: the given one, else $CELEBA_ROOT, else data/celeba.

    Returns:
        The source, or None where none of them exists.

    Raises:
        UsageError: the given one does not exist.
    """
    if given is not None:
        return check_source(given, "--source ")
    paths = (os.environ.get("CELEBA_ROOT"), DATA_FOLDER)
    return next((Path(path) for path in paths if path and Path(path).exists()), None)


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
        path: a folder, a folder of images, a zip or tar archive, or parquet files.
        seed: of the split, where the source has no partition.
        forced: the kind of the source; recognized by looking at it where None.

    Raises:
        UsageError: there are no images, or an annotation file is damaged.
    """
    container, notes, beside = find_images(path, forced)
    if container is None:
        from preprocess.sources.celeba_parquet import open_parquet  # noqa: PLC0415 - needs an extra

        return open_parquet(path, seed, forced, tuple(notes), beside)
    chosen, others = own_images(container)
    names = [name for name in chosen if stem_of(name)]
    if not names:
        raise no_images(container)
    lists, list_notes = _find_lists(container, path)
    columns = {what: _LISTS[what][1](found.content, found.where) for what, found in lists.items()}
    fingerprint = _fingerprint(container, lists)
    stamp = container.stamp()
    stems = [list_key(name) for name in names]
    _refuse_duplicates(container, names, stems)
    _refuse_foreign_lists(names, stems, columns, lists)
    table = _table(names, stems, columns)
    split = _split(table, stems, columns.get("partition"), seed)
    size = usual_size(container.first_pixels(LOOKED_AT))
    kind = recognize(container, size, [f.name for what, f in lists.items() if what != "factors"], forced)
    crop, crop_note = default_crop(kind, size)
    used = {
        (container.path / found.member if found.member else Path(found.where)).resolve() for found in lists.values()
    }
    unused = [file for file in container.ignored if (container.path / file.name).resolve() not in used]
    unused += [file for file in beside if (path / file.name).resolve() not in used]
    return Catalogue(
        source=Source(kind=f"celeba {kind}", fingerprint=fingerprint, images=len(names)),
        table=table,
        split=split,
        attribute_names=columns["attributes"].names if "attributes" in columns else (),
        factor_names=columns["factors"].names if "factors" in columns else (),
        label_names=(),
        landmark_names=columns["landmarks"].names if "landmarks" in columns else (),
        channels=3,
        reader=lambda rows, scratch: container.reader([names[row] for row in rows], scratch),
        left_out=(*container.left_out, *_missing(stems, columns, lists)),
        notes=(
            recognized(kind, forced, container.path, len(names)),
            *notes,
            *container.notes,
            *(f"not used: {counted(file.files, 'image')} in {file.name} ({file.reason})" for file in others),
            *list_notes,
            *_notes(stems, columns),
            *empty_splits(split),
        ),
        default_crop=crop,
        crop_notes=tuple(crop_note),
        source_size=size,
        refingerprint=lambda: _fingerprint_again(container.list_again(), lists, stamp),
        unpack=container.unpack,
        ignored=group_ignored([*others, *unused]),
    )


@dataclass(frozen=True)
class _Found:
    name: str  # of the file, without folders
    where: str  # as messages name it
    content: bytes
    unused: tuple[str, ...]  # other lists of the same kind beside it
    member: str = ""  # its name in the archive of images


def _find_lists(container: Container, source: Path) -> tuple[dict[str, _Found], list[str]]:
    """Looks for each list inside the archive, beside the images, and in the folders above; also returns notes."""
    inside: dict[str, str] = {}
    for name in sorted(container.lists, key=lambda name: (-name.count("/"), name)):
        inside[PurePosixPath(name).name.lower()] = name  # of two lists of one name, the one nearest to the top
    places = [_list_files(folder) for folder in _list_folders(container.path, source)]
    found: dict[str, _Found] = {}
    notes: list[str] = []
    for what, (file_names, _) in _LISTS.items():
        wanted = [f"{name}{end}".lower() for name in file_names for end in ("", *_LIST_ENDS)]
        held = [(name, inside[name]) for name in wanted if name in inside]
        lying = [[place[name] for name in wanted if name in place] for place in places]
        paths = next(filter(None, lying), [])
        if held:
            others = [*(f"{name} in {container.path}" for _, name in held[1:]), *map(str, lying[0])]
            name = PurePosixPath(held[0][1]).name
            content = unpacked_list(container.text(held[0][1]))
            found[what] = _Found(name, f"{name} in {container.path}", content, tuple(others), held[0][1])
        elif paths:
            found[what] = _Found(paths[0].name, str(paths[0]), _read_list(paths[0]), tuple(map(str, paths[1:])))
        elif what in _WITHOUT:
            stem = file_names[0].rsplit(".", 1)[0].lower()
            similar = next((path for place in places for name, path in place.items() if name.startswith(stem)), None)
            end = similar.suffix.lower() if similar and similar.suffix.lower() in LIST_SUFFIXES else ".csv"
            rename = f"; {similar} is not used: save or rename it as {stem}{end} to have it read" if similar else ""
            notes.append(_WITHOUT[what] + rename)
    notes += [
        f"not used, because {each.where} is read: {', '.join(each.unused)}" for each in found.values() if each.unused
    ]
    return found, notes


def _list_files(folder: Path) -> dict[str, Path]:
    """The files of a folder and of its folders for lists, by their names in small letters."""
    files: dict[str, Path] = {}
    try:
        entries = sorted(scan(folder), key=lambda entry: entry.name)
    except UsageError:  # a folder above the images may be closed; its files may be read by name
        known = (folder / name for names, _ in _LISTS.values() for name in names)
        return {path.name.lower(): path for path in known if os.access(path, os.R_OK)}
    for entry in entries:
        name, path = entry.name.lower(), folder / entry.name
        if name in _LIST_FOLDERS and is_folder(entry):
            files = {**_list_files(path), **files}
        elif name.startswith(LIST_STEMS) or name == "factors.csv":
            own = path / entry.name  # some archives unpack into a folder of the file's name
            files[name] = own if is_folder(entry) and own.is_file() else path
    return files


def _read_list(path: Path) -> bytes:
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{path} is a link to {path.readlink()}, which does not exist")
    try:
        refuse_long_list(path.stat().st_size, str(path))
        return unpacked_list(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _list_folders(images: Path, source: Path) -> list[Path]:
    """Where lists may lie: beside the images as they are named, in the source, then beside the target of a link."""
    folders: list[Path] = []
    for path in (_absolute(images), images.resolve()):
        near = [path.parent, path.parent.parent] if path.is_file() else [path, path.parent, path.parent.parent]
        folders += [*near, source] if source.is_dir() and not folders else near
    if images.is_dir():
        folders[0] = images  # named as the user did
    return list(dict.fromkeys(folders))


def _absolute(path: Path) -> Path:
    """The path from the root, links kept; only what lies before a `..` is resolved, for its parent would be wrong."""
    parts = path.absolute().parts
    if ".." not in parts:
        return path.absolute()
    last = len(parts) - parts[::-1].index("..")
    return Path(*parts[:last]).resolve().joinpath(*parts[last:])


def _fingerprint(container: Container, lists: dict[str, _Found]) -> str:
    """SHA-256 over names and sizes of the images and the content of the lists, not over their location."""
    digest = hashlib.sha256()
    for name, version in container.identity():
        line = f"{PurePosixPath(name).name}\0{version}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    for what in sorted(lists):
        digest.update(f"{what} {hashlib.sha256(lists[what].content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _fingerprint_again(container: Container, lists: dict[str, _Found], stamp: int) -> str:
    """The fingerprint, or another text where a file was written again with its old size."""
    return _fingerprint(container, lists) if container.stamp() == stamp else "written again"


def _refuse_duplicates(container: Container, names: list[str], stems: list[str]) -> None:
    first: dict[str, str] = {}
    for name, stem in zip(names, stems, strict=True):
        other = first.setdefault(stem, name)
        if other != name:
            raise UsageError(
                f"{container.path} holds two images of one name, {printable(other)} and {printable(name)}: remove one "
                "of them, or give the one folder of images that you mean"
            )


def _refuse_foreign_lists(
    names: list[str], stems: list[str], columns: dict[str, Columns], lists: dict[str, _Found]
) -> None:
    """A list without any of the images would leave all of them without annotations."""
    for what, found in columns.items():
        if not any(stem in found.rows for stem in stems):
            raise UsageError(
                f"{lists[what].where} names none of the images: it has {found.files[0][:100]}, and the images are "
                f"called {printable(names[0])}; rename one of them, or move the list away to do without {what}"
            )


def _table(names: list[str], stems: list[str], columns: dict[str, Columns]) -> SampleTable:
    """Joins images and annotations by stem; annotations that an image lacks are -1 or NaN."""
    count = len(stems)
    joined: dict[str, np.ndarray] = {}
    for what, absent, kind in _COLUMNS:
        found = columns.get(what)
        joined[what] = _join(stems, found, absent, kind) if found else np.empty((count, 0), kind)
    identity = np.full((count, 1), -1, np.int64)
    if "identities" in columns:
        identity = _join(stems, columns["identities"], -1, np.int64)
    return SampleTable(
        keys=[safe_key(stem_of(name)) for name in names],
        sources=[printable(PurePosixPath(name).name) for name in names],
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
    """Images that the lists name and the source does not have."""
    known, missing = set(stems), {}
    for what, found in columns.items():
        if what not in {"attributes", "partition"}:
            continue
        list_name = lists[what].name
        for name in found.files:
            if list_key(name) not in known:
                missing.setdefault(safe_key(stem_of(name)), f"listed in {list_name}, but there is no such image")
    return tuple(LeftOut(key=key, reason=reason) for key, reason in sorted(missing.items()))


def _notes(stems: list[str], columns: dict[str, Columns]) -> list[str]:
    notes: list[str] = []
    for what, found in columns.items():
        notes += found.notes
        unlisted = sum(stem not in found.rows for stem in stems)
        if unlisted:
            remedy = f": {_SPLIT_BY_HASH}" if what == "partition" else ""
            are = "is" if unlisted == 1 else "are"
            notes.append(f"{counted(unlisted, 'image')} {are} not in the list of {what}{remedy}")
        if what == "partition" and (unknown := int((found.values < 0).sum())):
            notes.append(f"{counted(unknown, 'row')} of the list of partitions without a value: {_SPLIT_BY_HASH}")
    return notes
