"""What ranks and workers are fed in an epoch, in real processes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from tests.faults.fault import Mutation, Workspace, fault

Case = tuple[str, int, int, str, int]
"""Feed mode, workers, global batch, data.damaged, epochs."""

SECONDS = 240  # for one launch: longer is a hang


def fed(
    workspace: Workspace, shards: Path, ranks: int, cases: Sequence[Case]
) -> tuple[int, list[list[list[list[int]]]]]:
    """The number of training samples, and the rows of every step: [case][rank][step]."""
    out = workspace.subfolder(f"fed {len(list(workspace.folder.glob('fed *')))}") / "rows"
    words = ("python", "tests/faults/feed_rows.py", shards, out, json.dumps(cases))
    done = workspace.run(*words, env={"ACCELERATE_USE_CPU": "true"}, timeout=SECONDS, ranks=ranks)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks_found = [json.loads(Path(f"{out}-{rank}.json").read_text()) for rank in range(ranks)]
    return ranks_found[0]["samples"], [[found["rows"][case] for found in ranks_found] for case in range(len(cases))]


def rows_of_an_epoch(
    workspace: Workspace, shards: Path, ranks: int, workers: int, mode: str, damaged: str
) -> list[int]:
    """All rows that all ranks are fed in the first epoch, in batches of 24."""
    _, ((*by_rank,),) = fed(workspace, shards, ranks, [(mode, workers, 24, damaged, 1)])
    return [row for steps in by_rank for rows in steps for row in rows]


@fault(
    "every sample once",
    "1, 2, 3 ranks × 0, 1, 2 workers, shards that do not divide, each feed: every sample once an epoch but for less "
    "than one global batch; the same steps on all ranks; no hang",
    Mutation(
        "position of a rank in the global batch",
        "pipeline.data.sampler:GlobalBatchSampler.first_position",
        "is_set_to",
        "property(lambda self: 0)",
    ),
    Mutation(
        "part of a worker in a stream",
        "pipeline.data.streaming:part_of",
        "is_set_to",
        "lambda sampler, worker, workers: original(sampler, 0, workers)[: len(original(sampler, worker, workers))]",
    ),
    Mutation(
        "part of a rank in a stream",
        "pipeline.data.streaming:part_of",
        "is_set_to",
        "lambda sampler, *worker: original(__import__('dataclasses').replace(sampler, rank=0), *worker)",
    ),
)
def every_sample_once(workspace: Workspace) -> str:
    batches, epochs = (24, 30), 2
    local = [(mode, 0, batch, "refuse", epochs) for mode in ("mapped", "resident") for batch in batches]
    many = [("streamed", workers, batch, "refuse", epochs) for workers in (0, 1, 2) for batch in batches]
    few = [("streamed", 0, 30, "refuse", epochs), ("streamed", 2, 24, "refuse", epochs)]
    checked = 0
    for ranks in (1, 2, 3) if workspace.full else (2,):
        cases = [*local, *(many if workspace.full else few)]
        samples, found = fed(workspace, workspace.shards, ranks, cases)
        for case, by_rank in zip(cases, found, strict=True):
            _once(samples, case, by_rank)
            checked += 1
    return f"{checked} cases of {epochs} epochs over {samples} samples in shards of 100: each once, the steps equal"


def _once(samples: int, case: Case, by_rank: list[list[list[int]]]) -> None:
    _, _, batch, _, epochs = case
    steps = samples // batch
    assert [len(found) for found in by_rank] == [steps * epochs] * len(by_rank), f"{case}: unequal steps"
    sizes = {len(rows) for found in by_rank for rows in found}
    assert sizes == {batch // len(by_rank)}, f"{case}: batches of {sizes}"
    for epoch in range(epochs):
        parts = (found[epoch * steps : (epoch + 1) * steps] for found in by_rank)
        rows = list(itertools.chain.from_iterable(itertools.chain.from_iterable(parts)))
        assert len(rows) == len(set(rows)) == steps * batch, f"{case}: {len(rows) - len(set(rows))} samples twice"
        assert set(rows) <= set(range(samples)), f"{case}: samples that are not there"
        assert samples - len(rows) < batch, f"{case}: {samples - len(rows)} samples left out"
