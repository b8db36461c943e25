"""Small CelebA-format trees of random smooth pictures, and the commands run on them."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image
from typer.testing import CliRunner, Result

from preprocess.cli import app

ATTRIBUTES = ("5_o_Clock_Shadow", "Male", "Smiling")
WIDTH, HEIGHT = 178, 218
COMMAND = [sys.executable, "-c", "from preprocess.cli import app; app()"]


def invoke(*words: object) -> Result:
    """Runs `preprocess …` in this process; its workers are forked from one server, so that torch loads once."""
    return CliRunner().invoke(app, [str(word) for word in words])


def command(tree: Path, out: Path, *words: object, **options: object) -> subprocess.Popen:
    """Starts `preprocess celeba` as a process in its own session."""
    every = ["celeba", "--source", tree, "--out", out, "--size", 32, "--shard-size", 4, "--workers", 2, *words]
    return subprocess.Popen(
        [*COMMAND, *map(str, every)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        **options,
    )


def shard(tree: Path, out: Path, *words: object, size: int = 32, shard_size: int = 20) -> Result:
    """Runs `preprocess celeba` on a tree, into small shards of small images."""
    options = ("--size", size, "--shard-size", shard_size, "--workers", 1)
    return invoke("celeba", "--source", tree, "--out", out, *options, *words)


def smooth_picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 (height, width, 3): a function of the number."""
    coarse = np.random.default_rng(number).integers(0, 256, (7, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(number: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    return simplejpeg.encode_jpeg(smooth_picture(number, width, height), quality=92)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def attribute_signs(number: int) -> list[int]:
    """±1 for each of ATTRIBUTES."""
    return [1 if (number >> bit) & 1 else -1 for bit in range(len(ATTRIBUTES))]


def partition(number: int, count: int) -> int:
    return 0 if number <= 0.8 * count else 1 + (number > 0.9 * count)


def write_tree(folder: Path, count: int = 50) -> Path:
    """Writes `count` pictures and the three lists, in CelebA's own format; returns the folder."""
    images = folder / "img_align_celeba"
    images.mkdir(parents=True)
    for number in range(1, count + 1):
        (images / f"{number:06d}.jpg").write_bytes(jpeg(number))
    write_lists(folder, count)
    return folder


def write_lists(folder: Path, count: int) -> None:
    numbers = range(1, count + 1)
    rows = [f"{n:06d}.jpg " + " ".join(f"{sign:2d}" for sign in attribute_signs(n)) for n in numbers]
    text = "\n".join([str(count), " ".join(ATTRIBUTES) + " ", *rows]) + "\n"
    (folder / "list_attr_celeba.txt").write_text(text)
    (folder / "list_eval_partition.txt").write_text("".join(f"{n:06d}.jpg {partition(n, count)}\n" for n in numbers))
    (folder / "identity_CelebA.txt").write_text("".join(f"{n:06d}.jpg {n // 3 + 1}\n" for n in numbers))


def write_zip(tree: Path, path: Path, method: int = zipfile.ZIP_STORED) -> None:
    """The official archive: members img_align_celeba/NAME."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for image in sorted((tree / "img_align_celeba").iterdir()):
            archive.write(image, f"img_align_celeba/{image.name}")


def hashes(shards: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder of shards, the manifest included."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(shards.iterdir())}
