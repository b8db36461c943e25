"""One hostile file: how it is made and read, and what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """``attack`` makes the file in a folder of its own and reads it, which must raise an error that says ``words``."""

    name: str
    attack: Callable[[Path], object]
    words: str


class Payload:
    """Pickles as a call of ``open(canary, "w")``: whoever unpickles it makes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.canary), "w")


class Bomb:
    """Pickles as ``bytearray(8 GB)``: plain, and larger than any memory should be for a small file."""

    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (8 << 30,)
