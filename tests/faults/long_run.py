"""What a run costs in memory and open files as its checkpoints add up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import psutil

from tests.faults.fault import Mutation, Workspace, fault
from tests.faults.trainer_runs import EVERY_STEP, Started, launched
from tests.launch.runs import logged_step

# 30 minutes with a checkpoint a minute are 30 checkpoints: the same happens in fewer minutes, more densely
SETTINGS = (
    *EVERY_STEP,
    "training.validate_every_steps=60",
    "training.preview_every_steps=120",
    'training.trackers=["tensorboard"]',
)
SECONDS, SHORT_SECONDS, WARM_UP = 480, 12, 0.4
MIB_PER_HUNDRED_CHECKPOINTS, MIB_OF_NOISE = 4.0, 6.0


@fault(
    "long run",
    "half an hour's checkpoints and more: flat memory on every process, flat file descriptors (in 8 minutes, a "
    "checkpoint every 20 steps)",
    Mutation(
        "release of a checkpoint's memory",
        "pipeline.checkpoint.manager:write_checkpoint",
        "is_set_to",
        "lambda *arguments, kept=[]: (kept.append([bytearray(1 << 20), open('/dev/null')]), original(*arguments))[1]",
    ),
    Mutation("removal of old checkpoints", "pipeline.checkpoint.file:_surplus", "returns", []),
)
def long_run(workspace: Workspace) -> str:
    """Watches the launcher and both ranks, and fits a line through what each holds."""
    seconds, every = (SECONDS, 20) if workspace.full else (SHORT_SECONDS, 5)
    out = workspace.subfolder("run") / "run"
    with launched(workspace, out, *SETTINGS, f"training.checkpoint_every_steps={every}") as run:
        run.until_step(40)
        watched = [Watched(psutil.Process(run.processes[0].pid)), *map(Watched, run.ranks())]
        began, first = time.monotonic(), logged_step(out)
        while (elapsed := time.monotonic() - began) < seconds:
            assert run.processes[0].poll() is None, run.said()[-3000:]
            for process in watched:
                process.look(elapsed)
            time.sleep(0.25)
        checkpoints = (logged_step(out) - first) // every
        return _judge(run, watched, checkpoints, seconds)


@dataclass
class Watched:
    """One process, looked at again and again."""

    process: psutil.Process
    times: list[float] = field(default_factory=list)
    own_mib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self, when: float) -> None:
        self.times.append(when)
        self.own_mib.append(self.process.memory_full_info().uss / 2**20)
        self.files.append(self.process.num_fds())

    def growth(self) -> tuple[float, int]:
        """MiB from the warm-up to the end by the fitted line, and open files more at the least in the last third."""
        warm = [number for number, when in enumerate(self.times) if when > WARM_UP * self.times[-1]]
        times, own = np.array(self.times)[warm], np.array(self.own_mib)[warm]
        slope = float(np.polyfit(times, own, 1)[0])
        third = max(1, len(warm) // 3)
        files = [self.files[number] for number in warm]
        return slope * float(times[-1] - times[0]), min(files[-third:]) - min(files[:third])


def _judge(run: Started, watched: list[Watched], checkpoints: int, seconds: float) -> str:
    assert checkpoints >= seconds / 8, (
        f"{checkpoints} checkpoints in {seconds} s: the machine is too slow for this test"
    )
    kept = [path for path in (run.out / "checkpoints").iterdir() if path.suffix == ".pt" and path.name[0] != "."]
    assert len(kept) <= 4, f"{len(kept)} checkpoints are kept of 3"
    allowed = MIB_OF_NOISE + MIB_PER_HUNDRED_CHECKPOINTS * checkpoints / 100
    said = []
    for name, process in zip(("launcher", "rank 0", "rank 1"), watched, strict=True):
        grown, files = process.growth()
        assert grown < allowed, f"{name} grew by {grown:.1f} MiB in {checkpoints} checkpoints ({process.own_mib[::20]})"
        assert files <= 0, f"{name} has {files} more open files than before ({process.files[::20]})"
        said.append(f"{name} {grown:+.1f} MiB, {files:+d} files")
    return f"{checkpoints} checkpoints in {seconds} s: {'; '.join(said)}"
