"""What a source hands over: every sample it has, its split, and how to get at the pixels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.build.task import PixelReader
from preprocess.shards.annotations import SampleTable
from preprocess.shards.manifest import Crop, LeftOut, Source
from preprocess.shards.tar_layout import MAX_KEY_BYTES

# what people call the splits; the values are indices into manifest.SPLITS
SPLIT_NAMES = {"train": 0, "training": 0, "valid": 1, "val": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
_PLAIN_KEY = re.compile(rf"[A-Za-z0-9_+@=-]{{1,{MAX_KEY_BYTES}}}")


@dataclass(frozen=True)
class Catalogue:
    """One source, listed but not read.

    Attributes:
        source: kind, fingerprint and number of images.
        table: n samples in the source's own order.
        split: int8 (n,), an index into manifest.SPLITS.
        attribute_names: names of the table's attribute columns.
        factor_names: names of the table's factor columns.
        label_names: what the table's labels mean, where they are folders.
        landmark_names: names of the table's landmark columns.
        channels: of every image (3 or 1).
        reader: for chosen rows, what reads their pixels in a worker; it is also told the run's scratch folder.
        left_out: images that are known to be unusable before anything is read.
        notes: what a person should hear once, for example that there are no attributes.
        default_crop: what to cut out unless a person asks for something else.
        refingerprint: looks at the source again; another value means it changed meanwhile.
        unpack: for a source that cannot be read at random: puts what `reader` needs into the scratch folder.
    """

    source: Source
    table: SampleTable
    split: np.ndarray
    attribute_names: tuple[str, ...]
    factor_names: tuple[str, ...]
    label_names: tuple[str, ...]
    channels: int
    reader: Callable[[Sequence[int], Path], PixelReader]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    default_crop: Crop
    refingerprint: Callable[[], str]
    unpack: Callable[[Path], None] | None = None
    landmark_names: tuple[str, ...] = ()


def safe_key(stem: str) -> str:
    """A sample key from a file's stem: the stem itself where a tar and webdataset can carry it.

    Others (dots, slashes, blanks, not ASCII, too long) are spelled with underscores and a hash of the stem.
    """
    if _PLAIN_KEY.fullmatch(stem):
        return stem
    digest = hashlib.sha256(stem.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9_+@=-]", "_", stem)[:60] + "-" + digest


def seeded_rank(seed: int, purpose: str, name: str) -> int:
    """A 64-bit number that is a pure function of its arguments: for shuffling and for splitting.

    Unlike a generator's permutation it does not change when another image comes or goes.
    """
    text = f"{seed}\0{purpose}\0{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def seeded_split(seed: int, name: str) -> int:
    """0 (train) for eight names out of ten, 1 (valid) and 2 (test) for one each."""
    tenth = seeded_rank(seed, "split", name) % 10
    return {8: 1, 9: 2}.get(tenth, 0)


def printable(name: str) -> str:
    """A name with its odd bytes spelled out: those that are not UTF-8, and those that would steer a terminal."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
