"""How exactly faces are aligned: the distance of the eyes from where the true transform brings them.

    python benchmarks/align.py [--photos ../shared/unaligned] [--turns 0 30 45 90 180] [--limit 40]
    python benchmarks/align.py --calibrate ../shared/photos/img_align_celeba.zip

The first prints a table for photographs with a known transform to CelebA's frame (`truth.csv`: file, kind, and the
affine a b tx, c d ty from the upright photograph's pixels); `--turns` turns each photograph further, in degrees.
The second prints the constants of preprocess/images/align.py, from photographs that are aligned already.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from preprocess.images.align import EYES, Face, find_faces, landmarks_in_frame
from preprocess.images.decode import Decoder


def eye_errors(face: Face, true: np.ndarray) -> np.ndarray:
    """(2,) distances, in pixels of the frame, between the eyes and where they belong; ``true`` is (2, 3)."""
    eyes = (EYES - true[:, 2]) @ np.linalg.inv(true[:, :2]).T
    return np.linalg.norm(eyes @ face.to_frame[:, :2].T + face.to_frame[:, 2] - EYES, axis=1)


def turned(pixels: np.ndarray, true: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The photograph turned counter-clockwise on a gray ground, and its true transform (2, 3)."""
    if degrees % 360 == 0:
        return pixels, true
    picture = Image.fromarray(pixels)
    result = picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(127, 127, 127))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    back = np.array([[cos, -sin], [sin, cos]])  # from the turned picture's pixels to the photograph's
    shift = (np.array(picture.size) - 1) / 2 - back @ ((np.array(result.size) - 1) / 2)
    return np.asarray(result), np.column_stack([true[:, :2] @ back, true[:, :2] @ shift + true[:, 2]])


def photographs(folder: Path, limit: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Kind, pixels uint8 (H, W, 3) and true transform (2, 3) of each photograph."""
    with (folder / "truth.csv").open(newline="") as file:
        for row in list(csv.DictReader(file))[:limit]:
            true = np.array([[float(row[name]) for name in names] for names in (("a", "b", "tx"), ("c", "d", "ty"))])
            yield row["kind"], Decoder().rgb((folder / row["file"]).read_bytes()).copy(), true


def measure(folder: Path, turns: list[float], limit: int) -> None:
    """Prints the table."""
    table = Table("photographs", "images", "no face", "median px", "95 %", "largest", "CPU ms an image")
    for turn in turns:
        errors: dict[str, list[np.ndarray]] = {}
        missed: dict[str, int] = {}
        begin = time.process_time()
        for kind, pixels, true in photographs(folder, limit):
            picture, moved = turned(pixels, true, turn)
            faces = find_faces(picture)
            for name in (kind, "all"):
                errors.setdefault(name, [])
                missed[name] = missed.get(name, 0) + (not faces)
                if faces:
                    errors[name].append(eye_errors(faces[0], moved))
        count = sum(len(found) for name, found in errors.items() if name == "all") + missed["all"]
        spent = (time.process_time() - begin) / count * 1000
        for name, found in sorted(errors.items(), key=lambda item: (item[0] == "all", item[0])):
            values = np.concatenate(found) if found else np.array([math.nan])
            label = name if turn == 0 else f"{name}, turned by {turn:g}°"
            figures = (np.median(values), np.quantile(values, 0.95), values.max())
            row = [label, str(len(found) + missed[name]), str(missed[name]), *(f"{figure:.2f}" for figure in figures)]
            if turn == 0 or name == "all":
                table.add_row(*row, f"{spent:.0f}" if name == "all" else "")
    Console().print(table)


def calibrate(archive: Path, limit: int) -> None:
    """Prints the mean landmarks of aligned photographs, and their inverse variances as weights."""
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name.lower().endswith(".jpg")]
        random.Random(0).shuffle(names)
        images = [Decoder().rgb(file.read(name)).copy() for name in names[:limit]]
    identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    found = [result[0] for image in images if (result := landmarks_in_frame(image, identity)) is not None]
    points = np.array(found)
    # faces turn to both sides alike: mirrored about the middle of the eyes, at x = 89, they count, too
    mirrored = np.stack([178 - points[..., 0], points[..., 1]], -1)[:, [1, 0, 2, 4, 3]]
    both = np.concatenate([points, mirrored])
    weights = 1 / both.var(0).mean(1)
    print(f"{len(points)} of {len(images)} photographs")
    print("reference", both.mean(0).round(2).tolist())
    print("weights", (weights / weights.sum()).round(3).tolist())


def main() -> None:
    """Parses the options and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/unaligned"))
    parser.add_argument("--turns", type=float, nargs="+", default=[0.0, 45.0, 90.0, 180.0])
    parser.add_argument("--calibrate", type=Path)
    parser.add_argument("--limit", type=int, default=500)
    options = parser.parse_args()
    if options.calibrate:
        calibrate(options.calibrate, options.limit)
    else:
        measure(options.photos, options.turns, options.limit)


if __name__ == "__main__":
    main()
