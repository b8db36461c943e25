"""What a killed run ends with, and a run that continues with another number of processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from tests.faults.fault import Mutation, Workspace, fault
from tests.faults.trainer_runs import EVERY_STEP, finish, ranked, resumed_at
from tests.launch.runs import logged
from tests.pipeline.launching import weights

HALF, WHOLE, BATCH = 10, 20, 24
SETTINGS = (*EVERY_STEP, f"training.checkpoint_every_steps={HALF}")
NEAR = 1e-5

ORDER = """
import sys
from pathlib import Path
from pipeline.data.sampler import GlobalBatchSampler
from preprocess.shards.manifest import Manifest
samples = Manifest.read(Path(sys.argv[1])).splits["train"].samples
for step in range(int(sys.argv[2])):
    world = int(sys.argv[3])
    ranks = [GlobalBatchSampler(samples, int(sys.argv[4]), 0, rank, world) for rank in range(world)]
    print(*[row for plan in ranks for row in plan.indices(step)])
"""


@fault(
    "same weights",
    "20 steps against 10 + SIGKILL + 10: bit-equal weights on the same number of ranks; 10 on 2 ranks + 10 on 1: the "
    "same sample sequence, loss within 1e-5",
    Mutation(
        "resumed optimizer state",
        "pipeline.checkpoint.resume:_load",
        "is_set_to",
        "lambda run, state, path: original(run, {**state, 'optimizer': run.model.optimizer.state_dict()}, path)",
    ),
    Mutation(
        "resumed order of samples",
        "pipeline.data.mapped:MmapLoader.batches",
        "is_set_to",
        "lambda self, sampler, first, last, prefetch: original(self, sampler, 0, last - first, prefetch)",
    ),
    Mutation(
        "own noise of each rank",
        "pipeline.data.augment:prepare_batch",
        "is_set_to",
        "lambda batch, config, latents, first, *rest: original(batch, config, latents, 0, *rest)",
    ),
)
def same_weights(workspace: Workspace) -> str:
    """Undisturbed runs of 20 steps against those that were killed, or changed, after 10."""
    whole, said = {}, []
    changed = workspace.folder / "changed"
    for world in (1, 2) if workspace.full else (2,):
        whole[world] = workspace.subfolder(f"whole {world}") / "run"
        finish(workspace, whole[world], *SETTINGS, world=world, steps=WHOLE, batch=BATCH)
        killed = workspace.subfolder(f"killed {world}") / "run"
        with ranked(workspace, killed, *SETTINGS, world=world, batch=BATCH, steps=WHOLE) as run:
            run.until((killed / f"checkpoints/step-{HALF:08d}.pt").exists, f"step {HALF}")
            for process in run.processes:
                process.kill()
        assert not (killed / f"checkpoints/step-{WHOLE:08d}.pt").exists(), "it ended before it was killed"
        if world == 2:
            shutil.copytree(killed, changed)
        assert resumed_at(finish(workspace, killed, *SETTINGS, world=world, steps=WHOLE, batch=BATCH).said()) == HALF
        other = [key for key, value in weights(whole[world]).items() if not torch.equal(value, weights(killed)[key])]
        assert not other, f"{world} ranks: {len(other)} weights differ after SIGKILL, the first is {other[0]}"
        said.append(f"{world} rank{'s' * (world > 1)}: bit-equal")
    assert resumed_at(finish(workspace, changed, *SETTINGS, world=1, steps=WHOLE, batch=BATCH).said()) == HALF
    expected, found = losses(whole[2]), losses(changed)
    assert expected.keys() == found.keys() == set(range(1, WHOLE + 1)), "a step is missing in a log"
    apart = max(abs(found[step] - loss) / loss for step, loss in expected.items())
    assert apart < NEAR, f"a loss is {apart:.1e} of itself apart on another number of ranks"
    first, second = (_order(workspace, world) for world in (1, 2))
    assert first == second and len(first) == WHOLE, "another sequence of samples on another number of ranks"
    return f"{', '.join(said)}; 10 on 2 ranks + 10 on 1: the same {WHOLE * BATCH} samples, loss within {apart:.1e}"


def losses(out: Path) -> dict[int, float]:
    """The loss of each step."""
    return {line["step"]: line["loss"] for line in logged(out) if "loss" in line}


def _order(workspace: Workspace, world: int) -> list[str]:
    """The rows of each global batch, as the ranks take them."""
    done = workspace.run("python", "-c", ORDER, workspace.shards, WHOLE, world, BATCH)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
