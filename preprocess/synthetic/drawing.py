"""One drawn face from its factors, in NumPy: shapes on a canvas, painted from back to front."""

from __future__ import annotations

import math
import zlib

import numpy as np

from preprocess.synthetic.canvas import CENTER_X, HEIGHT, WIDTH, X_GRID, Y_GRID, Canvas, Patch
from preprocess.synthetic.factors import FACTOR_NAMES, HAIR, HUES, SKIN, Factors, blend, rgb

CROWN, CHIN = -66.0, 55.0  # v of the top of the hair and of an average chin
MAX_TILT, MAX_YAW = math.radians(17), math.radians(17)
_VIGNETTE = 1.1 - 0.3 * (((X_GRID - 89) / 89) ** 2 + ((Y_GRID - 90) / 110) ** 2) / 2
_GRAIN = np.random.default_rng(0).normal(0, 0.012, (HEIGHT + 64, WIDTH + 64)).astype(np.float32)


class Face:
    """The factors of one face in pixels, radians and colors."""

    def __init__(self, factors: Factors) -> None:
        """Converts factors (see `factors.FACTORS`) to sizes and colors."""
        self.factors = factors
        self.male = factors["masculinity"]
        self.yaw = factors["yaw"] * MAX_YAW
        self.width = 40 + 12 * factors["face_width"]
        self.chin = CHIN + 3 * self.male + 4 * factors["open_mouth"]
        self.face_u = 6 * factors["yaw"]  # the front of the head moves with the gaze,
        self.skull_u = -6 * factors["yaw"]  # and the back of the head the other way
        self.skin = blend(SKIN, factors["skin_tone"])
        self.hair = blend(HAIR, factors["hair_color"])
        self.shadow = self.skin * rgb(0.62, 0.50, 0.46)
        self.volume = 5 + 7 * factors["hair_length"]  # pixels of hair beside the face
        self.hair_end = -6 + 66 * factors["hair_length"]  # v; the longest still end inside a center crop of 148
        self.brow_color = self.hair * 0.6

    def turn(self, u: float, bulge: float = 1.0) -> tuple[float, float]:
        """Turns a feature of the frontal face by the yaw.

        Args:
            u: position of the feature on the frontal face.
            bulge: distance of the feature from the head's axis, in radii.

        Returns:
            u after the turn, and the foreshortening, in [0, 1].
        """
        radius = self.width * 1.12
        angle = math.asin(u / radius)
        turned = angle + self.yaw
        return self.face_u * 0.5 + radius * bulge * math.sin(turned), math.cos(turned) / math.cos(angle)

    def outline(self, u: np.ndarray, v: np.ndarray, grow: float = 0.0) -> np.ndarray:
        """Returns the distance to the face's outline: between an ellipse and a box, tapering to the chin."""
        down = np.maximum(v, 0)
        across = np.abs(u - self.face_u) * (1 + down * ((0.30 - 0.24 * self.male) / self.chin))
        across *= 1 / (self.width + grow)
        along = np.where(v > 0, v * (1 / (self.chin + grow)), v * (1 / 48))
        across *= across
        along *= along
        square = 0.15 + 0.45 * self.male
        norm = np.sqrt(across + along) * (1 - square) + square * np.sqrt(np.sqrt(across * across + along * along))
        return (norm - 1) * self.width

    def mane(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Returns the distance to the outer edge of the hair."""
        side = (u - self.skull_u) * (1 / (self.width + self.volume))
        side *= side
        dome = np.minimum(v + 4, 0) * (1 / (CROWN + 4))
        over = (np.sqrt(side + dome * dome) - 1) * (self.width + self.volume)
        return np.maximum(over, v - self.hair_end + 12 * side * side)


def draw_face(factors: Factors) -> np.ndarray:
    """Draws one face: uint8 [218, 178, 3], RGB, a function of the factors alone (see `factors.FACTORS`)."""
    face = Face(factors)
    canvas = Canvas(factors["tilt"] * MAX_TILT)
    draw_background(canvas, face)
    draw_back_hair(canvas, face)
    draw_bust(canvas, face)
    draw_ears(canvas, face)
    draw_skin(canvas, face)
    draw_beard(canvas, face)
    draw_mouth(canvas, face)
    draw_nose(canvas, face)
    for side in (-1, 1):
        draw_eye(canvas, face, side)
        draw_brow(canvas, face, side)
    draw_front_hair(canvas, face)
    if factors["glasses"] > 0.5:
        draw_glasses(canvas, face)
    return expose(canvas, face)


def draw_background(canvas: Canvas, face: Face) -> None:
    """A plain wall with a vignette; its tone and hue are factors."""
    hue = blend(HUES, face.factors["background_hue"])
    wall = hue * (0.16 + 0.76 * face.factors["background"])
    np.multiply(wall[:, None, None], _VIGNETTE, out=canvas.rgb)


def _hair_color(face: Face, patch: Patch) -> np.ndarray:
    """Returns strands and a band of gloss: float32 [3, h, w]."""
    u, v = patch.u - face.skull_u, patch.v
    fan = (u + 14) / (0.4 + np.maximum(v + 110, 1) * (1 / 130))  # strands fall from a parting above the crown
    strands = 1 + 0.05 * np.sin(fan * 0.41) + 0.05 * np.sin(fan * 0.93 + 1) + 0.06 * np.sin(fan * 1.71)
    gloss = np.maximum(1 - ((v + 46 - 0.006 * u * u) * (1 / 11)) ** 2, 0) * strands
    return face.hair[:, None, None] * strands + gloss * (face.hair * 0.25 + 0.07)[:, None, None]


def _hair_patch(canvas: Canvas, face: Face) -> Patch:
    end = face.hair_end
    return canvas.patch(face.skull_u, (CROWN + end) / 2, face.width + 12, (end - CROWN) / 2 + 1)


def draw_back_hair(canvas: Canvas, face: Face) -> None:
    """The hair behind the face and neck."""
    patch = _hair_patch(canvas, face)
    patch.paint(face.mane(patch.u, patch.v), _hair_color(face, patch) * 0.62)


def draw_bust(canvas: Canvas, face: Face) -> None:
    """Neck and shoulders, which stay upright; the head's shadow falls on the neck."""
    x, y = X_GRID[145:] - CENTER_X, Y_GRID[145:]
    bust = Patch(canvas.rgb[:, 145:], x, y)
    shoulders = (np.sqrt((x * (1 / 88)) ** 2 + ((y - 250) * (1 / 58)) ** 2) - 1) * 60
    bust.paint(shoulders, rgb(0.23, 0.27, 0.36))
    half = face.width * 0.46 + 5 * face.male
    neck = np.maximum(np.abs(x) - half - np.maximum(y - 185, 0) * 0.5, y - 206 + (x * 0.12) ** 2)
    shade = np.minimum(np.maximum((y - 168) * (1 / 40), 0), 1)
    bust.paint(neck, face.shadow[:, None, None] * (1.0 + 0.35 * shade))


def draw_ears(canvas: Canvas, face: Face) -> None:
    """Both ears. A turned head hides the far ear behind the cheek and shows the near ear."""
    for side in (-1, 1):
        u = side * (face.width + 1) * math.cos(face.yaw) + face.skull_u * 0.7
        patch = canvas.patch(u, 6, 9, 14)
        norm = np.sqrt(((patch.u - u) * (1 / 8)) ** 2 + ((patch.v - 6) * (1 / 13)) ** 2)
        patch.paint((norm - 1) * 8, face.skin * 0.92)
        patch.paint((np.abs(norm - 0.55) - 0.12) * 8, face.shadow, 0.6)


def draw_skin(canvas: Canvas, face: Face) -> None:
    """The face itself: rounder shading towards the edges, cheeks that rise and redden with the smile."""
    patch = canvas.patch(face.face_u, 2, face.width + 2, 64)
    distance = face.outline(patch.u, patch.v)
    rim = np.minimum(np.maximum(distance * (1 / 26) + 1, 0), 1)
    shade = 1.04 - 0.20 * rim * rim
    patch.paint(distance, face.skin[:, None, None] * shade)
    smile = face.factors["smile"]
    for side in (-1, 1):
        u, scale = face.turn(side * face.width * 0.55)
        cheek = canvas.patch(u, 22, 14, 12)
        blush = face.skin * rgb(1.02, 0.72, 0.66)
        cheek.glow((u, 22 - 4 * smile), (14 * scale + 1, 10), blush, 0.40 + 0.35 * smile)


def draw_beard(canvas: Canvas, face: Face) -> None:
    """Hair on jaw, chin and upper lip, from none over stubble to a full beard."""
    beard = face.factors["beard"]
    patch = canvas.patch(face.face_u, 32, face.width + 4, 34)
    u0, _ = face.turn(0)
    cheek = np.sqrt(((patch.u - u0) * (1 / (face.width * 0.90))) ** 2 + ((patch.v + 4) * (1 / 31)) ** 2)
    inside = np.maximum(face.outline(patch.u, patch.v, 4 * beard) + 1, (1 - cheek) * 30)
    inside = np.maximum(inside, 10 - patch.v)
    grain = _GRAIN[: patch.u.shape[0], : patch.u.shape[1]] * 6
    full = face.hair * 0.75 * beard + face.shadow * (1 - beard)  # stubble lets the skin through
    color = full[:, None, None] * (1 + grain)
    patch.paint(inside + grain * 8, color, min(1.0, 1.2 * beard) * 0.95, soft=6)


def draw_mouth(canvas: Canvas, face: Face) -> None:
    """Lips, and teeth and tongue between them; the smile bends and widens the whole mouth."""
    smile, opening = face.factors["smile"], 17 * face.factors["open_mouth"]
    u, scale = face.turn(0, 1.02)
    half = (21 + 4 * smile - 0.1 * opening) * scale
    patch = canvas.patch(u, 37, half + 3, 24)
    bow = 1 - ((patch.u - u) * (1 / half)) ** 2
    lips = np.maximum(bow, 0)
    line = 33 + (9.5 + 1.5 * smile) * smile * (bow - 0.6)
    upper, lower = line - 0.25 * opening * lips, line + 0.75 * opening * lips
    full = 6.2 - 2.8 * face.male
    ends = (np.abs(patch.u - u) - half) * 0.8
    lip_color = face.skin * rgb(0.80, 0.52, 0.50) * face.male + rgb(0.80, 0.14, 0.22) * (1 - face.male)
    above = upper - full * 0.8 * np.sqrt(lips) + 1.0 * np.maximum(1 - np.abs(patch.u - u) * 0.25, 0) - patch.v
    below = patch.v - lower - full * np.sqrt(lips)
    patch.glow((u, 33 + opening * 0.75 + full + 6), (12, 5), face.shadow, 0.5)
    patch.paint(np.maximum(np.maximum(above, below), ends), lip_color)
    patch.paint(np.maximum(np.abs(patch.v - lower - full * 0.5) - 0.8, ends + 6), lip_color * 0.5 + 0.5, 0.35, 3)
    hole = np.maximum(np.maximum(upper - patch.v, patch.v - lower) - 0.7, ends)
    patch.paint(hole, rgb(0.22, 0.04, 0.06))
    if opening > 1:
        patch.paint(np.maximum(hole + 0.9, patch.v - upper - opening * 0.36), rgb(0.97, 0.95, 0.92))
        tongue = np.sqrt(((patch.u - u) / (half * 0.6)) ** 2 + ((patch.v - 35 - opening) / 8) ** 2)
        patch.paint(np.maximum(hole + 0.9, (tongue - 1) * 7), rgb(0.80, 0.33, 0.36), 0.9, 3)


def draw_nose(canvas: Canvas, face: Face) -> None:
    """Bridge and wings in relief: bright on the lit side, its shadow on the other."""
    big = face.factors["nose"]
    half, tip = 4.5 + 12 * big, 11 + 8 * big
    u, scale = face.turn(0, 1.22)
    root, _ = face.turn(0)
    lit = 1.0 if face.factors["light_direction"] >= 0 else -1.0
    strength = abs(face.factors["light_direction"])
    patch = canvas.patch(u, tip - 10, half + 16, 32)
    patch.glow((u - lit * (half * 0.55 + 3), tip - 9), (half * 0.6 + 3, 24), face.shadow, 0.30 + 0.45 * strength)
    patch.glow((root * 0.4 + u * 0.6, tip - 14), (3 + 2 * big, 20), face.skin * 0.5 + 0.5, 0.45)
    patch.glow((u, tip + 4), (half * 1.35, 6 + 3 * big), face.shadow * 0.75, 1.0)
    ball = np.sqrt(((patch.u - u) / half) ** 2 + ((patch.v - tip + 2) / (4 + 5 * big)) ** 2)
    patch.paint((ball - 1.15) * half * 0.7, face.shadow, 0.25 + 0.45 * big, 4)
    patch.paint((ball - 1) * 7, face.skin * rgb(1.0, 0.92, 0.88), 0.95, 4)
    patch.glow((u + lit * 2, tip - 4), (half * 0.5, 4), face.skin * 0.4 + 0.6, 0.6)
    for side in (-1, 1):
        patch.glow((u + side * half * 0.5 * scale, tip + 3), (2.2 + 2 * big, 2.0 + 1.2 * big), face.shadow * 0.35, 1.0)


def draw_eye(canvas: Canvas, face: Face, side: int) -> None:
    """One eye: white, iris, pupil, the light's reflection, the upper lid's line and lashes."""
    size, smile = face.factors["eye_size"], max(face.factors["smile"], 0.0)
    u, scale = face.turn(eye_u(face, side))
    half, tall = (9 + 3.5 * size) * scale, (3.2 + 6.3 * size) * (1 - 0.12 * smile)
    patch = canvas.patch(u, -4, half + 6, 16)
    q, v = (patch.u - u) * (1 / half), patch.v + 4
    lid = tall * (1 - q * q)
    patch.glow((u, -7), (half * 1.4, 13), face.shadow, 0.55)
    opening = np.abs(v) - lid
    patch.paint(opening, rgb(0.97, 0.96, 0.95))
    radius = 4.3 + 3.4 * size
    gaze = np.sqrt((patch.u - u - 1.5 * face.factors["yaw"]) ** 2 * (1 / scale**2) + v * v)
    patch.paint(np.maximum(opening + 0.5, gaze - radius), rgb(0.36, 0.33, 0.20))
    patch.paint(np.maximum(opening + 0.5, gaze - radius * 0.55), rgb(0.03, 0.03, 0.04))
    glint_u = u + radius * 0.4 * (1 if face.factors["light_direction"] >= 0 else -1)
    glint = np.sqrt((patch.u - glint_u) ** 2 + (v + tall * 0.35) ** 2) - 1.7
    patch.paint(np.maximum(opening, glint), rgb(1, 1, 1))
    lash = 1.2 + 1.6 * (1 - face.male)
    line = np.maximum(np.abs(v + lid + 0.4) - lash, (np.abs(q) - 1.12) * half)
    patch.paint(line, rgb(0.10, 0.07, 0.07), 0.95)
    patch.paint(np.maximum(np.abs(v - lid) - 0.4, (np.abs(q) - 0.95) * half), face.shadow, 0.7)


def eye_u(face: Face, side: int) -> float:
    """Returns u of the middle of an eye on the frontal face; `side` is -1 (the picture's left) or 1."""
    return side * (16 + 8 * face.factors["eye_distance"])


def draw_brow(canvas: Canvas, face: Face, side: int) -> None:
    """One eyebrow, thick inside and thin outside; a flat heavy one on masculine faces."""
    bushy = face.factors["brow"]
    u, scale = face.turn(eye_u(face, side) * 1.05)
    half = (13 + 2 * bushy) * scale
    height = -19 - 3.5 * face.factors["eye_size"] + 3 * face.male
    patch = canvas.patch(u, height, half + 2, 11)
    q = (patch.u - u) * (side / half)
    arch = height + (5 - 3 * face.male) * (q - 0.25) ** 2 - 1
    thick = (1.0 + 5.4 * bushy) * (1 - 0.45 * q)
    patch.paint(np.maximum(np.abs(patch.v - arch) - thick, (np.abs(q) - 1) * half), face.brow_color, 0.92, 1.8)


def draw_front_hair(canvas: Canvas, face: Face) -> None:
    """The hair around the face: the mane outside an oval window, parted at one side."""
    patch = _hair_patch(canvas, face)
    u = patch.u - face.face_u * 1.6
    window = np.sqrt((u * (1 / (face.width * 0.97))) ** 2 + ((patch.v - 24 + 0.16 * u) * (1 / 58)) ** 2)
    edge = np.maximum(face.mane(patch.u, patch.v), (1 - window) * 45)
    patch.paint(edge, _hair_color(face, patch), soft=1.8)


def draw_glasses(canvas: Canvas, face: Face) -> None:
    """Dark rims with a bridge, and a slight glare on the lenses."""
    frame = rgb(0.07, 0.06, 0.09)
    inner: list[float] = []
    for side in (-1, 1):
        u, scale = face.turn(eye_u(face, side), 1.05)
        half = 14.5 * scale
        patch = canvas.patch(u, -3, half + 4, 17)
        across, along = ((patch.u - u) * (1 / half)) ** 2, ((patch.v + 3) * (1 / 13)) ** 2
        norm = (np.sqrt(np.sqrt(across * across + along * along)) - 1) * 13
        patch.paint(norm, rgb(0.80, 0.88, 0.95), 0.16)
        patch.paint(np.abs(norm) - 1.7, frame)
        inner.append(u - side * half)
    middle, gap = sum(inner) / 2, max(abs(inner[1] - inner[0]) / 2, 1.0)
    patch = canvas.patch(middle, -6, gap, 4)
    patch.paint(np.maximum(np.abs(patch.v + 6) - 1.5, np.abs(patch.u - middle) - gap), frame)


def expose(canvas: Canvas, face: Face) -> np.ndarray:
    """Applies light from one side, white balance, brightness and grain; returns uint8 [218, 178, 3]."""
    factors = face.factors
    across = np.minimum(np.maximum(canvas.u * (1 / 60), -1), 1)
    head = np.maximum(1.5 - ((canvas.v - 10) * (1 / 80)) ** 2 - across * across * 0.9, 0)
    light = 1 + factors["light_direction"] * across * (0.14 + 0.36 * np.minimum(head, 1))
    red = 0.14 * factors["white_balance"]
    gain = (0.60 + 0.52 * factors["brightness"]) * rgb(1 + red, 1, 1 - 1.2 * red)
    key = zlib.crc32(",".join(f"{factors[name]:.6f}" for name in FACTOR_NAMES).encode())
    top, left = key % 64, (key >> 8) % 64
    light += _GRAIN[top : top + HEIGHT, left : left + WIDTH]
    picture = canvas.rgb * light
    picture *= (255 * gain)[:, None, None]
    np.minimum(picture, 255, out=picture)
    np.maximum(picture, 0, out=picture)
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(1, 2, 0))
