"""Random numbers as a pure function of (seed, step, position): the same on any device and any number of ranks.

A counter-based generator: each value is a hash of its address. So a rank computes the numbers of its part of the global
batch and nothing else, and resuming needs no generator state.
"""

from __future__ import annotations

import math
import struct
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


def hash_key(*parts: int) -> int:
    """Returns a key of 64 bits, unsigned, from integers in this order (splitmix64: Steele, Lea, Flood 2014)."""
    state = 0
    for part in parts:
        state = ((state ^ (part & _MASK64)) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state


def _scramble(bits: Tensor) -> Tensor:
    """Applies a 32-bit bijection with full avalanche (Wellons 2018, 'lowbias32') to int32 in place."""
    bits ^= (bits >> 16) & 0xFFFF
    bits *= 0x7FEB352D
    bits ^= (bits >> 15) & 0x1FFFF
    bits *= 0x846CA68B - (1 << 32)
    bits ^= (bits >> 16) & 0xFFFF
    return bits


def _fractions(key: int, rows: Tensor, width: int) -> Tensor:
    """Returns (n, width) float32 whole numbers below 2^24: a hash of each (row, column) under ``key``."""
    low_key, high_key = struct.unpack("<ii", key.to_bytes(8, "little"))
    low = (rows & 0xFFFFFFFF).to(torch.int32)
    high = (rows >> 32).to(torch.int32)
    row_words = _scramble(_scramble(low ^ low_key) ^ high ^ high_key)
    column_words = _scramble(torch.arange(width, dtype=torch.int32, device=rows.device) ^ high_key)
    bits = _scramble(_scramble(row_words[:, None] ^ column_words[None, :]) + low_key)
    return ((bits >> 8) & 0xFFFFFF).to(torch.float32)


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
    return (_fractions(hash_key(stream, 0, *key), rows, width) + 0.5) * 2.0**-24


def normal(rows: Tensor, width: int, stream: Stream, *key: int) -> Tensor:
    """Draws (n, width) float32 ~ N(0, 1), addressed as in :func:`uniform` (Box and Muller 1958)."""
    radius = (_fractions(hash_key(stream, 1, *key), rows, width) + 0.5).mul_(2.0**-24).log_().mul_(-2).sqrt_()
    angle = _fractions(hash_key(stream, 2, *key), rows, width).mul_(2 * math.pi * 2.0**-24)
    return radius.mul_(angle.cos_())
