"""The choices that options offer and manifests record. They import nothing, so that `--help` answers at once."""

from __future__ import annotations

from typing import Literal

Codec = Literal["npy", "png", "jpg", "webp"]
Faces = Literal["largest", "all"]
Preset = Literal["vlae108", "dcgan", "wae140", "vae148", "nvae", "provlae"]
Resample = Literal["bilinear", "bicubic"]  # both antialiased
MAX_SIDE = 4096  # pixels; a manifest may claim any shape, and buffers are made from it
MANIFEST_NAME = "manifest.json"
