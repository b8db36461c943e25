"""What can be fuzzed: how a file is made, what reads it, and with which errors it may be refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """``read`` must return, or raise one of ``refusals`` with one short sentence."""

    make: Callable[[random.Random], bytes]
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
