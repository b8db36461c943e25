"""Checkpoints and recipes made to do harm; each checkpoint has a valid checksum, which does not tell its author."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.file import load_vlae, write_checkpoint
from pipeline.config.load import resolve, to_yaml
from pipeline.config.schema import Config
from tests.faults.fuzz.files import checksummed, small_checkpoint
from tests.faults.hostile.case import Bomb, Case, Payload


def _load_with(folder: Path, **changes: object) -> None:
    load_vlae(write_checkpoint(folder, small_checkpoint() | changes, keep=1))


def _compressed(folder: Path) -> None:
    """Zeros, a thousand times smaller."""
    whole = write_checkpoint(folder, small_checkpoint() | {"zeros": torch.zeros(1 << 24)}, keep=1)
    out = io.BytesIO()
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as copy:
        for info in archive.infolist():
            with archive.open(info) as source, copy.open(info.filename, "w", force_zip64=True) as target:
                while chunk := source.read(1 << 22):
                    target.write(chunk)
    (folder / "small.pt").write_bytes(checksummed(out.getvalue()))
    load_vlae(folder / "small.pt")


def _config(**model: object) -> dict[str, Any]:
    plain = small_checkpoint()["config"]
    return plain | {"model": plain["model"] | model}


def _laughs(width: int, depth: int) -> dict[str, Any]:
    """A dict of dicts of dicts, each written once and meant ``width`` times."""
    tree: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        tree = {str(number): tree for number in range(width)}
    return tree


def _deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(400):
        nested = [nested]
    return nested


def _recipe(folder: Path, text: str) -> None:
    (folder / "recipe.yaml").write_text(text)
    resolve(folder / "recipe.yaml", {})


_LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))

CASES = (
    Case("a pickled call", lambda room: _load_with(room, extra=Payload(room / "canary")), "is not a checkpoint"),
    Case("a bytearray of 8 GB", lambda room: _load_with(room, extra=Bomb()), "bytearray"),
    Case("a compressed archive", _compressed, "compressed"),
    Case(
        "one number shown as ten billion",
        lambda room: _load_with(room, extra=torch.zeros(1).expand(10**10)),
        "claim 40,000,",
    ),
    Case("a sparse tensor", lambda room: _load_with(room, extra=torch.eye(3).to_sparse()), "not a plain value"),
    Case(
        "latents of a billion",
        lambda room: _load_with(room, config=_config(latents=[10**9] * 2)),
        "the shapes of its weights differ",
    ),
    Case(
        "widths of a billion",
        lambda room: _load_with(room, config=_config(layers=["9/2", "fc1000000000"])),
        "the shapes of its weights differ",
    ),
    Case("a thousand layers", lambda room: _load_with(room, config=_config(layers=["8"] * 1000)), "at most 32 items"),
    Case(
        "an image of a billion pixels a side",
        lambda room: _load_with(room, image_shape=[3, 10**9, 10**9]),
        "image_shape",
    ),
    Case(
        "a configuration that unfolds", lambda r: _load_with(r, config=_config() | {"x": _laughs(20, 6)}), "more values"
    ),
    Case("values nested 400 deep", lambda room: _load_with(room, extra=_deep()), "nested too deep"),
    Case("weights that are text", lambda room: _load_with(room, model={"a": "b"}), "field 'model'"),
    Case(
        "a YAML tag",
        lambda room: _recipe(room, f"name: !!python/object/apply:os.system ['touch {room}/canary']"),
        "tag",
    ),
    Case("YAML aliases that unfold", lambda room: _recipe(room, _LAUGHS), "aliases"),
    Case("YAML nested 100,000 deep", lambda room: _recipe(room, "a: " + "[" * 100_000), "is not valid YAML"),
    Case("a recipe of 2 MB", lambda room: _recipe(room, to_yaml(Config()) + "#" * (2 << 20)), "is not valid YAML"),
)
