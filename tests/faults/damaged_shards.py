"""Eight ways in which a shard goes bad, for everything that reads shards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from preprocess.shards.manifest import Manifest
from preprocess.shards.tar import BLOCK
from tests.faults.every_sample_once import rows_of_an_epoch
from tests.faults.fault import Mutation, Workspace, fault, one_sentence
from tests.faults.trainer_runs import finish
from tests.launch.runs import logged_step
from tests.pipeline.launching import launch_words

TRAINED_STEPS = 30  # more than an epoch of the shards: a stream has then read every byte


def cut_at_a_member(path: Path, record: int) -> None:
    path.write_bytes(path.read_bytes()[: 5 * record])


def cut_in_a_header(path: Path, record: int) -> None:
    path.write_bytes(path.read_bytes()[: 5 * record + 200])


def cut_in_data(path: Path, record: int) -> None:
    path.write_bytes(path.read_bytes()[: 5 * record + BLOCK + 777])


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 8
    path.write_bytes(content)


def flip_in_a_header(path: Path, record: int) -> None:
    _flip(path, 5 * record + 130)  # the size field


def flip_in_data(path: Path, record: int) -> None:
    _flip(path, 5 * record + BLOCK + 777)


def empty(path: Path, _: int) -> None:
    path.write_bytes(b"")


def delete(path: Path, _: int) -> None:
    path.unlink()


def swap(path: Path, _: int) -> None:
    other = path.with_name("train-000002.tar")
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


DAMAGES: tuple[Callable[[Path, int], None], ...] = (
    *(cut_at_a_member, cut_in_a_header, cut_in_data, flip_in_a_header, flip_in_data),
    *(empty, delete, swap),
)
MODES = ("mapped", "resident", "streamed")
SHORT: dict[Callable[[Path, int], None], tuple[str, ...]] = {flip_in_data: ("mapped", "streamed"), swap: ("resident",)}


def damaged_copy(workspace: Workspace, name: str, damage: Callable[[Path, int], None], file: str) -> Path:
    """The shards with one of them damaged."""
    copy = workspace.folder / name
    shutil.copytree(workspace.shards, copy)
    layout = Manifest.read(copy).layout
    assert layout is not None
    damage(copy / file, layout.record_bytes)
    return copy


def training(workspace: Workspace, shards: Path, out: Path, mode: str, *more: str) -> str:
    """Trains on shards in one feed mode; what it says on stderr, with the exit code in front."""
    data = f"file://{shards}" if mode == "streamed" else ""
    words = launch_words(shards, out, f"data.mode={mode}", *more, steps=TRAINED_STEPS, data=data)
    done = workspace.run(*words)
    return f"{done.returncode} {done.stderr}"


@fault(
    "damaged shards",
    "cut at a member, in a header, in data; header bit, data bit; empty; deleted; swapped: all found before or while "
    "reading, the shard named, by every feed, `verify` and the report",
    Mutation(
        "comparison of a shard's SHA-256",
        "preprocess.shards.verify:damage_reason",
        "is_set_to",
        "lambda folder, shard, content=True: original(folder, shard, False)",
    ),
    Mutation("comparison of a stream's SHA-256", "pipeline.data.shard_reader:_Checked.is_whole", "returns", True),
    Mutation("content check of the report", "preprocess.shards.reader:ShardSet.check_content", "returns"),
)
def damaged_shards(workspace: Workspace) -> str:
    checkpoint = workspace.folder / "run/ckpt.pt"
    done = workspace.run(*launch_words(workspace.shards, workspace.folder / "run", steps=2))
    assert done.returncode == 0, done.stderr
    found = {"verify": 0, "report": 0, "mapped": 0, "resident": 0, "streamed": 0}
    for damage in DAMAGES if workspace.full else (flip_in_data, swap):
        name = damage.__name__
        shards = damaged_copy(workspace, name, damage, "train-000001.tar")
        verified = workspace.run("preprocess", "verify", shards)
        assert verified.returncode == 1 and f"{shards}/train-000001.tar: " in verified.stderr, verified.stderr
        found["verify"] += 1
        for mode in MODES if workspace.full else SHORT[damage]:
            said = training(workspace, shards, workspace.folder / f"{name} {mode}", mode)
            assert said.startswith("1 "), f"{mode}, {name}: trained on a damaged shard:\n{said}"
            one_sentence(said, "train-00000" if damage is swap else "train-000001.tar")
            found[mode] += 1
        if workspace.full or damage is flip_in_data:
            reported = workspace.run("analysis", "report", checkpoint, "--samples", 40, "--data", shards)
            assert reported.returncode == 1, f"report, {name}: a report was made of a damaged shard"
            one_sentence(reported.stderr, "train-000001.tar")
            found["report"] += 1
    return "found: " + ", ".join(f"{count} by {who}" for who, count in found.items())


@fault(
    "training without a damaged shard",
    "only with data.damaged=skip; the shard named once; the same images on all ranks; resumed only without the same "
    "shard",
    Mutation(
        "exchange of damaged shards between ranks",
        "pipeline.data.shard_checks:_on_all_ranks",
        "is_set_to",
        "lambda damaged, world_size: damaged",
    ),
    Mutation(
        "comparison of the shards left out, on resume", "pipeline.checkpoint.resume:_other_shards", "returns", [[], []]
    ),
    Mutation(
        "refusal to skip damaged shards of a stream",
        "pipeline.data.shard_checks:usable_shards",
        "is_set_to",
        "lambda source, data, *ranks: (source, []) if source.local is None else original(source, data, *ranks)",
    ),
)
def training_without_a_damaged_shard(workspace: Workspace) -> str:
    run, skip = workspace.folder / "run", "data.damaged=skip"
    shards = damaged_copy(workspace, "shards", flip_in_data, "train-000001.tar")
    samples = {shard.file: shard.samples for shard in Manifest.read(shards).splits["train"].shards}
    left = sum(samples.values()) - samples["train-000001.tar"]

    said = finish(replace(workspace, shards=shards), run, skip, steps=4).said()
    named = said.count("left out train-000001.tar")
    assert named == 1, f"the shard left out was named {named} times:\n{said}"
    assert f"left out train-000001.tar ({samples['train-000001.tar']} images)" in said, said
    assert f" {left:,} training images" in said, said
    if workspace.full:
        rows = rows_of_an_epoch(workspace, shards, ranks=2, workers=0, mode="mapped", damaged="skip")
        assert len(rows) == len(set(rows)) == left // 24 * 24, f"{len(rows)} of {left}"

    shutil.copy(workspace.shards / "train-000001.tar", shards)
    refused = workspace.run(*launch_words(shards, run, skip, steps=8))
    assert refused.returncode == 1, "resumed with a shard that was left out before"
    one_sentence(refused.stderr, "without train-000001.tar")
    flip_in_data(shards / "train-000001.tar", 20_000)
    resumed = workspace.run(*launch_words(shards, run, skip, steps=8))
    assert resumed.returncode == 0 and "at step 4" in resumed.stderr, resumed.stderr
    assert logged_step(run) >= 5

    streamed = workspace.run(*launch_words(shards, workspace.folder / "streamed", skip, data=f"file://{shards}"))
    assert streamed.returncode != 0, "a stream was trained on with data.damaged=skip"
    one_sentence(streamed.stderr, "data.damaged=skip needs shards in a folder")
    return (
        f"2 ranks trained on {left} of {sum(samples.values())} images and named the shard that they did without; "
        "resumed without it they continued, with the shard repaired they refused; an address was refused"
    )
