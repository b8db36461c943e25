"""The built-in data set: drawn faces with known factors, in CelebA's folder structure.

    FOLDER/img_align_celeba/000001.jpg ...   178x218 JPEG
    FOLDER/list_attr_celeba.txt, list_eval_partition.txt, identity_CelebA.txt
    FOLDER/factors.csv                       image,<factor>,...
    FOLDER/faces.json                        seed, count and drawing version, written first

Image k is a function of (seed, k) alone, and every file is written atomically. After a kill at any moment the same
command finishes the data set, with the same bytes. Only one run at a time may write to a folder.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import simplejpeg

from preprocess.build.executors import run_tasks, start_worker
from preprocess.errors import UsageError
from preprocess.shards.atomic import write_file
from preprocess.synthetic.drawing import draw_face
from preprocess.synthetic.factors import (
    FACTOR_NAMES,
    IMAGES_PER_IDENTITY,
    derive_attributes,
    identity_of,
    sample_factors,
)

DRAWING_VERSION = 2  # raise it with any change of a pixel, factor or attribute: a folder never mixes two
JPEG_QUALITY = 95
CHUNK = 64  # faces per task: about a third of a second
TRAIN_SHARE, VALID_SHARE = 162_770 / 202_599, 19_867 / 202_599  # CelebA's own partition
IMAGE_FOLDER = "img_align_celeba"


def draw_dataset(out: Path, count: int, seed: int, workers: int, advance: Callable[[int], None]) -> None:
    """Draws the missing faces of a data set, then writes the annotations.

    Args:
        out: the folder of the data set; created if needed.
        count: number of faces, at least 1.
        seed: of the data set, at least 0; each seed draws other faces.
        workers: processes.
        advance: called with the number of faces drawn since the last call.

    Raises:
        UsageError: `out` holds other images.
        UserError: drawing processes are killed again and again.
    """
    _reserve(out, count, seed)
    images = out / IMAGE_FOLDER
    images.mkdir(exist_ok=True)
    missing = [index for index in range(count) if not _is_complete(images / image_name(index))]
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    draw = partial(draw_chunk, images, seed)
    if min(workers, len(chunks)) <= 1:
        all_drawn = map(draw, chunks)
    else:
        context = multiprocessing.get_context("spawn")
        pool = partial(ProcessPoolExecutor, mp_context=context, initializer=start_worker)
        all_drawn = run_tasks(draw, chunks, workers, pool, "the faces drawn so far")
    for drawn in all_drawn:
        advance(drawn)
    _write_annotations(out, count, seed)


def image_name(index: int) -> str:
    """Returns CelebA's file name of image `index`: `000001.jpg` for index 0."""
    return f"{index + 1:06d}.jpg"


def partition_ends(count: int) -> tuple[int, int]:
    """Returns where the training and the validation images end, in file order.

    All images of one person are in the same split, except in very small sets.
    """
    train_end = round(count * TRAIN_SHARE)
    valid_end = round(count * (TRAIN_SHARE + VALID_SHARE))
    if count >= 20 * IMAGES_PER_IDENTITY:
        train_end -= train_end % IMAGES_PER_IDENTITY
        valid_end -= valid_end % IMAGES_PER_IDENTITY
    return train_end, valid_end


def _reserve(out: Path, count: int, seed: int) -> None:
    """Marks the folder as this data set's. Raises UsageError if it holds another one."""
    wanted = {"seed": seed, "count": count, "drawing": DRAWING_VERSION}
    marker = out / "faces.json"
    if marker.exists():
        try:
            found = json.loads(marker.read_text())
        except ValueError as error:
            raise UsageError(f"{marker} is not readable ({error}); draw into another folder") from error
        if found != wanted:
            raise UsageError(f"{out} holds other drawn faces ({found}, wanted {wanted}); draw into another folder")
        return
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --out names a folder")
    if (out / IMAGE_FOLDER).exists() or (out / "list_attr_celeba.txt").exists():
        raise UsageError(f"{out} holds images that were not drawn here (no faces.json); draw into another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_file(marker, (json.dumps(wanted) + "\n").encode())


def draw_chunk(images: Path, seed: int, indices: list[int]) -> int:
    """Draws and writes images of data set `seed`; returns their number."""
    for index in indices:
        pixels = draw_face(sample_factors(seed, index))
        jpeg = simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444")
        # no fsync: _is_complete finds a lost or truncated image, and it is drawn again
        write_file(images / image_name(index), jpeg, durable=False)
    return len(indices)


def _is_complete(path: Path) -> bool:
    """Whether the file exists and ends with JPEG's end marker (a power cut may leave an empty file)."""
    try:
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            return file.read(2) == b"\xff\xd9"
    except OSError:
        return False


def _write_annotations(out: Path, count: int, seed: int) -> None:
    """Writes the factors and CelebA's three lists; the attribute list, which `preprocess` needs, is last."""
    train_end, valid_end = partition_ends(count)
    table, identities, partition, attributes = [",".join(["image", *FACTOR_NAMES])], [], [], [str(count)]
    for index in range(count):
        name, factors = image_name(index), sample_factors(seed, index)
        known = derive_attributes(factors)
        if index == 0:
            attributes.append(" ".join(known))
        attributes.append(" ".join([name, *(" 1" if value else "-1" for value in known.values())]))
        table.append(",".join([name, *map(str, factors.values())]))
        identities.append(f"{name} {identity_of(index)}")
        partition.append(f"{name} {(index >= train_end) + (index >= valid_end)}")
    for file, lines in (
        ("factors.csv", table),
        ("identity_CelebA.txt", identities),
        ("list_eval_partition.txt", partition),
        ("list_attr_celeba.txt", attributes),
    ):
        write_file(out / file, "".join(f"{line}\n" for line in lines).encode())
