"""CelebA, and trees like it: finds images and annotation files, and makes a catalogue of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.containers.container import Container, counted, no_images, refuse_long_list
from preprocess.containers.file_kinds import LIST_SUFFIXES, check_source, printable
from preprocess.containers.folder import is_folder, scan
from preprocess.errors import UsageError
from preprocess.shards.annotations import NO_LANDMARK, SampleTable
from preprocess.shards.manifest import LeftOut, Source
from preprocess.sources import celeba_layouts as layouts
from preprocess.sources.celeba_lists import LISTS, Columns, list_key, stem_of
from preprocess.sources.index import Catalogue, empty_splits, fingerprint, group_ignored, safe_key, seeded_split
from preprocess.sources.list_lines import unpacked_list

DATA_FOLDER = "data/celeba"
_LIST_FOLDERS = ("anno", "eval", "labels", "annotations", "lists")  # the official distribution has the first two
_LIST_ENDS = ("", ".gz", ".zip")  # Kaggle's single files are zipped
_SPLIT_BY_HASH = "splitting 80/10/10 by a seeded hash of the name"


@dataclass(frozen=True)
class _List:
    """A list that was found; `path` is its own, or that of the archive and the member."""

    path: Path
    where: str  # its name in messages
    read: Callable[[], bytes]


def find_source(given: Path | None) -> Path | None:
    """Finds the source to read: the given one, else $CELEBA_ROOT, else data/celeba; None where none of them exists.

    Raises:
        UsageError: the given one does not exist.
    """
    if given is not None:
        return check_source(given, "--source ")
    paths = (os.environ.get("CELEBA_ROOT"), DATA_FOLDER)
    return next((Path(path) for path in paths if path and Path(path).exists()), None)


def no_source() -> UsageError:
    """Says where CelebA was looked for, which files are needed, and what to do instead."""
    return UsageError(
        f"no CelebA found: looked at --source (not given), $CELEBA_ROOT ({os.environ.get('CELEBA_ROOT') or 'not set'}) "
        f"and {DATA_FOLDER}; put img_align_celeba.zip (or the folder img_align_celeba/), list_attr_celeba.txt, "
        "list_eval_partition.txt and identity_CelebA.txt into one of them, add --yes to download them, or draw a "
        f"substitute with `preprocess faces --out {DATA_FOLDER}`"
    )


def open_celeba(path: Path, seed: int, forced: layouts.Kind | None = None) -> Catalogue:
    """Lists the images and reads the annotations of a folder, a zip or tar archive, or parquet files.

    Args:
        path: the folder, archive or file.
        seed: of the split, which is a hash of it and of the image's key where the source has no partition.
        forced: the kind of the source; recognized by looking at it where None.

    Raises:
        UsageError: there are no images, an annotation file is damaged, or pyarrow is absent and needed.
    """
    container, notes, beside = layouts.find_images(path, forced)
    if container is None:
        try:
            import pyarrow  # noqa: F401, PLC0415 - an extra # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UsageError("reading parquet files needs pyarrow: pip install 'mmd-vlae[parquet]'") from None
        from preprocess.sources.celeba_parquet import open_parquet  # noqa: PLC0415 - imports pyarrow

        return open_parquet(path, seed, forced, notes, beside)
    chosen, others = layouts.own_images(container)
    names = [name for name in chosen if stem_of(name)]
    if not names:
        raise no_images(container)
    lists, list_notes = _find_lists(container, path)
    contents = {what: unpacked_list(found.read()) for what, found in lists.items()}
    columns = {what: LISTS[what][0](content, lists[what].where) for what, content in contents.items()}
    column_names = {what: found.names for what, found in columns.items()}
    stems = [list_key(name) for name in names]
    _check_names(container, names, stems, columns, lists)
    table = _table(names, stems, columns)
    split = _split(table, stems, columns.get("partition"), seed)
    size = layouts.usual_size(container.first_pixels(layouts.LOOKED_AT))
    has_csv = any(found.path.suffix == ".csv" for what, found in lists.items() if what != "factors")
    kind = layouts.recognize(container, size, has_csv, forced)
    crop, crop_notes = layouts.default_crop(kind, size)
    used = {found.path.resolve() for found in lists.values()}
    unused = [file for file in container.ignored if (container.path / file.name).resolve() not in used]
    unused += [file for file in beside if (path / file.name).resolve() not in used]

    def identify(images: Container) -> str:
        """The fingerprint of names and sizes of the images and the content of the lists, not of their location."""
        versions = (f"{PurePosixPath(name).name}\0{version}" for name, version in images.identity())
        hashes = (f"{what} {hashlib.sha256(contents[what]).hexdigest()}" for what in sorted(contents))
        return fingerprint((*versions, *hashes))

    return Catalogue(
        source=Source(kind=f"celeba {kind}", fingerprint=identify(container), images=len(names)),
        table=table,
        split=split,
        reader=lambda rows, scratch: container.reader([names[row] for row in rows], scratch),
        refingerprint=lambda: container.refingerprint(identify),
        default_crop=crop,
        notes=(
            layouts.recognized(kind, forced, container.path, len(names)),
            *notes,
            *container.notes,
            *(f"not used: {counted(file.files, 'image')} in {file.name} ({file.reason})" for file in others),
            *list_notes,
            *_notes(stems, columns),
            *empty_splits(split),
        ),
        attribute_names=column_names.get("attributes", ()),
        factor_names=column_names.get("factors", ()),
        landmark_names=column_names.get("landmarks", ()),
        left_out=(*container.left_out, *_missing(stems, columns, lists)),
        ignored=group_ignored([*others, *unused]),
        unpack=container.unpack,
        source_size=size,
        crop_notes=crop_notes,
    )


def _find_lists(container: Container, source: Path) -> tuple[dict[str, _List], list[str]]:
    """Looks for each list inside the archive, beside the images, and in the folders above; also returns notes."""
    inside: dict[str, _List] = {}
    for member in sorted(container.lists, key=lambda name: (-name.count("/"), name)):
        name = PurePosixPath(member).name  # of two lists of one name, the one nearest to the top
        where = f"{name} in {container.path}"
        inside[name.lower()] = _List(container.path / member, where, partial(container.text, member))
    places = [inside]
    for folder in _list_folders(container.path, source):
        files = _list_files(folder).items()
        places.append({name: _List(path, str(path), partial(_read_list, path)) for name, path in files})
    lists: dict[str, _List] = {}
    notes, unused = [], []
    for what, (_, names, noun) in LISTS.items():
        wanted = [f"{name}{end}".lower() for name in names for end in _LIST_ENDS]
        lying = [[place[name] for name in wanted if name in place] for place in places]
        if found := next(filter(None, lying), None):
            beside = next(filter(None, lying[1:]), []) if found is lying[0] else []
            lists[what], *others = [*found, *beside]
            if others:
                these = ", ".join(other.where for other in others)
                unused.append(f"not used, because {lists[what].where} is read: {these}")
        elif noun:
            remedy = _SPLIT_BY_HASH if what == "partition" else f"continuing without {what}"
            stem = PurePosixPath(names[0].lower()).stem
            similar = next((file.path for at in places[1:] for name, file in at.items() if name.startswith(stem)), None)
            end = similar.suffix.lower() if similar and similar.suffix.lower() in LIST_SUFFIXES else ".csv"
            rename = f"; {similar} is not used: save or rename it as {stem}{end} to have it read" if similar else ""
            notes.append(f"no {noun} list ({names[0]}): {remedy}{rename}")
    return lists, notes + unused


def _list_files(folder: Path) -> dict[str, Path]:
    """The lists of a folder and of its folders for lists, by their names in small letters."""
    try:
        entries = sorted(scan(folder), key=lambda entry: entry.name)
    except UsageError:  # a folder above the images may be closed; its files may be read by name
        known = (folder / name for _, names, _ in LISTS.values() for name in names)
        return {path.name.lower(): path for path in known if os.access(path, os.R_OK)}
    files: dict[str, Path] = {}
    for entry in entries:
        name, path = entry.name.lower(), folder / entry.name
        if name in _LIST_FOLDERS and is_folder(entry):
            files = {**_list_files(path), **files}
        elif name.startswith(layouts.LIST_STEMS) or name == "factors.csv":
            own = path / entry.name  # some archives unpack into a folder of the file's name
            files[name] = own if is_folder(entry) and own.is_file() else path
    return files


def _read_list(path: Path) -> bytes:
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{path} is a link to {path.readlink()}, which does not exist")
    try:
        refuse_long_list(path.stat().st_size, str(path))
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _list_folders(images: Path, source: Path) -> list[Path]:
    """Where lists may lie: beside the images as they are named, in the source, then beside the target of a link."""
    named, real = _absolute(images), images.resolve()
    return list(dict.fromkeys((images, *named.parents[:2], source, real, *real.parents[:2])))


def _absolute(path: Path) -> Path:
    """The path from the root, links kept; only what lies before a `..` is resolved, for its parent would be wrong."""
    parts = path.absolute().parts
    if ".." not in parts:
        return path.absolute()
    last = len(parts) - parts[::-1].index("..")
    return Path(*parts[:last]).resolve().joinpath(*parts[last:])


def _check_names(
    container: Container, names: list[str], stems: list[str], columns: dict[str, Columns], lists: dict[str, _List]
) -> None:
    """Refuses two images of one name, and a list of other images, which would leave all without annotations."""
    first: dict[str, str] = {}
    for name, stem in zip(names, stems, strict=True):
        if (other := first.setdefault(stem, name)) != name:
            raise UsageError(
                f"{container.path} holds two images of one name, {printable(other)} and {printable(name)}: remove one "
                "of them, or give the one folder of images that you mean"
            )
    for what, found in columns.items():
        if not any(stem in found.rows for stem in stems):
            raise UsageError(
                f"{lists[what].where} names none of the images: it has {found.files[0][:100]}, and the images are "
                f"called {printable(names[0])}; rename one of them, or move the list away to do without {what}"
            )


def _table(names: list[str], stems: list[str], columns: dict[str, Columns]) -> SampleTable:
    """Joins images and annotations by stem; annotations that an image lacks are -1 or NaN."""
    return SampleTable(
        keys=[safe_key(stem_of(name)) for name in names],
        sources=[printable(PurePosixPath(name).name) for name in names],
        attributes=_join(stems, columns.get("attributes"), -1, np.int8),
        factors=_join(stems, columns.get("factors"), np.nan, np.float64),
        identity=_join(stems, columns.get("identities"), -1, np.int64, 1)[:, 0],
        label=np.full(len(stems), -1, np.int64),
        landmarks=_join(stems, columns.get("landmarks"), NO_LANDMARK, np.int32),
    )


def _join(stems: list[str], columns: Columns | None, absent: float, kind: type, width: int = 0) -> np.ndarray:
    """The values of each image: (n, columns), or (n, width) of `absent` where there is no list."""
    if columns is None:
        return np.full((len(stems), width), absent, kind)
    result = np.full((len(stems), columns.values.shape[1]), absent, kind)
    rows = np.array([columns.rows.get(stem, -1) for stem in stems], np.int64)
    result[rows >= 0] = columns.values[rows[rows >= 0]]
    return result


def _split(table: SampleTable, stems: list[str], partition: Columns | None, seed: int) -> np.ndarray:
    split = _join(stems, partition, -1, np.int8, 1)[:, 0]
    for row in np.flatnonzero(split < 0).tolist():
        split[row] = seeded_split(seed, table.keys[row])
    return split


def _missing(stems: list[str], columns: dict[str, Columns], lists: dict[str, _List]) -> list[LeftOut]:
    """Images that the lists name and the source does not have."""
    known, missing = set(stems), {}
    for what in ("attributes", "partition"):
        for name in columns[what].files if what in columns else ():
            if list_key(name) not in known:
                reason = f"listed in {lists[what].path.name}, but there is no such image"
                missing.setdefault(safe_key(stem_of(name)), reason)
    return [LeftOut(key=key, reason=reason) for key, reason in sorted(missing.items())]


def _notes(stems: list[str], columns: dict[str, Columns]) -> list[str]:
    notes: list[str] = []
    for what, found in columns.items():
        notes += found.notes
        if unlisted := sum(stem not in found.rows for stem in stems):
            are = "is" if unlisted == 1 else "are"
            remedy = f": {_SPLIT_BY_HASH}" if what == "partition" else ""
            notes.append(f"{counted(unlisted, 'image')} {are} not in the list of {what}{remedy}")
        if what == "partition" and (unknown := int((found.values < 0).sum())):
            notes.append(f"{counted(unknown, 'row')} of the list of partitions without a value: {_SPLIT_BY_HASH}")
    return notes
