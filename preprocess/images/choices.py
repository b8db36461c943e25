"""What a person may choose on the command line, checked: crops, presets, codecs."""

from __future__ import annotations

from typing import get_args

from preprocess.errors import UsageError
from preprocess.shards.manifest import Codec, Crop, Resample

# The crops of published work on 178x218 CelebA, all resized to 64x64 there; boxes are left, top, right, bottom.
PRESETS = {
    "vlae108": Crop(kind="center", size=108),  # Zhao et al. 2017, the VLAE authors' code
    "dcgan": Crop(kind="center", size=108),  # DCGAN-tensorflow, and much that followed it
    "wae140": Crop(kind="center", size=140),  # Tolstikhin et al. 2018
    "vae148": Crop(kind="center", size=148),  # PyTorch-VAE
    "nvae": Crop(kind="box", box=(15, 40, 163, 188)),  # Vahdat and Kautz 2020
    "provlae": Crop(kind="box", box=(15, 45, 163, 193)),  # Li et al. 2020
}


def choose_crop(crop: str | None, preset: str | None) -> Crop | None:
    """The crop that --crop or --preset asks for; None where neither is given, for the source's own.

    Raises:
        UsageError: both are given, or one of them is not understood.
    """
    if preset is None:
        return None if crop is None else parse_crop(crop)
    if crop is not None:
        raise UsageError("--crop and --preset cannot both be given: a preset is a crop")
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset} is not known: {', '.join(PRESETS)} are")
    return PRESETS[preset]


def parse_crop(text: str) -> Crop:
    """`148`, `square`, `none` or `left,top,right,bottom`.

    Raises:
        UsageError: it is none of them.
    """
    if text == "square":
        return Crop(kind="square")
    if text == "none":
        return Crop(kind="none")
    parts = text.split(",")
    if all(part.isdecimal() for part in parts):
        numbers = [int(part) for part in parts]
        if len(numbers) == 1 and numbers[0] > 0:
            return Crop(kind="center", size=numbers[0])
        if len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
            return Crop(kind="box", box=(numbers[0], numbers[1], numbers[2], numbers[3]))
    raise UsageError(f"--crop {text} is neither a number of pixels, nor left,top,right,bottom, nor square, nor none")


def choose_codec(text: str) -> Codec:
    """Raises UsageError where the codec is not known."""
    for codec in get_args(Codec):
        if codec == text:
            return codec
    raise UsageError(f"--codec {text} is not known: {', '.join(get_args(Codec))} are")


def choose_resample(text: str) -> Resample:
    """Raises UsageError where the filter is not known."""
    for resample in get_args(Resample):
        if resample == text:
            return resample
    raise UsageError(f"--resample {text} is not known: {', '.join(get_args(Resample))} are")
