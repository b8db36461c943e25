"""Ranks that were started with different recipes, shards or code."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.drills.drill import Ground, Removal, drill
from tests.drills.trainer_runs import ranked

MAY_TAKE = 60


def _other_shards(ground: Ground) -> Path:
    """Shards of the same faces with fewer a file: other data, same shape."""
    other = ground.folder / "other-shards"
    words = ("celeba", "--source", ground.faces, "--out", other, "--size", 32, "--shard-size", 90)
    assert ground.run("preprocess", *words).returncode == 0
    return other


def _other_code(ground: Ground) -> Path:
    """A copy of the code with one comment more."""
    other = ground.folder / "other-code"
    for name in ("pipeline", "preprocess", "launch"):
        shutil.copytree(ground.code / name, other / name)
    with (other / "pipeline/mmd.py").open("a") as file:
        file.write("# another version\n")
    return other


def _changed(ground: Ground, kind: str, words: list[str]) -> list[str]:
    """One rank's command line with another recipe, other shards or other code."""
    if kind == "recipe":
        return [*words, "training.validation_samples=77"]
    if kind == "shards":
        return [str(_other_shards(ground)) if word == str(ground.shards) else word for word in words]
    return [str(_other_code(ground) / word) if word == "pipeline/train.py" else word for word in words]


@drill(
    "ranks that differ",
    "two ranks with another recipe, other shards or other code are refused at the start, the difference named",
    Removal(
        "the ranks' agreement",
        "pipeline/run_setup.py",
        "    agree(plan_of(config, source.digest))",
        "    plan_of(config, '')",
    ),
)
def ranks_that_differ(ground: Ground) -> str:
    """Starts two ranks rank by rank, once with each kind of difference (the short case: the recipe)."""
    named = {"recipe": "training.validation_samples", "shards": "manifest", "code": "pipeline/mmd.py"}
    kinds = list(named) if ground.full else ["recipe"]
    for kind in kinds:

        def differs(rank: int, words: list[str], kind: str = kind) -> list[str]:
            return _changed(ground, kind, words) if rank else words

        with ranked(ground, ground.folder / f"run-{kind}", steps=10, differs=differs) as run:
            assert run.ends(MAY_TAKE) == [1, 1], run.said()[-2000:]
        sentences = run.errors()
        assert sentences and "rank 1 has another" in sentences[0] and named[kind] in sentences[0], sentences
    return f"refused: {', '.join(kinds)}"
