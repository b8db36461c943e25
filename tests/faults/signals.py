"""Signals that ask a run to stop, at any moment from its first line on."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import torch

from tests.faults.fault import Mutation, Workspace, fault
from tests.faults.trainer_runs import (
    ALONE,
    EVERY_STEP,
    LAUNCHED,
    Started,
    finish,
    gone,
    launched,
    ranked,
    resumed_at,
)
from tests.launch.runs import logged_step, logged_steps

SETTINGS = ("training.checkpoint_every_steps=4", *EVERY_STEP)
STOPPED, TO_END_S = 75, 30.0

HEARD_EARLY = Mutation(
    "signals before the import of torch",
    "pipeline.distributed.signals:StopSignals.listen",
    "is_set_to",
    "lambda self: original(self) if 'torch' in sys.modules else None",
)
AGREED = Mutation(
    "agreement on the step to stop after",
    "pipeline.distributed.shutdown:StopRequest.should_stop",
    "is_set_to",
    "lambda self, step: SIGNALS.stop_requested",
)
SAVED_WITHOUT_LAUNCHER = Mutation(
    "save of a single rank without its launcher",
    "pipeline.distributed.shutdown:die_with_parent",
    "is_set_to",
    "lambda: ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)",
)


@fault(
    "asked to stop",
    "SIGTERM, SIGUSR1, SIGINT at random moments, also before the first step and during a save: all ranks stop at the "
    "same step, its checkpoint exists, end within 30 s, the resumed run continues at the next step",
    HEARD_EARLY,
    AGREED,
    SAVED_WITHOUT_LAUNCHER,
)
def asked_to_stop(workspace: Workspace) -> str:
    """One run, stopped and resumed again and again."""
    chance = random.Random(11)
    out = workspace.subfolder("ranks") / "run"
    moments = ["import", "start", "step", "one rank", "save"] * 2 if workspace.full else ["import", "one rank", "save"]
    numbers = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
    stops: list[int] = []
    slowest = 0.0
    for number, moment in enumerate(moments):
        step, took = _stop(workspace, out, moment, numbers[number % 3], chance, stops[-1] if stops else 0)
        stops.append(step)
        slowest = max(slowest, took)
    last = finish(workspace, out, *SETTINGS, steps=stops[-1] + 2)
    assert resumed_at(last.said()) == stops[-1]
    steps = logged_steps(out)
    assert steps == list(range(1, stops[-1] + 3)), f"a step is missing or stands twice in the log: {steps}"
    launchers = [(ALONE, 1, signal.SIGTERM), (LAUNCHED, 2, signal.SIGINT), (LAUNCHED, 2, signal.SIGTERM)]
    took = [_at_the_launcher(workspace, *each) for each in (launchers if workspace.full else launchers[:1])]
    return (
        f"{len(moments)} signals at ranks, {len(took)} at launchers; stopped at steps "
        f"{', '.join(map(str, stops))}; slowest end {max(slowest, *took):.1f} s"
    )


def _stop(
    workspace: Workspace, out: Path, moment: str, number: int, chance: random.Random, before: int
) -> tuple[int, float]:
    """Starts the run, stops it at ``moment``; at which step it stands now, and how many seconds it took to end."""
    with ranked(workspace, out, *SETTINGS, imports=moment in {"import", "start"}) as run:
        _wait_for(moment, run, out, before, chance)
        for victim in run.processes[moment == "one rank" :]:
            victim.send_signal(number)
        began = time.monotonic()
        codes = run.ends(TO_END_S)
        took = time.monotonic() - began
        assert codes == [STOPPED] * 2, f"{moment}, signal {number}: exit codes {codes}: {run.said()[-3000:]}"
        said = run.said()
        assert "error: " not in said and "Traceback" not in said, said[-3000:]
    assert not list(out.rglob(".*.tmp")), "something half-written was left"
    if not (out / "ckpt.pt").exists():
        assert moment in {"import", "start"} and before == 0, f"{moment}: no checkpoint: {said[-3000:]}"
        return 0, took
    step = torch.load(out / "ckpt.pt", weights_only=True)["progress"]["step"]
    assert (out / f"checkpoints/step-{step:08d}.pt").exists()
    if moment in {"step", "one rank", "save"}:
        assert step > before, f"{moment}: stopped at step {step} after {before}"
        assert logged_step(out) == step, f"the log ends with step {logged_step(out)}, the checkpoint is of {step}"
        assert f"stopped at step {step} as requested" in said, said[-3000:]
        assert before == 0 or resumed_at(said) == before, f"resumed at another step than {before}: {said[-3000:]}"
    return step, took


def _wait_for(moment: str, run: Started, out: Path, before: int, chance: random.Random) -> None:
    """Until the run is where the signal is to come."""
    if moment in {"import", "start"}:  # not before our first line: nothing in Python could hear it there
        run.until(lambda: all(_imports_torch(process.pid) for process in run.processes), "the import of torch")
        time.sleep(chance.uniform(0, 4) if moment == "start" else 0)
    else:
        run.until_step(before + chance.randint(2, 6))
        if moment == "save":
            run.until(lambda: any((out / "checkpoints").glob(".*.tmp")), "a checkpoint being written")
        time.sleep(chance.uniform(0, 0.05))


def _imports_torch(process: int) -> bool:
    """Whether a process has come to the import of torch (Linux)."""
    return "libtorch" in Path(f"/proc/{process}/maps").read_text()


def _at_the_launcher(workspace: Workspace, how: tuple[str, ...], world: int, number: int) -> float:
    """A signal to the launcher alone: it forwards it to several ranks, and of a single one it is just gone."""
    out = workspace.subfolder(f"launched {world} {number}") / "run"
    with launched(workspace, out, "training.checkpoint_every_steps=0", *EVERY_STEP, how=how) as run:
        run.until_step(3)
        ranks = run.ranks(world)
        began = time.monotonic()
        run.processes[0].send_signal(number)
        run.ends(TO_END_S)
        assert gone(ranks, TO_END_S), "a rank lives on"
        took = time.monotonic() - began
        assert (out / "ckpt.pt").exists(), f"{world} ranks: all steps are lost: {run.said()[-3000:]}"
    step = torch.load(out / "ckpt.pt", weights_only=True)["progress"]["step"]
    assert step == logged_step(out), f"saved step {step} of {logged_step(out)}"
    return took
