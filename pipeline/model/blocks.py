"""The grammar of ``model.layers``: '128, 128/2, fc1024' as typed blocks with their shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pipeline.config.schema import ConfigError

_BLOCK = re.compile(r"(?P<fc>fc)?(?P<width>[1-9][0-9]*)(?:/(?P<stride>[12]))?$")

Shape = tuple[int, ...]
"""(C, H, W) of a feature map, or (features,) behind a fully connected block."""


@dataclass(frozen=True)
class Block:
    """One convolution or fully connected layer of the encoder, with the shapes on both sides."""

    inputs: Shape
    outputs: Shape
    stride: int
    """1 or 2; 1 for a fully connected block."""

    @property
    def is_fc(self) -> bool:
        """Whether the block is fully connected."""
        return len(self.outputs) == 1


def parse_stages(stages: Sequence[str], image_shape: tuple[int, int, int]) -> list[list[Block]]:
    """The blocks of each stage for images of ``image_shape`` (C, H, W).

    Raises:
        ConfigError: When a word is outside the grammar, a convolution comes behind a fully connected block, or a stride
            does not divide the feature map.
    """
    shape: Shape = image_shape
    parsed: list[list[Block]] = []
    for number, stage in enumerate(stages):
        blocks: list[Block] = []
        for word in stage.replace(",", " ").split():
            block = _parse_block(word, shape, f"model.layers, layer {number}")
            blocks.append(block)
            shape = block.outputs
        if not blocks:
            raise ConfigError(f"model.layers, layer {number}: is empty")
        parsed.append(blocks)
    return parsed


def _parse_block(word: str, inputs: Shape, where: str) -> Block:
    match = _BLOCK.match(word)
    if match is None or (match["fc"] and match["stride"]):
        raise ConfigError(f"{where}: '{word}' is not a width like '128', '128/2' or 'fc1024'")
    width, stride = int(match["width"]), int(match["stride"] or 1)
    if match["fc"]:
        return Block(inputs, (width,), 1)
    if len(inputs) == 1:
        raise ConfigError(f"{where}: the convolution '{word}' cannot follow a fully connected block")
    _, height, breadth = inputs
    if height % stride or breadth % stride:
        raise ConfigError(f"{where}: '{word}' halves a map of {height}x{breadth} pixels, which is odd")
    return Block(inputs, (width, height // stride, breadth // stride), stride)


def size(shape: Shape) -> int:
    """Returns the number of values in one feature of ``shape``."""
    return prod(shape)
