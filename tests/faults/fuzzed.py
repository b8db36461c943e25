"""Damaged files by the thousand, read in processes whose memory is measured."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import REPOSITORY
from tests.faults.fault import Mutation, Workspace, fault

KINDS = ("annotation", "manifest", "recipe", "checkpoint", "zip", "tar", "parquet", "idx", "npy shard", "png shard")
MEMORY = 1024  # MiB, with torch, which takes half of it
SEED = 20


def fuzzed(workspace: Workspace, kinds: tuple[str, ...], count: int) -> dict[str, Any]:
    """Runs the fuzzer on some kinds in one process; its findings by kind."""
    room = workspace.folder / " ".join(kinds)
    words = ("-m", "tests.faults.fuzz", ",".join(kinds), count, SEED, room)
    done = workspace.run("python", *words, timeout=1500, env={"MALLOC_ARENA_MAX": "2"})
    assert done.returncode == 0, f"the reading process died ({done.returncode}): {done.stderr[-1500:]}"
    found = json.loads(done.stdout)
    for kind, result in found.items():
        findings = result["findings"]
        assert not findings, f"{len(findings)} of {count} files of kind {kind}, the first: {findings[0]}"
        assert result["outcomes"].get("refused", 0) > count // 10, f"{kind}: hardly a file is spoilt: {result}"
        assert result["peak_mib"] < MEMORY, f"{kind}: {result['peak_mib']} MiB"
    assert not list(room.rglob("canary")) and not (REPOSITORY / "canary").exists(), "something was executed"
    return found


def _summary(found: dict[str, Any]) -> str:
    parts = [
        f"{kind} {r['outcomes'].get('read', 0)} read, {r['outcomes']['refused']} refused" for kind, r in found.items()
    ]
    slowest, peak = max(r["slowest"] for r in found.values()), max(r["peak_mib"] for r in found.values())
    return f"{'; '.join(parts)}; the slowest in {slowest:.2f} s, peak {peak} MiB with torch"


@fault(
    "fuzzed images",
    "10,000 damaged images: pixels or a reason; no crash; no hang; memory below 1 GiB",
    Mutation("reason for errors of Pillow", "preprocess.images.decode:_decode_with_pillow", "shows_causes"),
    Mutation("reason for a JPEG that cannot be decoded", "preprocess.images.decode:_decode_jpeg", "shows_causes"),
)
def fuzzed_images(workspace: Workspace) -> str:
    return _summary(fuzzed(workspace, ("image",), 10_000 if workspace.full else 500))


@fault(
    "fuzzed files",
    "1,000 damaged files of each of 10 kinds (lists, manifests, recipes, checkpoints, zip, tar, parquet, IDX, npy and "
    "png shards): read or refused in one sentence; no crash; no hang; nothing executed; memory below 1 GiB",
    Mutation("limit of a list's lines", "preprocess.sources.list_lines:_MAX_LINE", "is_set_to", "1 << 60"),
    Mutation("message for errors of the YAML parser", "pipeline.config.load:read_recipe", "shows_causes"),
    Mutation("message for errors of torch.load", "pipeline.checkpoint.file:read_checkpoint", "shows_causes"),
    Mutation("reason for a damaged zip member", "preprocess.containers.zip_archive:_zip_member", "shows_causes"),
    Mutation(
        "message for a damaged parquet file",
        "preprocess.sources.parquet_files:one_sentence",
        "is_set_to",
        "contextlib.contextmanager(lambda path, kind=None: (None for _ in [0]))",
    ),
    Mutation(
        "comparison of an idx file's length with its shape",
        "preprocess.sources.mnist:_exactly",
        "is_set_to",
        "lambda file, size: bytearray(file.read())",
    ),
    Mutation(
        "message for damaged annotations in a shard", "preprocess.shards.reader:ShardSet._samples", "shows_causes"
    ),
    Mutation("message for a damaged member of a shard", "pipeline.data.shard_reader:stream_shard", "shows_causes"),
)
def fuzzed_files(workspace: Workspace) -> str:
    if not workspace.full:
        return _summary(fuzzed(workspace, KINDS, 120))
    return _summary({kind: result for kind in KINDS for kind, result in fuzzed(workspace, (kind,), 1000).items()})
