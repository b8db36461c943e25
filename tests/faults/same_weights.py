"""What a killed run ends with, and a run that goes on with another number of processes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import torch

from tests.faults.drill import Mutation, Workspace, drill
from tests.faults.trainer_runs import EVERY_STEP, finish, ranked, resumed_at, send
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
    ranks = [GlobalBatchSampler(samples, int(sys.argv[4]), 0, rank, int(sys.argv[3])) for rank in range(int(sys.argv[3]))]
    print(*[row for plan in ranks for row in plan.indices(step)])
"""


@drill(
    "same weights",
    "20 steps against 10 + SIGKILL + 10: bit-equal weights on the same number of ranks; 10 on 2 ranks + 10 on 1: the "
    "same sample sequence, loss within 1e-5",
    Mutation(
        "the optimizer's state is resumed",
        "pipeline/checkpoint/resume.py",
        '        run.model.optimizer.load_state_dict(state["optimizer"])\n',
        "",
    ),
    Mutation(
        "the order of samples goes on where it was",
        "pipeline/training/loop.py",
        "run.data.train.batches(run.data.sampler, run.step, training.steps,",
        "run.data.train.batches(run.data.sampler, 0, training.steps - run.step,",
    ),
    Mutation(
        "each rank takes its own rows of the noise",
        "pipeline/training/loop.py",
        "        plan.rank * plan.local_batch_size,\n",
        "        0,\n",
    ),
)
def same_weights(ground: Workspace) -> str:
    """Undisturbed runs of 20 steps against those that were killed, or changed, after 10."""
    whole, said = {}, []
    changed = ground.folder / "changed"
    for world in (1, 2) if ground.full else (2,):
        whole[world] = ground.room(f"whole {world}") / "run"
        finish(ground, whole[world], *SETTINGS, world=world, steps=WHOLE, batch=BATCH)
        killed = ground.room(f"killed {world}") / "run"
        with ranked(ground, killed, *SETTINGS, world=world, batch=BATCH, steps=WHOLE) as run:
            run.until((killed / f"checkpoints/step-{HALF:08d}.pt").exists, f"step {HALF}")
            send(signal.SIGKILL, [process.pid for process in run.processes])
        assert not (killed / f"checkpoints/step-{WHOLE:08d}.pt").exists(), "it ended before it was killed"
        if world == 2:
            shutil.copytree(killed, changed)
        assert resumed_at(finish(ground, killed, *SETTINGS, world=world, steps=WHOLE, batch=BATCH).said()) == HALF
        other = [key for key, value in weights(whole[world]).items() if not torch.equal(value, weights(killed)[key])]
        assert not other, f"{world} ranks: {len(other)} weights differ after SIGKILL, the first is {other[0]}"
        said.append(f"{world} rank{'s' * (world > 1)}: bit-equal")
    assert resumed_at(finish(ground, changed, *SETTINGS, world=1, steps=WHOLE, batch=BATCH).said()) == HALF
    expected, found = losses(whole[2]), losses(changed)
    assert expected.keys() == found.keys() == set(range(1, WHOLE + 1)), "a step is missing in a log"
    apart = max(abs(found[step] - loss) / loss for step, loss in expected.items())
    assert apart < NEAR, f"a loss is {apart:.1e} of itself apart on another number of ranks"
    first, second = (_order(ground, world) for world in (1, 2))
    assert first == second and len(first) == WHOLE, "another sequence of samples on another number of ranks"
    return f"{', '.join(said)}; 10 on 2 ranks + 10 on 1: the same {WHOLE * BATCH} samples, loss within {apart:.1e}"


def losses(out: Path) -> dict[int, float]:
    """The loss of each step."""
    return {
        line["step"]: line["loss"]
        for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        if "loss" in line
    }


def _order(ground: Workspace, world: int) -> list[str]:
    """The rows of each global batch, as the ranks take them."""
    done = ground.run("python", "-c", ORDER, ground.shards, WHOLE, world, BATCH)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
