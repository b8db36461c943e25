"""What is analyzed: a checkpoint's model beside the shards that it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.file import load_vlae
from pipeline.config.schema import Config
from pipeline.data.shard_reader import open_shard_set
from pipeline.model.vlae import VLAE
from preprocess.errors import UserError
from preprocess.shards.reader import ShardSet

Progress = Callable[[str, int], Callable[[int], None]]
"""(what is being done, how many units it takes) -> a function that reports finished units."""


class EvalContextError(UserError):
    """The checkpoint and the shards cannot be analyzed together; the message is one sentence for the terminal."""


@dataclass(frozen=True)
class EvalContext:
    """A trained ladder and the shards to look at it with."""

    path: Path
    vlae: VLAE
    config: Config
    state: dict[str, Any]
    shards: ShardSet
    device: torch.device

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latent dimensions of each layer, bottom first."""
        return self.vlae.latent_sizes

    @property
    def step(self) -> int:
        """Optimizer steps that the model was trained for."""
        return int(self.state["progress"]["step"])

    def autocast(self) -> torch.autocast:
        """The precision in which the network is measured: that of training's validation, where it is fast here."""
        return fast_precision(self.device, self.config.training.mixed_precision == "bf16")


def fast_precision(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Runs networks in bfloat16 where it is ``wanted`` and this machine computes in it, else in float32."""
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and fast)


def _cpu_has_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def open_shards(state: dict[str, Any], data: Path | None) -> tuple[ShardSet, str | None]:
    """The shards to use and, where they are not those trained on, a warning.

    Args:
        state: The checkpoint's contents.
        data: Folder or address of shards; None = those that the checkpoint names, which must still be the same.

    Raises:
        ManifestError: When there is no usable manifest.
        LoaderError: When an address cannot be read, or is a command.
        EvalContextError: When the shards hold images of another shape, or are no longer those trained on.
    """
    shards = open_shard_set(str(data or state.get("data") or "shards"))
    channels, height, width = state["image_shape"]
    if shards.manifest.image_shape != (height, width, channels):
        shape = "x".join(map(str, shards.manifest.image_shape))
        raise EvalContextError(
            f"{shards.folder} holds images of {shape} (height x width x channels), the model was trained on "
            f"{height}x{width}x{channels}; name shards of that size with --data"
        )
    if shards.digest == state["manifest_digest"]:
        if not (left_out := state.get("left_out")):
            return shards, None
        return shards.without(left_out), f"left out {', '.join(left_out)}: the model was trained without them"
    if data is None:
        raise EvalContextError(
            f"{shards.folder} no longer holds the shards that the checkpoint was trained on; name shards with --data"
        )
    return shards, (
        f"{shards.folder} is not what the checkpoint was trained on: make sure that its valid and test images were not "
        "used for training"
    )


def open_context(path: Path, data: Path | None) -> tuple[EvalContext, list[str]]:
    """A checkpoint, on the best device here, with its shards, and warnings to say.

    Args:
        path: The checkpoint.
        data: See ``open_shards``.

    Raises:
        CheckpointError: When the checkpoint cannot be used.
        ShardError: When a shard is missing or has another size.
        ManifestError: When there is no usable manifest.
        LoaderError: When an address cannot be read, or is a command.
        EvalContextError: When the shards hold images of another shape, or are no longer those trained on.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vlae, config, state = load_vlae(path, device)
    shards, warning = open_shards(state, data)
    shards.check_sizes()
    return EvalContext(path, vlae, config, state, shards, device), [warning] if warning else []
