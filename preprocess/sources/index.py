"""The catalogue that every source makes: its samples, their split and annotations, and how to read the pixels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.containers.container import IgnoredFile, PixelReader
from preprocess.images.crop_resize import Crop
from preprocess.shards.annotations import SampleTable
from preprocess.shards.manifest import SPLITS, IgnoredFiles, LeftOut, Source
from preprocess.shards.tar import MAX_KEY_BYTES

# common names of the splits, those that Hugging Face knows; the values are indices into manifest.SPLITS
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("valid", "val", "validation", "dev"), 1),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), 2),
}
_SPLIT_WORD = re.compile(r"(?:(?:split|partition|set|subset)=|partial-)?([a-z]+?)(?:[-_ ]?(?:set|data|images))?")
_PLAIN_KEY = re.compile(rf"[A-Za-z0-9_+@=-]{{1,{MAX_KEY_BYTES}}}")
_MAX_NAMES, _MAX_NAME = 5_000, 200  # of ignored files in a manifest, for each reason; characters of a name


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """One source, listed but not read."""

    source: Source  # kind, fingerprint and number of images
    table: SampleTable  # n samples in the source's own order
    split: np.ndarray  # int8 (n,), an index into manifest.SPLITS
    reader: Callable[[Sequence[int], Path], PixelReader]  # of chosen rows, for a worker; the path is the scratch folder
    refingerprint: Callable[[], str]  # lists the source again; another value means that the source has changed
    default_crop: Crop  # unless a user asks for another
    notes: tuple[str, ...]  # lines for the terminal, for example that there are no attributes
    attribute_names: tuple[str, ...] = ()
    factor_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()  # label i is label_names[i]; empty where labels are only numbers
    landmark_names: tuple[str, ...] = ()
    channels: int = 3  # of every image; or 1
    left_out: tuple[LeftOut, ...] = ()  # images that are known to be unusable before anything is read
    ignored: tuple[IgnoredFiles, ...] = ()  # files of the source that are not images of it
    unpack: Callable[[Path], None] | None = None  # puts what `reader` needs into the scratch folder, if it needs that
    source_size: tuple[int, int] | None = None  # (H, W) of most images; None where they are not known or differ
    crop_notes: tuple[str, ...] = ()  # lines for the terminal where the default crop is used


def group_ignored(files: Iterable[IgnoredFile]) -> tuple[IgnoredFiles, ...]:
    """Ignored files by reason, most files first; each group names up to 5,000 of its files."""
    groups: dict[str, list[IgnoredFile]] = {}
    for file in files:
        groups.setdefault(file.reason, []).append(file)
    grouped = []
    for reason, found in groups.items():
        names = sorted(file.name for file in found)[:_MAX_NAMES]
        count = sum(file.files for file in found)
        grouped.append(IgnoredFiles(reason=reason, files=count, names=tuple(name[:_MAX_NAME] for name in names)))
    return tuple(sorted(grouped, key=lambda group: (-group.files, group.reason)))


def split_named(text: str) -> int:
    """The split that a word or a folder's name says, an index into manifest.SPLITS; -1 where it says none.

    `train`, `Training_set` and `split=train` are the same split.
    """
    word = _SPLIT_WORD.fullmatch(text.lower())
    return _SPLIT_NAMES.get(word[1], -1) if word else -1


def empty_splits(split: np.ndarray) -> list[str]:
    """A note about splits without an image."""
    empty = [name for i, name in enumerate(SPLITS) if not (split == i).any()]
    return [f"no image is in the split {' or '.join(empty)}"] if empty else []


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 of the lines that identify a source."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def safe_key(stem: str) -> str:
    """A sample key from a file's stem: the stem itself where it is a valid name in a tar and for webdataset.

    Others (dots, slashes, blanks, not ASCII, too long) are written with underscores and a hash of the stem.
    """
    if _PLAIN_KEY.fullmatch(stem):
        return stem
    digest = hashlib.sha256(stem.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9_+@=-]", "_", stem)[:60] + "-" + digest


def seeded_rank(seed: int, purpose: str, name: str) -> int:
    """A 64-bit number that is a pure function of its arguments, for shuffling and for splitting.

    Unlike a generator's permutation it does not change when other images are added or removed.
    """
    text = f"{seed}\0{purpose}\0{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def seeded_split(seed: int, name: str) -> int:
    """0 (train) for eight names out of ten, 1 (valid) and 2 (test) for one each."""
    return max(0, seeded_rank(seed, "split", name) % 10 - 7)
