"""The checkpoint file: plain tensors and values, checksummed with a digest over every byte, written atomically.

A seal is needed because ``torch.load`` notices no rot: a flipped bit becomes a wrong weight. The SHA-256 of the file
stands in the comment that ends every zip archive, so the file stays an ordinary ``torch.save`` file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import reprlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoint.untrusted import check_archive, check_tensors
from pipeline.config.schema import Config, ConfigError, build_config, flatten
from pipeline.model.vlae import VLAE
from preprocess.shards.atomic import sync_folder
from preprocess.shards.manifest import MAX_SIDE

SCHEMA_VERSION = 1
LATEST, BEST = "ckpt.pt", "best.pt"
_SEAL = b"sha256:"
_SEAL_BYTES = len(_SEAL) + 64
_REQUIRED = ("schema_version", "config", "image_shape", "model", "progress", "manifest_digest")


def _is_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "config": lambda config: isinstance(config, dict),
    "image_shape": lambda shape: (
        isinstance(shape, list | tuple)
        and len(shape) == 3
        and all(isinstance(n, int) and 0 < n <= MAX_SIDE for n in shape)
    ),
    "model": _is_weights,
    "ema": lambda model: model is None or _is_weights(model),
    "progress": lambda progress: (
        isinstance(progress, dict)
        and isinstance(progress.get("step"), int)
        and isinstance(progress.get("samples", 0), int)
    ),
    "manifest_digest": lambda digest: isinstance(digest, str),
    "data": lambda data: data is None or isinstance(data, str),
    "left_out": lambda files: files is None or (isinstance(files, list) and all(isinstance(f, str) for f in files)),
}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence for the terminal."""


def _digest(path: Path, length: int) -> str:
    """SHA-256 (hex) of the first ``length`` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while length and (chunk := file.read(min(length, 1 << 20))):
            digest.update(chunk)
            length -= len(chunk)
    return digest.hexdigest()


def _seal(path: Path) -> None:
    """Appends the digest as the zip archive's comment: the last two bytes before it are the comment's length."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(_SEAL_BYTES.to_bytes(2, "little"))
    seal = _SEAL + _digest(path, path.stat().st_size).encode()
    with path.open("ab") as file:
        file.write(seal)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well, and vanishes when it does not.

    What is in it is on the disk before it has the name. An OSError that does not say which file it means gets ``path``.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)
        raise


def write_checkpoint(folder: Path, state: dict[str, Any], keep: int, is_best: bool = False) -> Path:
    """Writes ``folder``/checkpoints/step-XXXXXXXX.pt and makes it ``folder``/ckpt.pt; keeps the newest ``keep``.

    One that ``is_best`` becomes ``folder``/best.pt as well, and stays until another is better.

    At every moment there is a whole ckpt.pt, once there was one. Raises OSError (a full disk) with nothing lost.
    """
    archive = folder / "checkpoints"
    archive.mkdir(parents=True, exist_ok=True)
    path = archive / f"step-{state['progress']['step']:08d}.pt"
    with replacing(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's word for a failed write; the cause is not kept
            raise OSError(f"writing {path} failed, is the disk full? ({str(error).splitlines()[0]})") from None
        _seal(temporary)
    for name in [LATEST, BEST] if is_best else [LATEST]:
        with replacing(folder / name) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, temporary)
    for old in sorted(archive.glob("step-*.pt"))[:-keep]:
        old.unlink()
    return path


def sweep_leftovers(folder: Path) -> None:
    """Removes what a killed run left half-written."""
    for leftover in [*folder.glob(".*.tmp"), *(folder / "checkpoints").glob(".*.tmp")]:
        leftover.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint's contents on the CPU, after its seal and its fields were checked.

    Raises CheckpointError when the file is missing, damaged, no checkpoint, or of another schema version.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - _SEAL_BYTES))
            seal = file.read()
        if not seal.startswith(_SEAL):
            raise CheckpointError(f"{path} is not a whole mmd-vlae checkpoint: its seal is missing (truncated?)")
        if seal[len(_SEAL) :] != _digest(path, size - _SEAL_BYTES).encode():
            raise CheckpointError(f"{path} is damaged: its content does not match its seal")
        check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or any(key not in state for key in _REQUIRED):
            raise CheckpointError(f"{path} is not an mmd-vlae checkpoint: it lacks fields that every one has")
        check_tensors(state, path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    except Exception as error:  # torch's reader raises nearly anything on hostile bytes
        raise CheckpointError(f"{path} is not a checkpoint: {_first_line(error)}") from None
    version = state["schema_version"]
    if not isinstance(version, int) or version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} has schema version {reprlib.repr(version)}, this program reads version {SCHEMA_VERSION}; "
            "use the version of mmd-vlae that wrote it"
        )
    for field, is_right in _FIELDS.items():
        if not is_right(state.get(field)):
            raise CheckpointError(f"{path} is not an mmd-vlae checkpoint: its field '{field}' holds something else")
    return state


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def newest_valid(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """The whole checkpoint of the highest step in a run's folder, and a line for every damaged one passed over.

    None when there is no checkpoint at all. Raises CheckpointError when there are some but none is whole.
    """
    archive = sorted((folder / "checkpoints").glob("step-*.pt"), reverse=True)
    candidates = [*archive, *([folder / LATEST] if (folder / LATEST).exists() else [])]
    damaged: list[str] = []
    for path in candidates:
        try:
            return path, read_checkpoint(path), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        raise CheckpointError(f"no whole checkpoint is left in {folder}: {damaged[0]}")
    return None


def checkpoint_config(state: dict[str, Any], path: Path) -> Config:
    """The configuration the run was started with. Raises CheckpointError when this program cannot read it."""
    try:
        return build_config(dict(flatten(state["config"])), f"the configuration in {path}")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def load_vlae(path: Path, device: torch.device | str = "cpu") -> tuple[VLAE, Config, dict[str, Any]]:
    """The trained model with its averaged weights where the run kept them, in eval mode, with config and contents.

    Raises CheckpointError; weights that do not fit the model described beside them are one such error.
    """
    state = read_checkpoint(path)
    config = checkpoint_config(state, path)
    weights = state.get("ema") or state["model"]
    try:
        with torch.device("meta"):  # without memory: a few words may describe a model of any size
            described = VLAE(config.model, tuple(state["image_shape"])).state_dict()
        if {key: tensor.shape for key, tensor in described.items()} != {k: t.shape for k, t in weights.items()}:
            raise CheckpointError(f"{path} holds another model than it describes: the shapes of its weights differ")
        vlae = VLAE(config.model, tuple(state["image_shape"]))
        vlae.load_state_dict(weights)
    except (RuntimeError, ConfigError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path} holds another model than it describes: {_first_line(error)}") from None
    vlae.eval().requires_grad_(False).to(device)
    vlae.to(memory_format=torch.channels_last)
    return vlae, config, state
