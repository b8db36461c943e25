"""Sets of shards made to do harm, with manifests that fit them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

from pipeline.data.mapped import ShardRegion
from pipeline.data.shard_reader import open_source, stream_shard
from preprocess.shards.manifest import Manifest
from preprocess.shards.reader import ShardError, ShardSet
from preprocess.shards.storage import open_shard_files
from preprocess.shards.tar import END_OF_ARCHIVE, layout_of, member_header
from preprocess.shards.verify import verify
from tests.faults.fuzz.files import small_manifest
from tests.faults.fuzz.shards import SHAPE, npy_shard, png_shard
from tests.faults.hostile.case import Case, Payload

_RECORD = layout_of(SHAPE, 300).record_bytes


def _member(name: str, content: bytes, kind: bytes = b"0", link: str = "") -> bytes:
    """A member as a general tar writer makes it."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = (0 if link else len(content)), kind, link
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()[: 512 + -(-info.size // 512) * 512]


def _read_png(folder: Path, data: bytes) -> None:
    """Streams and verifies a compressed shard; raises what either says."""
    plain = _manifest(data, 10) | {"codec": "png", "layout": None}
    _write(folder, plain, data)
    problems = verify(open_shard_files(str(folder)), Manifest.read(folder), lambda _: None)
    source = open_source(str(folder), False)
    for block in stream_shard(source, source.shards("train")[0]):
        assert block.shape[1:] == SHAPE
    if problems:
        raise ShardError(problems[0])
    ShardSet.open(folder).annotations("train")


def _with_member(folder: Path, *member: Any) -> None:
    """Reads a compressed shard that begins with one more member."""
    _read_png(folder, _member(*member) + png_shard())


def _read_npy(folder: Path, data: bytes, **changes: Any) -> None:
    """Maps, streams and verifies an npy shard."""
    _write(folder, _manifest(data, 10) | changes, data)
    shards = ShardSet.open(folder)
    shards.check_content("train")
    problems = verify(open_shard_files(str(folder)), Manifest.read(folder), lambda _: None)
    if problems:
        raise ShardError(problems[0])
    region = ShardRegion(shards, "train")
    region.read_ahead.join()
    shards.annotations("train")


def _manifest(data: bytes, samples: int) -> dict[str, Any]:
    plain = small_manifest().model_dump(mode="json")
    shard = {"file": "train-000000.tar", "samples": samples, "bytes": len(data)}
    shard["sha256"] = hashlib.sha256(data).hexdigest()
    plain["splits"] = {"train": {"samples": samples, "shards": [shard]}}
    return plain


def _write(folder: Path, plain: dict[str, Any], data: bytes) -> None:
    (folder / "train-000000.tar").write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(plain))


def _payload(folder: Path, name: str) -> None:
    _with_member(folder, name, pickle.dumps(Payload(folder / "canary")))


def _npy_payload(folder: Path) -> None:
    """A record whose image is called a pickle."""
    data = bytearray(npy_shard())
    size = int(bytes(data[124:135]), 8)
    data[:512] = member_header(b"000000.image.pyd", size)
    _read_npy(folder, bytes(data))


def _sparse(folder: Path) -> None:
    """A hole of 8 GB in a member of GNU's sparse kind."""
    header = bytearray(_member("000000.json", b"", b"S"))
    header[386:398], header[398:410] = b"%011o\0" % (8 << 30), b"%011o\0" % 0
    header[483:495] = b"%011o\0" % (8 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    _read_png(folder, bytes(header) + png_shard())


def _named(folder: Path, name: str) -> None:
    data = npy_shard()
    plain = _manifest(data, 10)
    plain["splits"]["train"]["shards"][0]["file"] = name
    _write(folder, plain, data)
    ShardSet.open(folder)


def _linked(folder: Path) -> None:
    data, inside = npy_shard(), folder / "set"
    inside.mkdir()
    _write(inside, _manifest(data, 10), data)
    (inside / "train-000000.tar").rename(folder / "elsewhere.tar")
    (inside / "train-000000.tar").symlink_to(folder / "elsewhere.tar")
    ShardSet.open(inside).check_sizes()


def _claims(folder: Path, samples: int, size: int) -> None:
    plain = _manifest(npy_shard(), samples)
    plain["splits"]["train"]["shards"][0]["bytes"] = size
    _write(folder, plain, npy_shard())
    shards = ShardSet.open(folder)
    shards.check_sizes()
    shards.annotations("train")


def _parsed(folder: Path, text: bytes) -> None:
    (folder / "manifest.json").write_bytes(text)
    Manifest.read(folder)


def _claimed_size(folder: Path) -> None:
    _read_png(folder, member_header(b"000000.png", (1 << 33) - 1) + END_OF_ARCHIVE * 30)


CASES = (
    *(
        Case(f"a pickle named {name}", lambda room, name=name: _payload(room, name), f"holds a member '{name}'")
        for name in ("000000.pyd", "000000.pkl", "000000.pth")
    ),
    Case("a pickle in a mapped record", _npy_payload, "one of its records is not an image"),
    Case("a name with ../", lambda room: _with_member(room, "../../canary.png", b"x"), "../../canary.png"),
    Case("an absolute name", lambda room: _with_member(room, "/tmp/canary.png", b"x"), "/tmp/canary.png"),
    Case("a symlink", lambda room: _with_member(room, "0.json", b"", b"2", "/etc/passwd"), "a link"),
    Case("a hard link", lambda room: _with_member(room, "0.json", b"", b"1", "/etc/passwd"), "a link"),
    Case("a hole of 8 GB", _sparse, "special entry"),
    Case(
        "a compressed shard", lambda room: _read_png(room, gzip.compress(bytes(1 << 28)) + bytes(30_000)), "is damaged"
    ),
    Case("a member of 8 GB", _claimed_size, "claims to have"),
    Case(
        "JSON nested 100,000 deep",
        lambda room: _read_png(room, png_shard([b"[" * 100_000] * 10)),
        "annotations of its sample 0",
    ),
    Case(
        "JSON of other names",
        lambda r: _read_png(r, png_shard([b'{"key":"a","attributes":{"x":1}}'] * 10)),
        "does not name",
    ),
    Case("a shard named ../x.tar", lambda room: _named(room, "../x.tar"), "plain file name"),
    Case("a shard named /etc/passwd", lambda room: _named(room, "/etc/passwd"), "plain file name"),
    Case("a shard that is a link", _linked, "a link out of its folder"),
    Case("10^12 samples", lambda room: _claims(room, 10**12, len(npy_shard())), "cannot hold"),
    Case("10^12 samples and their bytes", lambda room: _claims(room, 10**9, 10**9 * _RECORD + 1024), "should have"),
    Case(
        "images of 10^5 pixels a side",
        lambda room: _read_npy(room, npy_shard(), image_shape=[100_000] * 2 + [3]),
        "pixels a",
    ),
    Case("a manifest nested 100,000 deep", lambda room: _parsed(room, b"[" * 100_000), "not valid JSON"),
    Case(
        "a manifest of 40 MB", lambda room: _parsed(room, b"[" + b"[]," * 13_500_000 + b"[]]"), "that is not a manifest"
    ),
)
