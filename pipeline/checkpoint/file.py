"""The checkpoint file: plain tensors and values of `torch.save`, with a checksum over every byte, written atomically.

`torch.load` does not notice a flipped bit, which becomes a wrong weight. The SHA-256 of the file is therefore stored in
the comment at the end of the zip archive, so that the file remains an ordinary `torch.save` file.
"""

from __future__ import annotations

import hashlib
import os
import reprlib
import shutil
import zipfile
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from torch import Tensor

from pipeline.checkpoint.folder import ARCHIVE, BEST, LATEST, explain_folder
from pipeline.checkpoint.untrusted import check_archive, check_tensors
from pipeline.config.load import build_config
from pipeline.config.schema import Config, ConfigError
from pipeline.model.vlae import VLAE
from preprocess.errors import UserError, first_line
from preprocess.shards.atomic import replace_file
from preprocess.shards.manifest import MAX_SIDE

SCHEMA_VERSION = 1
_MARK = b"sha256:"
_CHECKSUM_BYTES = len(_MARK) + 64
_Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]


class CheckpointError(UserError):
    """A checkpoint cannot be used."""


def _only_tensors(weights: dict[Any, Any]) -> dict[Any, Any]:
    if not all(isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()):
        raise ValueError("something else than tensors by name")
    return weights


_Weights = Annotated[dict[Any, Any], AfterValidator(_only_tensors)]


class _Progress(BaseModel, strict=True):
    step: int
    samples: int = 0
    growth_steps: int = 1
    seconds: float = 0.0
    best_l1: float = 0.0


class _Contents(BaseModel, strict=True):
    """The types of the fields that are read again (docs/formats.md)."""

    schema_version: int
    config: dict[Any, Any]
    image_shape: Annotated[list[_Side] | tuple[_Side, ...], Field(min_length=3, max_length=3)]
    image_processing: dict[Any, Any] | None = None
    model: _Weights
    ema: _Weights | None = None
    progress: _Progress
    manifest_digest: str
    data: str | None = None
    resumed_from: str | None = None
    left_out: list[str] = Field(default=[], max_length=100_000)


def _digest(path: Path, length: int) -> str:
    """SHA-256 (hex) of the first ``length`` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while length and (chunk := file.read(min(length, 1 << 20))):
            digest.update(chunk)
            length -= len(chunk)
    return digest.hexdigest()


def _append_checksum(path: Path) -> None:
    """Appends the digest as the comment of the zip archive, whose length is in the two bytes before it."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(_CHECKSUM_BYTES.to_bytes(2, "little"))
    checksum = _MARK + _digest(path, path.stat().st_size).encode()
    with path.open("ab") as file:
        file.write(checksum)


def write_checkpoint(folder: Path, state: dict[str, Any], keep: int, is_best: bool = False) -> Path:
    """Writes a checkpoint to ``folder``/checkpoints/step-XXXXXXXX.pt and links it as ``folder``/ckpt.pt.

    There is a complete ckpt.pt at every moment once the first was written.

    Args:
        folder: The run's folder.
        state: The contents (docs/formats.md).
        keep: How many of the newest checkpoints to keep.
        is_best: Whether to link it as ``folder``/best.pt as well.

    Returns:
        The path of the step's file.

    Raises:
        OSError: When the file could not be written, for example because the disk is full; nothing is lost.
    """
    archive = folder / ARCHIVE
    archive.mkdir(parents=True, exist_ok=True)
    path = archive / f"step-{state['progress']['step']:08d}.pt"
    with replace_file(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch raises this for a failed write and drops the cause
            raise OSError(f"writing {path} failed, is the disk full? ({first_line(error)})") from None
        _append_checksum(temporary)
    for name in [LATEST, BEST] if is_best else [LATEST]:
        with replace_file(folder / name) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, temporary)
    for old in _surplus(archive, keep):
        old.unlink()
    return path


def _surplus(archive: Path, keep: int) -> list[Path]:
    """The checkpoints of the lowest steps, beyond the newest ``keep``."""
    return sorted(archive.glob("step-*.pt"))[:-keep]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the checkpoint's contents on the CPU, after checking its checksum and its fields.

    Raises:
        CheckpointError: When the file is missing, damaged, not a checkpoint, or of another schema version.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - _CHECKSUM_BYTES))
            checksum = file.read()
        if not checksum.startswith(_MARK):
            raise CheckpointError(f"{path} {_kind_of_file(path)}")
        if checksum[len(_MARK) :] != _digest(path, size - _CHECKSUM_BYTES).encode():
            raise CheckpointError(
                f"{path} is damaged: its content does not match its checksum; copy it again, or use another checkpoint"
            )
        check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_tensors(state, path)
    except CheckpointError:
        raise
    except IsADirectoryError:
        raise CheckpointError(f"{path} {explain_folder(path, 'name the ckpt.pt of a run')}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    except Exception as error:  # torch raises nearly anything on hostile bytes
        raise CheckpointError(f"{path} is not a checkpoint: {first_line(error)}") from None
    version = state.get("schema_version", SCHEMA_VERSION) if isinstance(state, dict) else SCHEMA_VERSION
    if not isinstance(version, int) or version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} has schema version {reprlib.repr(version)}, this program reads version {SCHEMA_VERSION}; "
            "use the version of mmd-vlae that wrote it"
        )
    try:
        _Contents.model_validate(state)
    except ValidationError as error:
        field = next(iter(error.errors()[0]["loc"]), "schema_version")
        raise CheckpointError(
            f"{path} is not an mmd-vlae checkpoint: its field '{field}' is missing or has the wrong type"
        ) from None
    return state


def _kind_of_file(path: Path) -> str:
    """What a file without our checksum is, in words that follow its name."""
    with path.open("rb") as file:
        start = file.read(512)
    is_safetensors = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    is_zip = start.startswith(b"PK\x03\x04")
    kinds = [
        (not start, "is empty: copy it again, or use another checkpoint"),
        (start.startswith(b"version https://git-lfs"), "is a Git LFS pointer, not the file: run `git lfs pull`"),
        (start.lstrip()[:1] == b"<", "is a web page, not a checkpoint: download the file itself"),
        (is_safetensors, "is a safetensors export, not a checkpoint: name the ckpt.pt that it was made from"),
        (is_zip and not zipfile.is_zipfile(path), "is truncated: copy it again, or use another checkpoint"),
        (is_zip, "has no checksum: another program saved it, perhaps torch.save; use the file of the trainer"),
        (start.startswith(b"\x80"), "is a pickle file, which can run code and is never loaded; use a checkpoint"),
    ]
    return next((text for matches, text in kinds if matches), "is not a checkpoint of this trainer")


def checkpoint_config(state: dict[str, Any], path: Path) -> Config:
    """Returns the configuration of the run; ``path`` names the checkpoint in errors.

    Raises:
        CheckpointError: When this version cannot read it.
    """
    try:
        return build_config(state["config"], f"the configuration in {path}")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def load_vlae(path: Path, device: torch.device | str = "cpu") -> tuple[VLAE, Config, dict[str, Any]]:
    """Returns the trained model in eval mode, its configuration, and the checkpoint's contents.

    The weights are the averaged ones where the run kept them.

    Raises:
        CheckpointError: When the file cannot be used, or its weights do not fit the model that it describes.
    """
    state = read_checkpoint(path)
    config, shape = checkpoint_config(state, path), tuple(state["image_shape"])
    weights = state.get("ema") or state["model"]
    try:
        with torch.device("meta"):  # allocates nothing: a short recipe can describe a model of any size
            described = VLAE(config.model, shape).state_dict()
        if {key: tensor.shape for key, tensor in described.items()} != {k: t.shape for k, t in weights.items()}:
            raise CheckpointError(f"{path} holds another model than it describes: the shapes of its weights differ")
        vlae = VLAE(config.model, shape)
        vlae.load_state_dict(weights)
    except (RuntimeError, ConfigError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path} holds another model than it describes: {first_line(error)}") from None
    vlae.eval().requires_grad_(False).to(device)
    vlae.to(memory_format=torch.channels_last)
    return vlae, config, state
