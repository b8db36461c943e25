"""Damaged shards with manifests that fit them: a SHA-256 says only that nothing changed since the file was made."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np

from pipeline.data.batch import LoaderError
from pipeline.data.mapped import ShardRegion
from pipeline.data.shard_reader import open_source, stream_shard
from preprocess.images.codecs import encode
from preprocess.shards.atomic import write_json
from preprocess.shards.manifest import MANIFEST_NAME, Codec, Manifest, ManifestError
from preprocess.shards.reader import ShardError, ShardSet
from preprocess.shards.storage import open_shard_files
from preprocess.shards.tar import END_OF_ARCHIVE, encoded_record, layout_of, npy_record
from preprocess.shards.verify import verify
from tests.faults.fuzz.files import small_manifest
from tests.faults.fuzz.mutations import mutated
from tests.faults.fuzz.target import Target

SHAPE = (32, 32, 3)
_KEYS = [f"{number:06d}" for number in range(10)]
_TEXTS = [f'{{"key":"{key}","attributes":{{"Male":1}}}}'.encode() for key in _KEYS]
_IMAGES = np.zeros((10, *SHAPE), np.uint8)


def npy_shard() -> bytes:
    """A shard of 10 images that can be mapped."""
    samples = zip(_KEYS, _IMAGES, _TEXTS, strict=True)
    return b"".join(npy_record(*sample, layout_of(SHAPE, 300)) for sample in samples) + END_OF_ARCHIVE


def png_shard(texts: list[bytes] = _TEXTS) -> bytes:
    """A compressed shard of 10 images with these annotations."""
    samples = zip(_KEYS, _IMAGES, texts, strict=True)
    return b"".join(encoded_record(key, "png", encode(image, "png"), text) for key, image, text in samples) + (
        END_OF_ARCHIVE
    )


def npy_shards(folder: Path) -> Target:
    """Mapped, gathered and streamed."""
    return _shards(folder, "npy", npy_shard())


def png_shards(folder: Path) -> Target:
    """Streamed only."""
    return _shards(folder, "png", png_shard())


def _shards(folder: Path, codec: Codec, whole: bytes) -> Target:
    plain = small_manifest()

    def read(data: bytes) -> None:
        size = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        splits = {}
        for name, split in plain.splits.items():
            (folder / f"{name}-000000.tar").write_bytes(data)
            splits[name] = split.model_copy(update={"shards": (split.shards[0].model_copy(update=size),)})
        layout = plain.layout if codec == "npy" else None
        manifest = plain.model_copy(update={"splits": splits, "codec": codec, "layout": layout})
        write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))
        _read(folder)

    def make(chance: random.Random) -> bytes:
        data = mutated([whole], chance)  # npy shards of another length are refused by the manifest: keep some
        return data if codec != "npy" or chance.random() < 0.2 else data[: len(whole)].ljust(len(whole), b"\0")

    return Target(make, read, (ShardError, LoaderError, ManifestError))


def _read(folder: Path) -> None:
    shards = ShardSet.open(folder)
    assert isinstance(Manifest.read(folder).samples, int)
    assert all(
        "\n" not in problem for problem in verify(open_shard_files(str(folder)), shards.manifest, lambda _: None)
    )
    shards.check_content("train")
    if shards.manifest.layout is not None:
        region = ShardRegion(shards, "train")
        region.read_ahead.join()
    assert len(shards.annotations("train").keys) == shards.manifest.splits["train"].samples
    source = open_source(str(folder), False)
    for block in stream_shard(source, source.shards("train")[0]):
        assert block.shape[1:] == shards.manifest.image_shape
