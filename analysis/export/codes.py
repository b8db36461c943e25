"""Codes of many pictures as one table: a folder of pictures or of shards to a .parquet or .npz file.

Finished parts lie in ``.NAME.parts/`` beside the table, so that the same command resumes after a kill.
Letters in shapes: n images, d latent dimensions of a layer.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.inputs.context import Progress
from analysis.inputs.encode import load_split
from analysis.model.images import to_batch
from analysis.model.ladder import LadderModel
from pipeline.model.pixels import from_array
from preprocess.errors import UsageError, UserError
from preprocess.shards.atomic import replace_file, write_file
from preprocess.shards.manifest import MANIFEST_NAME, SPLITS
from preprocess.shards.reader import ShardSet

PART = 1024  # images of one part
NOT_PICTURES = {".txt", ".csv", ".json", ".md", ".html", ".zip", ".py", ".npz", ".npy", ".parquet", ".tar"}


class EncodeError(UserError):
    """Pictures cannot be encoded; the message says what is wrong."""


@dataclass(frozen=True)
class Images:
    """What is to be encoded, in a fixed order."""

    ids: list[str]
    labels: list[str]
    """'' where a picture has none."""
    splits: list[str]
    """'' for a folder of pictures."""
    files: list[Path] | None = None
    """Pictures; None for shards."""
    shards: ShardSet | None = None


@dataclass
class Encoded:
    """What became of it."""

    count: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> ids of pictures that could not be encoded."""


def find_images(source: Path, split: str | None) -> Images:
    """Lists the pictures of a folder (and its folders), or the samples of shards.

    A picture's id is its path in the folder; its label is the name of the first folder inside ``source``, if any.

    Raises:
        UserError: There are none, or the shards are damaged.
    """
    if (source / MANIFEST_NAME).is_file():
        return _shard_images(source, split)
    if split is not None:
        raise UsageError(f"--split {split}: {source} holds no shards, so it has no splits")
    if source.is_file():
        return Images([source.name], [""], [""], [source])
    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file() and path.suffix.lower() not in NOT_PICTURES and not path.name.startswith(".")
    ]
    if not files:
        raise UsageError(f"{source} holds no pictures")
    names = [path.relative_to(source) for path in files]
    labels = [name.parts[0] if len(name.parts) > 1 else "" for name in names]
    return Images([name.as_posix() for name in names], labels, [""] * len(files), files)


def _shard_images(folder: Path, split: str | None) -> Images:
    shards = ShardSet.open(folder)
    ids, labels, splits = [], [], []
    for name in [split] if split else SPLITS:
        if name not in shards.manifest.splits:
            if split:
                raise UsageError(f"{folder} has no split {split}; it has {', '.join(shards.manifest.splits)}")
            continue
        notes = shards.annotations(name)
        known = shards.manifest.label_names
        ids += notes.keys
        labels += ["" if i < 0 else known[i] if i < len(known) else str(i) for i in notes.label.tolist()]
        splits += [name] * len(notes.keys)
    return Images(ids, labels, splits, shards=shards)


def encode_all(model: LadderModel, images: Images, align: Any, refine: int, out: Path, progress: Progress) -> Encoded:
    """Writes ids, labels, splits and each layer's codes to ``out``.

    Args:
        model: Encodes.
        images: Of ``find_images``.
        align: "auto", "on" or "off", for pictures.
        refine: See ``LadderModel.encode``.
        out: .npz: arrays ``id``, ``label``, ``split`` and ``layer0`` (n, d) float32, …; .parquet: such columns,
            a layer's being lists of d numbers.
        progress: Told what is being done.

    Raises:
        UserError: No picture could be encoded, or pyarrow is absent.
    """
    if out.suffix == ".parquet":
        _pyarrow()
    parts = out.with_name(f".{out.name}.parts")
    _claim(parts, _fingerprint(model, images, align, refine))
    advance = progress("encoding", len(images.ids))
    result = Encoded()
    paths = []
    for start, batch in _batches(images):
        path = parts / f"{start:012d}.npz"
        if not path.exists():
            _encode_part(model, images, range(start, min(start + PART, len(images.ids))), batch(), align, refine, path)
        paths.append(path)
        with np.load(path, allow_pickle=False) as part:
            result.count += len(part["id"])
            for reason, name in zip(part["reason"].tolist(), part["left_out"].tolist(), strict=True):
                result.left_out.setdefault(reason, []).append(name)
        advance(min(PART, len(images.ids) - start))
    if not result.count:
        reason, names = next(iter(result.left_out.items()))
        raise EncodeError(f"no picture could be encoded; the first, {names[0]}: {reason}")
    _write_table(out, paths, len(model.sizes))
    shutil.rmtree(parts)
    return result


def _batches(images: Images) -> Iterator[tuple[int, Any]]:
    """(position, function that gives uint8 pixels (k, H, W, C) of PART samples, or None for pictures)."""
    if images.shards is None:
        yield from ((start, lambda: None) for start in range(0, len(images.ids), PART))
        return
    pixels: dict[str, np.ndarray] = {}

    def batch(start: int) -> np.ndarray:
        chosen = []
        for position in range(start, min(start + PART, len(images.ids))):
            split = images.splits[position]
            if split not in pixels:
                pixels.clear()
                pixels[split] = load_split(_shards(images), split, images.splits.count(split))[0]
            chosen.append(pixels[split][position - images.splits.index(split)])
        return np.stack(chosen)

    yield from ((start, lambda start=start: batch(start)) for start in range(0, len(images.ids), PART))


def _shards(images: Images) -> ShardSet:
    assert images.shards is not None
    return images.shards


def _encode_part(
    model: LadderModel,
    images: Images,
    positions: range,
    pixels: np.ndarray | None,
    align: Any,
    refine: int,
    path: Path,
) -> None:
    """Encodes some images and writes them with the reasons of those that cannot be read."""
    kept, left_out, reasons = [], [], []
    batches: list[Tensor] = []
    if pixels is not None:
        kept, batches = list(positions), [from_array(pixels)]
    else:
        assert images.files is not None
        for position in positions:
            try:
                batches.append(to_batch(images.files[position], model.image_processing, align)[0])
                kept.append(position)
            except UserError as error:
                left_out.append(images.ids[position])
                file = str(images.files[position])
                reasons.append(str(error).removeprefix(file).lstrip(": ").replace(file, "it"))
    codes = (
        model.encode(torch.cat(batches), refine=refine) if batches else [torch.empty(0, size) for size in model.sizes]
    )
    arrays = {f"layer{layer}": z.cpu().numpy() for layer, z in enumerate(codes)}
    for name, values in (("id", images.ids), ("label", images.labels), ("split", images.splits)):
        arrays[name] = np.array([values[position] for position in kept], dtype=np.str_)
    arrays |= {"left_out": np.array(left_out, dtype=np.str_), "reason": np.array(reasons, dtype=np.str_)}
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _fingerprint(model: LadderModel, images: Images, align: Any, refine: int) -> str:
    """Names a model, a list of pictures and options: parts of another one are not used."""
    digest = hashlib.sha256()
    for tensor in model.vlae.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    stamps = [[path.stat().st_size, path.stat().st_mtime_ns] for path in images.files or ()]
    source = images.shards.digest if images.shards else ""
    digest.update(json.dumps([images.ids, stamps, source, str(align), refine]).encode())
    return digest.hexdigest()


def _claim(parts: Path, fingerprint: str) -> None:
    """Makes the folder of parts, empty unless it holds parts of the same model, pictures and options."""
    name = parts / "fingerprint"
    if parts.is_dir() and (not name.is_file() or name.read_text() != fingerprint):
        shutil.rmtree(parts)
    parts.mkdir(parents=True, exist_ok=True)
    write_file(name, fingerprint.encode())


def _write_table(out: Path, paths: Sequence[Path], depth: int) -> None:
    columns = ["id", "label", "split", *(f"layer{layer}" for layer in range(depth))]
    if out.suffix == ".npz":
        loaded = [np.load(path, allow_pickle=False) for path in paths]
        arrays = {name: np.concatenate([part[name] for part in loaded]) for name in columns}
        with replace_file(out) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        return
    pa, pq = _pyarrow()
    with replace_file(out) as temporary:
        writer = None
        for path in paths:
            part = np.load(path, allow_pickle=False)
            table = pa.table({name: _column(pa, part[name]) for name in columns})
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _column(pa: Any, values: np.ndarray) -> Any:
    if values.ndim == 1:
        return pa.array(values.tolist(), pa.string())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.shape[1])


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise UsageError(".parquet needs pyarrow: pip install 'mmd-vlae[parquet]'; .npz works without") from None
    return pyarrow, pyarrow.parquet
