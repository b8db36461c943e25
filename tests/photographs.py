"""Photographs of faces for tests: those that ship with the demo, put into larger pictures by known transforms."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ARCHIVE = Path(__file__).resolve().parent.parent / "launch" / "photos" / "img_align_celeba.zip"
EYES = np.array([[69.0, 111.0], [109.0, 111.0]])  # in CelebA's frame


def photographs(count: int) -> list[np.ndarray]:
    """The first ``count`` photographs, uint8 (109, 89, 3), aligned."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:count]
        return [np.asarray(Image.open(archive.open(name)).convert("RGB")) for name in names]


def placed(
    photo: np.ndarray, scale: float, degrees: float, center: tuple[float, float], canvas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Puts a photograph into a picture.

    Returns:
        The picture, uint8 (h, w, 3), and where the frame's mean eyes come to lie in it, (2, 2).
    """
    import cv2  # of the extra align

    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])
    middle = (np.array(photo.shape[1::-1]) - 1) / 2
    matrix = np.column_stack([turn, np.array(center) - turn @ middle])
    size = canvas.shape[1::-1]
    picture = cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_CUBIC)
    inside = cv2.warpAffine(np.ones(photo.shape[:2], np.uint8), matrix, size, flags=cv2.INTER_NEAREST)
    half_size = EYES * (photo.shape[1] / 178)
    return np.where(inside[..., None] > 0, picture, canvas), half_size @ turn.T + matrix[:, 2]


def ground(height: int, width: int) -> np.ndarray:
    """A smooth colored ground, uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    colors = [90 + 60 * np.sin(x / 90), 120 + 50 * np.cos(y / 70), 110 + 40 * np.sin((x + y) / 110)]
    return np.stack(colors, -1).astype(np.uint8)
