"""The manifest of a set of shards: written last and atomically, checked whenever it is read.

`ShardSpec` is known before the first image is read: source, crop, size, names. `Manifest` adds the finished shards and
the images left out. Both are plain JSON.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from preprocess.choices import MANIFEST_NAME, MAX_SIDE, Codec, Faces, Resample
from preprocess.errors import ManifestError
from preprocess.images.crop_resize import Crop
from preprocess.shards.annotations import ColumnNames
from preprocess.shards.tar import END_OF_ARCHIVE, IMAGE_MEMBER, Layout, layout_of

SCHEMA_VERSION = 2  # 2: landmarks
READABLE_VERSIONS = (1, 2)
MAX_MANIFEST_BYTES = 1 << 25  # parsed JSON takes up to twenty times as much memory
NO_FACE = "no face was found"  # why a picture is left out that was to be aligned
SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
_LEAST_COMPRESSED_BYTES = 2048  # two members, each a header and a body of at least one block


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # --help and errors build no validators


def _is_plain(name: str) -> bool:
    """Whether a name stays in its folder, on every system."""
    return name not in {"", ".", ".."} and name == Path(name).name and "\\" not in name and "\0" not in name


def _plain_file_name(name: str) -> str:
    if not _is_plain(name):
        raise ValueError(f"{name!r} is not a plain file name")
    return name


Count = Annotated[int, Field(gt=0, lt=2**62)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Source(_Frozen):
    """The source of the images. The fingerprint covers names, sizes and annotations, not the location."""

    kind: str
    fingerprint: Sha256
    images: NonNegativeInt


class Shard(_Frozen):
    """One shard: its file name, samples, size in bytes and SHA-256 (64 hex digits)."""

    file: Annotated[str, AfterValidator(_plain_file_name)]
    samples: Count
    bytes: Count
    sha256: Sha256


class Split(_Frozen):
    """The shards of one split, in order."""

    samples: NonNegativeInt
    shards: tuple[Shard, ...]

    @model_validator(mode="after")
    def _adds_up(self) -> Split:
        if sum(shard.samples for shard in self.shards) != self.samples:
            raise ValueError(f"the shards do not add up to {self.samples:,} samples")
        return self


def _can_hold(shard: Shard, layout: Layout | None) -> bool:
    """Whether a shard's file can have the samples that the manifest states; `layout` is None for compressed images."""
    if layout is not None:
        return shard.bytes == shard.samples * layout.record_bytes + len(END_OF_ARCHIVE)
    return shard.bytes >= shard.samples * _LEAST_COMPRESSED_BYTES + len(END_OF_ARCHIVE)


class LeftOut(_Frozen):
    """An image of the source that is not in the shards, and the reason."""

    key: str
    reason: str


class IgnoredFiles(_Frozen):
    """Files of the source that are not images of it, for one reason: `names` lists the first 5,000 of `files`."""

    reason: str
    files: NonNegativeInt
    names: tuple[str, ...]


class ShardSpec(_Frozen):
    """Everything that determines the bytes of the shards: equal specifications make equal shards."""

    schema_version: int = SCHEMA_VERSION
    source: Source
    crop: Crop
    resample: Resample
    codec: Codec
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]  # H, W, C
    attribute_names: tuple[str, ...]
    factor_names: tuple[str, ...]
    label_names: tuple[str, ...] = ()  # where labels are folders: label i is label_names[i]
    landmark_names: tuple[str, ...] = ()  # in pixels of the source image, before the crop
    layout: Layout | None  # None where samples differ in size, as compressed images do
    seed: int
    shard_size: PositiveInt
    limit: PositiveInt | None
    source_size: tuple[PositiveInt, PositiveInt] | None = None  # H, W that the crop refers to; None where sizes differ
    align: Faces | None = None  # which faces of each picture were brought into CelebA's frame

    @property
    def column_names(self) -> ColumnNames:
        """The names of attributes, factors and landmarks."""
        return self.attribute_names, self.factor_names, self.landmark_names

    def differences(self, other: ShardSpec) -> list[str]:
        """Returns one phrase for each field in which `other`, the new specification, differs from this one."""
        found = []
        for name in ShardSpec.model_fields:
            old, new = getattr(self, name), getattr(other, name)
            if old == new or name in {"layout", "source_size"}:  # these follow from the other fields
                continue
            if name == "source":
                found.append(f"another source ({old.kind}, {old.images:,} images there)")
            elif name.endswith("_names"):
                found.append(f"other {name.replace('_', ' ')} ({len(old)} there, {len(new)} now)")
            else:
                found.append(f"{name.replace('_', ' ')} {_brief(old)} there, {_brief(new)} now")
        return found


class Manifest(ShardSpec):
    """A specification with the shards that were made of it."""

    splits: dict[SplitName, Split]
    left_out: tuple[LeftOut, ...]
    ignored: tuple[IgnoredFiles, ...] = ()

    @model_validator(mode="after")
    def _is_possible(self) -> Manifest:
        """Checks the numbers by which memory is allocated and addressed; readers compare the files' sizes with them."""
        height, width, channels = self.image_shape
        if max(height, width) > MAX_SIDE or channels not in {1, 3}:
            raise ValueError(f"images must have 1 or 3 channels and up to {MAX_SIDE} pixels a side")
        fits = self.layout is None or self.layout == layout_of(self.image_shape, self.layout.json_bytes)
        if not fits or (self.layout is None) == (self.codec == "npy"):
            raise ValueError(f"the layout does not fit {self.codec} images of {_brief(self.image_shape)}")
        shards = [shard for split in self.splits.values() for shard in split.shards]
        if len({shard.file for shard in shards}) != len(shards):
            raise ValueError("it names a shard twice")
        for shard in shards:
            if not _can_hold(shard, self.layout):
                raise ValueError(f"{shard.file} cannot hold {shard.samples:,} samples in {shard.bytes:,} bytes")
        return self

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads and checks `folder`/manifest.json.

        Raises:
            ManifestError: it is missing, not JSON, of another schema version, or has fields with wrong values.
        """
        path = Path(folder) / MANIFEST_NAME
        try:
            with path.open("rb") as file:
                content = file.read(MAX_MANIFEST_BYTES + 1)
        except FileNotFoundError:
            content = None
        except NotADirectoryError:
            raise ManifestError(f"{folder} is a file, not a folder of shards") from None
        except OSError as error:
            raise ManifestError(f"{path} cannot be read: {error.strerror}") from None
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: bytes | None, where: str) -> Manifest:
        """Parses and checks the content of a manifest; `where` names its file in messages.

        Raises:
            ManifestError: it is missing (None), not JSON, of another schema version, or has fields with wrong values.
        """
        if content is None:
            folder = where.removesuffix(MANIFEST_NAME).rstrip("/") or Path(where).parent
            raise ManifestError(
                f"{where} does not exist: {folder} holds no finished shards; make them with `preprocess celeba`"
            )
        if len(content) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{where} has more than {MAX_MANIFEST_BYTES:,} bytes: that is not a manifest")
        try:
            plain = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{where} is not valid JSON ({error}); make the shards again") from None
        version = plain.get("schema_version") if isinstance(plain, dict) else None
        if version not in READABLE_VERSIONS:
            raise ManifestError(
                f"{where} has schema version {version!r} and this program reads up to {SCHEMA_VERSION}: "
                "make the shards again with this version of preprocess"
            )
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            name = f"{field[:100]}: " if field else ""
            raise ManifestError(f"{where}: {name}{first['msg'].removeprefix('Value error, ')[:300]}") from None

    def digest(self) -> str:
        """Returns the SHA-256 of the canonical JSON, as 64 hex digits, which identifies this set of shards."""
        # without unset fields, so that a field of a later version does not change the digest of older sets
        plain = self.model_dump(mode="json", exclude_unset=True)
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def image_suffix(self) -> str:
        """The ending of the image members' names in the shards' archives."""
        return IMAGE_MEMBER if self.codec == "npy" else f".{self.codec}"

    @property
    def samples(self) -> int:
        """Number of samples in all splits."""
        return sum(split.samples for split in self.splits.values())


def _brief(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(str(part) for part in value)
    return "none" if value is None else str(value)
