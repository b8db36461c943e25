"""Photographs of unaligned faces as samples: what `--align` changes on the way from a source to its shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from preprocess.errors import UnreadableImage, UsageError
from preprocess.images.align import FRAME, align, check_installed, find_faces
from preprocess.images.crop_resize import Crop
from preprocess.shards.manifest import NO_FACE, Faces
from preprocess.shards.tar import MAX_KEY_BYTES
from preprocess.sources.index import Catalogue

MAX_FACES = 99  # of one picture, the largest first
SUFFIX_BYTES = len(f"+{MAX_FACES}")
"""Bytes by which the key of a further face is longer than its picture's."""


def choose_alignment(align: bool, faces: Faces | None) -> Faces | None:
    """Returns which faces `--align` and `--faces` ask for; None where pictures stay as they are.

    Raises:
        UsageError: `--faces` without `--align`, or the extra `align` is not installed.
    """
    if not align:
        if faces is not None:
            raise UsageError("--faces says which faces are aligned: give --align, too")
        return None
    check_installed()
    return faces or "largest"


def aligned_catalogue(catalogue: Catalogue) -> Catalogue:
    """Returns the catalogue of the aligned pictures, all of CelebA's size.

    Landmarks are dropped: they refer to pixels of the pictures as they were.
    """
    dropped = "landmarks are not kept: they refer to the pictures before --align"
    return replace(
        catalogue,
        table=replace(catalogue.table, landmarks=np.empty((len(catalogue.table), 0), np.int32)),
        landmark_names=(),
        default_crop=Crop(kind="center", size=148),
        source_size=FRAME,
        notes=(*catalogue.notes, *([dropped] if catalogue.landmark_names else [])),
    )


def face_samples(
    key: str, text: bytes, image: np.ndarray, faces: Faces | None
) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Yields the samples that one picture makes: key, JSON, and uint8 (h, w, C).

    Without alignment this is the picture itself. The largest face has the picture's key, a further one `KEY+2`.

    Raises:
        UnreadableImage: no face was found, or a further face's key would be too long.
    """
    if faces is None:
        yield key, text, image
        return
    found = find_faces(image)
    if not found:
        raise UnreadableImage(NO_FACE)
    for number, face in enumerate(found[: MAX_FACES if faces == "all" else 1], 1):
        if number == 1:
            yield key, text, align(image, face)
            continue
        name = f"{key}+{number}"
        if len(name) > MAX_KEY_BYTES:
            raise UnreadableImage(f"its name is too long for the key of its face {number}")
        start = f'{{"key":"{key}"'.encode("ascii")
        yield name, f'{{"key":"{name}"'.encode("ascii") + text[len(start) :], align(image, face)
