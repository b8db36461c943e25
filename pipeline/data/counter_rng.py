"""Random numbers as a pure function of (seed, step, position): the same on any device and any number of ranks.

A counter-based generator: each value is a hash of its address. So a rank computes the numbers of its part of the global
batch and nothing else, and resuming needs no generator state.
"""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1


class Stream(IntEnum):
    """The purpose of a number. Two streams never share numbers."""

    POSTERIOR = 1
    PRIOR = 2
    FLIP = 3
    DENOISE_MASK = 4
    DENOISE_GAUSS = 5
    EFFECT = 6
    PREVIEW = 7
    WARP = 8


def _splitmix64(value: int) -> int:
    """Returns the finalizer of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64-bit integers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def hash_key(*parts: int) -> tuple[int, int]:
    """Returns two 32-bit key words (signed, for int32 tensors) from integers in this order."""
    state = 0
    for part in parts:
        state = _splitmix64(state ^ (part & _MASK64))
    low, high = state & 0xFFFFFFFF, state >> 32
    return low - ((low >> 31) << 32), high - ((high >> 31) << 32)


def _scramble(bits: Tensor) -> Tensor:
    """Applies a 32-bit bijection with full avalanche (Wellons 2018, 'lowbias32') to int32 in place."""
    bits ^= (bits >> 16) & 0xFFFF
    bits *= 0x7FEB352D
    bits ^= (bits >> 15) & 0x1FFFF
    bits *= 0x846CA68B - (1 << 32)
    bits ^= (bits >> 16) & 0xFFFF
    return bits


def _bits(key: tuple[int, int], rows: Tensor, width: int) -> Tensor:
    """Returns hashed addresses: (n, width) int32, one for each (row, column) under ``key``."""
    low = (rows & 0xFFFFFFFF).to(torch.int32)
    high = (rows >> 32).to(torch.int32)
    row_words = _scramble(_scramble(low ^ key[0]) ^ high ^ key[1])
    columns = torch.arange(width, dtype=torch.int32, device=rows.device)
    column_words = _scramble(columns ^ key[1])
    return _scramble(_scramble(row_words[:, None] ^ column_words[None, :]) + key[0])


def uniform(rows: Tensor, width: int, stream: Stream, *key: int) -> Tensor:
    """Draws uniform numbers. Value (i, j) depends on (stream, key, rows[i], j) alone.

    Args:
        rows: (n,) int64, positions in the global batch or samples of a split.
        width: Numbers in each row.
        stream: What the numbers are for.
        key: Further integers, such as seed and step.

    Returns:
        (n, width) float32 in (0, 1), on the device of ``rows``.
    """
    bits = _bits(hash_key(stream, 0, *key), rows, width)
    return (((bits >> 8) & 0xFFFFFF).to(torch.float32) + 0.5) * 2.0**-24


def normal(rows: Tensor, width: int, stream: Stream, *key: int) -> Tensor:
    """Draws (n, width) float32 ~ N(0, 1), addressed as in :func:`uniform` (Box and Muller 1958)."""
    radius_bits = _bits(hash_key(stream, 1, *key), rows, width)
    angle_bits = _bits(hash_key(stream, 2, *key), rows, width)
    radius = (((radius_bits >> 8) & 0xFFFFFF).to(torch.float32) + 0.5).mul_(2.0**-24).log_().mul_(-2).sqrt_()
    angle = ((angle_bits >> 8) & 0xFFFFFF).to(torch.float32).mul_(2 * math.pi * 2.0**-24)
    return radius.mul_(angle.cos_())
