"""Codes of many pictures as one table: a folder of pictures or of shards to a .parquet or .npz file.

Finished parts lie in ``.NAME.parts/`` beside the table, so that the same command resumes after a kill.
Letters in shapes: n images, d latent dimensions of a layer.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
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
    files: Sequence[Path] = ()
    """Pictures; none for shards."""
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
    present, known = shards.manifest.splits, shards.manifest.label_names
    if split and split not in present:
        raise UsageError(f"{folder} has no split {split}; it has {', '.join(present)}")
    images = Images([], [], [], shards=shards)
    for name in [split] if split else [name for name in SPLITS if name in present]:
        notes = shards.annotations(name)
        labels = notes.label.tolist()
        images.ids.extend(notes.keys)
        images.labels.extend("" if i < 0 else known[i] if i < len(known) else str(i) for i in labels)
        images.splits.extend([name] * len(labels))
    return images


def encode_all(model: LadderModel, images: Images, align: Any, refine: int, out: Path, progress: Progress) -> Encoded:
    """Writes ids, labels, splits and each layer's codes.

    Args:
        model: Encodes.
        images: Of ``find_images``.
        align: "auto", "on" or "off", for pictures.
        refine: See ``LadderModel.encode``.
        out: .npz: arrays ``id``, ``label``, ``split`` and ``layer0`` (n, d) float32, …; .parquet: such columns, a
            layer's being lists of d numbers.
        progress: Told what is being done.

    Raises:
        UserError: No picture could be encoded, the shards hold images of another size, or pyarrow is absent.
    """
    shape = model.image_processing.image_shape
    if images.shards and (found := images.shards.manifest.image_shape) != shape:
        raise UsageError(
            f"{images.shards.folder} holds images of {found[0]}x{found[1]}x{found[2]} (height x width x channels), the "
            f"model takes {shape[0]}x{shape[1]}x{shape[2]}: name shards of that size"
        )
    if out.suffix == ".parquet":
        _pyarrow()
    parts = out.with_name(f".{out.name}.parts")
    _claim(parts, _fingerprint(model, images, align, refine))
    advance = progress("encoding", len(images.ids))
    result, paths, pixels = Encoded(), [], _reader(images)
    for start in range(0, len(images.ids), PART):
        positions = range(start, min(start + PART, len(images.ids)))
        paths.append(parts / f"{start:012d}.npz")
        if not paths[-1].exists():
            _encode_part(model, images, positions, pixels, align, refine, paths[-1])
        with np.load(paths[-1], allow_pickle=False) as part:
            result.count += len(part["id"])
            for reason, name in zip(part["reason"].tolist(), part["left_out"].tolist(), strict=True):
                result.left_out.setdefault(reason, []).append(name)
        advance(len(positions))
    if not result.count:
        reason, names = next(iter(result.left_out.items()))
        raise EncodeError(f"no picture could be encoded; the first, {names[0]}: {reason}")
    _write_table(out, paths, len(model.sizes))
    shutil.rmtree(parts)
    return result


def _reader(images: Images) -> Callable[[int], np.ndarray]:
    """Gives the uint8 pixels (H, W, C) of a sample of shards; one split is in memory at a time."""

    @lru_cache(maxsize=1)
    def loaded(split: str) -> tuple[int, np.ndarray]:
        assert images.shards is not None
        return images.splits.index(split), load_split(images.shards, split, images.splits.count(split))[0]

    def pixels(position: int) -> np.ndarray:
        first, split = loaded(images.splits[position])
        return split[position - first]

    return pixels


def _encode_part(
    model: LadderModel,
    images: Images,
    positions: range,
    pixels: Callable[[int], np.ndarray],
    align: Any,
    refine: int,
    path: Path,
) -> None:
    """Encodes some images and writes them with the reasons of those that cannot be read."""
    kept: list[int] = []
    left_out: dict[str, str] = {}
    batches: list[Tensor] = []
    if images.shards is not None:
        kept, batches = list(positions), [from_array(np.stack([pixels(position) for position in positions]))]
    for position in positions if images.files else ():
        try:
            batches.append(to_batch(images.files[position], model.image_processing, align)[0])
            kept.append(position)
        except UserError as error:
            file = str(images.files[position])
            left_out[images.ids[position]] = str(error).removeprefix(file).lstrip(": ").replace(file, "it")
    empty = [torch.empty(0, size) for size in model.sizes]
    codes = model.encode(torch.cat(batches), refine=refine) if batches else empty
    arrays = {f"layer{layer}": z.cpu().numpy() for layer, z in enumerate(codes)}
    columns = {"id": images.ids, "label": images.labels, "split": images.splits}
    texts = {name: [values[position] for position in kept] for name, values in columns.items()}
    texts |= {"left_out": [*left_out], "reason": [*left_out.values()]}
    arrays |= {name: np.array(values, dtype=np.str_) for name, values in texts.items()}
    _save(path, arrays)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _fingerprint(model: LadderModel, images: Images, align: Any, refine: int) -> str:
    """Names a model, a list of pictures and options: parts of another one are not used."""
    digest = hashlib.sha256()
    for tensor in model.vlae.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    stamps = [[path.stat().st_size, path.stat().st_mtime_ns] for path in images.files]
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
    parts = (np.load(path, allow_pickle=False) for path in paths)
    if out.suffix == ".npz":
        loaded = list(parts)
        _save(out, {name: np.concatenate([part[name] for part in loaded]) for name in columns})
        return
    pa, pq = _pyarrow()
    tables = (pa.table({name: _column(pa, part[name]) for name in columns}) for part in parts)
    first = next(tables)
    with replace_file(out) as temporary, pq.ParquetWriter(temporary, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


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
