"""What ranks and workers are fed in an epoch, in real processes under torch's own launcher."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from tests.faults.drill import Mutation, Workspace, drill

Case = tuple[str, int, int, str, int]
"""Feed mode, workers, global batch, data.damaged, epochs."""

SECONDS = 240  # for one launch: longer is a hang


def fed(ground: Workspace, shards: Path, ranks: int, cases: Sequence[Case]) -> tuple[int, list[list[list[list[int]]]]]:
    """The number of training samples, and the rows of every step: [case][rank][step]."""
    out = ground.room(f"fed {len(list(ground.folder.glob('fed *')))}") / "rows"
    how = ("--nnodes", 1, "--nproc_per_node", ranks, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
    script = ground.code / "tests/faults/feed_rows.py"
    cpu = {"ACCELERATE_USE_CPU": "true"}
    done = ground.run("torchrun", *how, script, shards, out, json.dumps(cases), env=cpu, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks_found = [json.loads(Path(f"{out}-{rank}.json").read_text()) for rank in range(ranks)]
    return ranks_found[0]["samples"], [[found["rows"][case] for found in ranks_found] for case in range(len(cases))]


def rows_of_an_epoch(ground: Workspace, shards: Path, ranks: int, workers: int, mode: str, damaged: str) -> list[int]:
    """All rows that all ranks are fed in the first epoch, in batches of 24."""
    _, ((*by_rank,),) = fed(ground, shards, ranks, [(mode, workers, 24, damaged, 1)])
    return [row for steps in by_rank for rows in steps for row in rows]


@drill(
    "every sample once",
    "1, 2, 3 ranks x 0, 1, 2 workers, each feed: each sample once an epoch but for less than one global batch; equal "
    "steps on all ranks; no hang",
    Mutation(
        "the rank's place in the plan",
        "pipeline/data/sampler.py",
        "start = batch * self.global_batch_size + self.first_position",
        "start = batch * self.global_batch_size",
    ),
    Mutation(
        "the worker's place in a stream",
        "pipeline/data/streaming.py",
        "before = sampler.rank * sampler.batches_per_epoch + sum(sizes[:worker])",
        "before = sampler.rank * sampler.batches_per_epoch",
    ),
    Mutation(
        "the rank's place in a stream",
        "pipeline/data/streaming.py",
        "before = sampler.rank * sampler.batches_per_epoch + sum(sizes[:worker])",
        "before = sum(sizes[:worker])",
    ),
)
def every_sample_once(ground: Workspace) -> str:
    batches, epochs = (24, 30), 2
    local = [(mode, 0, batch, "refuse", epochs) for mode in ("mapped", "resident") for batch in batches]
    many = [("streamed", workers, batch, "refuse", epochs) for workers in (0, 1, 2) for batch in batches]
    few = [("streamed", 0, 30, "refuse", epochs), ("streamed", 2, 24, "refuse", epochs)]
    checked = 0
    for ranks in (1, 2, 3) if ground.full else (2,):
        cases = [*local, *(many if ground.full else few)]
        samples, found = fed(ground, ground.shards, ranks, cases)
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
