"""Ranks that were not started alike."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import REPOSITORY, make_shards
from tests.faults.fault import Mutation, Workspace, fault
from tests.faults.trainer_runs import ranked

REFUSED_S = 60.0


@fault(
    "ranks differ",
    "two ranks with different data, recipe or code version, or that would continue from different steps: refused at "
    "the start, the difference named",
    Mutation(
        "comparison of the ranks at start",
        "pipeline.distributed.consistency:check_ranks_match",
        "is_set_to",
        "lambda fingerprint: original(fingerprint) if 'checkpoint to resume' in fingerprint else None",
    ),
    Mutation(
        "comparison of the code",
        "pipeline.distributed.consistency:run_fingerprint",
        "is_set_to",
        "lambda *arguments: {part: value for part, value in original(*arguments).items() if part != 'code'}",
    ),
    Mutation(
        "comparison of the step to resume from",
        "pipeline.distributed.consistency:check_ranks_match",
        "is_set_to",
        "lambda fingerprint: None if 'checkpoint to resume' in fingerprint else original(fingerprint)",
    ),
)
def ranks_differ(workspace: Workspace) -> str:
    """Starts rank 1 otherwise than rank 0, in each way."""
    ways: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
        "data": (
            lambda words: _instead(words, str(workspace.shards), str(_other_data(workspace))),
            "the shards' manifest is",
        ),
        "recipe": (lambda words: [*words, "optimizer.learning_rate=0.5"], "optimizer.learning_rate is 0.5 there"),
        "code": (
            lambda words: _instead(words, "pipeline/train.py", str(_other_code(workspace) / "pipeline/train.py")),
            "pipeline/losses/mmd.py is",
        ),
        "step": (lambda words: words, "step is 0 there and 2 on rank 0"),
    }
    said = []
    for way, (differs, named) in ways.items() if workspace.full else [(way, ways[way]) for way in ("code", "step")]:
        out = workspace.subfolder(way) / "run"
        if way == "step":
            with ranked(workspace, out, world=1, steps=2) as run:
                assert run.ends(REFUSED_S) == [0], run.said()[-3000:]
            differs = _elsewhere(out)  # noqa: PLW2901
        changed = differs

        def of_rank(rank: int, words: list[str], changed: Callable[[list[str]], list[str]] = changed) -> list[str]:
            return changed(words) if rank else words

        began = time.monotonic()
        with ranked(workspace, out, steps=4, differs=of_rank, imports=way == "code") as run:
            codes = run.ends(REFUSED_S)
        said.append(f"{way} {time.monotonic() - began:.0f} s")
        assert codes == [1, 1], f"{way}: exit codes {codes}: {run.said()[-3000:]}"
        assert any("rank 1 has another" in error and named in error for error in run.errors()), (
            f"{way}: the difference is not named: {run.errors()}"
        )
        assert "Traceback" not in run.said(), run.said()[-3000:]
    return f"refused, each named: {', '.join(said)} after the start"


def _instead(words: list[str], old: str, new: str) -> list[str]:
    return [new if word == old else word for word in words]


def _elsewhere(out: Path) -> Callable[[list[str]], list[str]]:
    """The same command on a machine that does not see the run's folder."""
    return lambda words: _instead(words, str(out), str(out.with_name("not shared")))


def _other_data(workspace: Workspace) -> Path:
    other = workspace.folder / "other shards"
    make_shards(workspace.faces, other, "--shard-size", 90)
    return other


def _other_code(workspace: Workspace) -> Path:
    """A copy of the code with one comment more."""
    other = workspace.folder / "other code"
    for name in ("pipeline", "preprocess", "launch"):
        shutil.copytree(REPOSITORY / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "pipeline/losses/mmd.py").open("a") as file:
        file.write("# another version\n")
    return other
