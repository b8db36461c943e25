"""Annotation lists, manifests, recipes, checkpoints, and the archives that data sets come in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.checkpoint.file import CheckpointError, load_vlae, write_checkpoint
from pipeline.config.load import resolve, to_yaml
from pipeline.config.schema import Config, ConfigError, ModelConfig
from pipeline.model.vlae import VLAE
from preprocess.containers.container import Container
from preprocess.containers.tar_archive import TarContainer
from preprocess.containers.zip_archive import ZipContainer
from preprocess.errors import UnreadableImage, UsageError, UserError
from preprocess.shards.manifest import Crop as Cropped
from preprocess.shards.manifest import Manifest, ManifestError, Shard, ShardSpec, Source, Split
from preprocess.shards.tar import layout_of
from preprocess.sources.celeba_lists import (
    Columns,
    read_attributes,
    read_factors,
    read_identities,
    read_landmarks,
    read_partition,
)
from preprocess.sources.celeba_parquet import open_parquet
from preprocess.sources.mnist import open_mnist
from tests.faults.fuzz.images import image_seeds
from tests.faults.fuzz.mutations import TEXT, mutated
from tests.faults.fuzz.target import Target

_ROWS = range(1, 20)
_LISTS: dict[bytes, tuple[list[str], Callable[[bytes], Columns]]] = {
    b"attributes": (
        [
            "19\nMale Smiling \n" + "".join(f"{n:06d}.jpg  1 -1\n" for n in _ROWS),
            "image_id,Male,Smiling\n" + "".join(f"{n:06d}.jpg,1,-1\r\n" for n in _ROWS),
        ],
        lambda content: read_attributes(content, "list"),
    ),
    b"landmarks": (
        ["19\nx y\n" + "".join(f"{n:06d}.jpg {n} {-n}\n" for n in _ROWS)],
        lambda content: read_landmarks(content, "list"),
    ),
    b"partition": (
        ["".join(f"{n:06d}.jpg {n % 3}\n" for n in _ROWS), "image_id,partition\n000001.jpg,0\n000002.jpg,2\n"],
        lambda content: read_partition(content, "list"),
    ),
    b"identity": (
        ["".join(f"{n:06d}.jpg {n * 7}\n" for n in _ROWS)],
        lambda content: read_identities(content, "list"),
    ),
    b"factors": (
        ["image,azimuth,size\n" + "".join(f"{n:06d}.jpg,{n / 7},\n" for n in _ROWS)],
        lambda content: read_factors(content, "list"),
    ),
}


def annotations(_: Path) -> Target:
    """CelebA's lists, in the official form and as CSV."""

    def make(chance: random.Random) -> bytes:
        name = chance.choice(list(_LISTS))
        return name + b":" + mutated([text.encode() for text in _LISTS[name][0]], chance, TEXT)

    def read(data: bytes) -> None:
        name, _, content = data.partition(b":")
        found = _LISTS[name][1](content)
        assert len(found.files) == len(found.values) == len(found.rows) and found.values.ndim == 2

    return Target(make, read, (UsageError,))


def small_manifest() -> Manifest:
    """Of 32 x 32 images in two shards."""
    layout = layout_of((32, 32, 3), 300)
    size = 10 * layout.record_bytes + 1024
    recipe = ShardSpec(
        source=Source(kind="images", fingerprint="0" * 64, images=20),
        crop=Cropped(kind="center", size=148),
        resample="bilinear",
        codec="npy",
        image_shape=(32, 32, 3),
        attribute_names=("Male",),
        factor_names=(),
        layout=layout,
        seed=0,
        shard_size=10,
        limit=None,
    )
    shards = {
        name: Shard(file=f"{name}-000000.tar", samples=10, bytes=size, sha256="0" * 64) for name in ("train", "valid")
    }
    splits = {name: Split(samples=10, shards=(shard,)) for name, shard in shards.items()}
    return Manifest.model_validate(dict(recipe) | {"splits": splits, "left_out": ()})


def manifests(_: Path) -> Target:
    """A manifest's JSON: as bytes, and with one of its values made another."""
    whole = json.dumps(small_manifest().model_dump(mode="json"), indent=1).encode()

    def read(data: bytes) -> None:
        assert len(Manifest.parse(data, "manifest.json").digest()) == 64

    return Target(lambda chance: mutated([whole], chance, TEXT), read, (ManifestError,))


def recipes(folder: Path) -> Target:
    """A recipe's YAML."""
    whole = to_yaml(Config()).encode()
    path = folder / "recipe.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        resolve(path, {"training": {"steps": 3}})

    return Target(lambda chance: mutated([whole], chance, TEXT), read, (ConfigError,))


def checksummed(content: bytes) -> bytes:
    """The bytes of a checkpoint with a valid checksum, which anyone can write."""
    content = content[:-2] + (71).to_bytes(2, "little")
    return content + b"sha256:" + hashlib.sha256(content).hexdigest().encode()


def small_checkpoint() -> dict[str, Any]:
    """What a checkpoint of a small model holds."""
    model = ModelConfig(layers=("8/2", "fc16"), latents=(2, 2))
    return {
        "schema_version": 1,
        "config": Config(model=model).plain(),
        "image_shape": [3, 8, 8],
        "model": VLAE(model, (3, 8, 8)).state_dict(),
        "ema": None,
        "progress": {"step": 3, "samples": 30},
        "manifest_digest": "0" * 64,
        "data": "shards",
    }


def checkpoints(folder: Path) -> Target:
    """Spoilt and checksummed again, half of them inside the pickle of an otherwise whole archive."""
    whole = write_checkpoint(folder, small_checkpoint(), keep=1).read_bytes()[:-71]  # without its checksum
    path = folder / "fuzzed.pt"
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.1:
            return mutated([whole], chance)
        if chance.random() < 0.3:
            return checksummed(mutated([whole], chance))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, mutated([content], chance) if name == pickled else content)
        return checksummed(out.getvalue())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_vlae(path)

    return Target(make, read, (CheckpointError,))


def _read_all(images: object) -> None:
    for image in images:  # pyright: ignore[reportGeneralTypeIssues]
        assert isinstance(image, UnreadableImage) or (image.dtype == np.uint8 and image.ndim == 3), image


def _archived() -> dict[str, bytes]:
    """Names and contents of the members of an archive: images and a list."""
    images = {f"img_align_celeba/{number:06d}.jpg": image for number, image in enumerate(image_seeds()[:4])}
    return images | {"list_eval_partition.txt": b"000000.jpg 0\n000001.jpg 1\n"}


def _read_container(container: Container, scratch: Path) -> None:
    assert all(isinstance(text, str) for pair in container.identity() for text in pair)
    for name in container.lists:
        container.text(name)
    if container.unpack:
        container.unpack(scratch)
    _read_all(container.reader(container.names, scratch).pixels())


def zips(folder: Path) -> Target:
    """Archives of images and a list, stored and deflated."""
    seeds, path = [], folder / "fuzzed.zip"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, content in _archived().items():
                archive.writestr(name, content)
        seeds.append(out.getvalue())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _read_container(ZipContainer(path), folder)

    return Target(lambda chance: mutated(seeds, chance), read, (UsageError,))


def tars(folder: Path) -> Target:
    """Archives of images and a list, plain and compressed."""
    seeds, path, scratch = [], folder / "fuzzed.tar", folder / "scratch"
    scratch.mkdir()
    for mode in ("w", "w:gz", "w:xz"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as archive:
            for name, content in _archived().items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        seeds.append(out.getvalue())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _read_container(TarContainer(path), scratch)

    return Target(lambda chance: mutated(seeds, chance), read, (UsageError,))


def parquets(folder: Path) -> Target:
    """Hugging Face's CelebA."""
    import pyarrow as pa  # pyright: ignore[reportMissingImports]
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    seeds, path = [], folder / "fuzzed.parquet"
    cells = [{"bytes": image, "path": f"{number:06d}.jpg"} for number, image in enumerate(image_seeds()[:6])]
    table = pa.table({"image": cells, "Male": [True] * 6, "celeb_id": list(range(6))})
    for compression in ("none", "snappy"):
        out = io.BytesIO()
        parquet.write_table(table, out, compression=compression)
        seeds.append(out.getvalue())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        catalogue = open_parquet(path, 0, None)
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        assert catalogue.unpack is not None
        catalogue.unpack(scratch)
        _read_all(catalogue.reader(range(len(catalogue.table)), scratch).pixels())

    return Target(lambda chance: mutated(seeds, chance), read, (UsageError, UserError))


def idx(folder: Path) -> Target:
    """MNIST's images, plain and gzipped; the three other files stay whole."""
    images = struct.pack(">IIII", 2051, 30, 28, 28) + bytes(30 * 28 * 28)
    labels = struct.pack(">II", 2049, 30) + bytes(30)
    for part in ("train", "t10k"):
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    (folder / "t10k-images-idx3-ubyte").write_bytes(images)
    seeds = [images, gzip.compress(images, mtime=0)]
    places = [folder / f"train-images-idx3-ubyte{end}" for end in ("", ".gz")]

    def read(data: bytes) -> None:
        for place in places:
            place.unlink(missing_ok=True)
        places[data.startswith(b"\x1f\x8b")].write_bytes(data)
        from preprocess.sources import mnist

        mnist._read.cache_clear()  # pyright: ignore[reportPrivateUsage]
        _read_all(open_mnist(folder, 0).reader(range(3), folder).pixels())

    return Target(lambda chance: mutated(seeds, chance), read, (UsageError,))


warnings.simplefilter("error")  # a flood of warnings is a finding
torch.set_num_threads(1)
