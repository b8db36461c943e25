"""Trackers: what metrics.jsonl says, shown by TensorBoard, wandb, trackio or mlflow, and no step of it twice.

accelerate starts them (its ``log_with``). A run that goes on appends to what it showed before: TensorBoard is told to
hide the steps after the checkpoint, which come again; the others cannot take a step back, so they are not sent again
what a killed run has sent already. The values are the same: a resumed run repeats its steps.
"""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, get_available_trackers

from pipeline.checkpoint.file import replacing
from pipeline.config.schema import Config, ConfigError, flatten

PROJECT = "mmd-vlae"  # the project of wandb and trackio, the experiment of mlflow
FOLDER = "tracking"  # of TensorBoard's files, in the run's folder
STATE = "trackers.json"


class TrackerError(RuntimeError):
    """A tracker that does not start; the message is one sentence for the terminal."""


def check_installed(names: Iterable[str]) -> None:
    """Raises ConfigError naming the extra of a tracker that is not installed: accelerate leaves it out in silence."""
    installed = {tracker.value for tracker in get_available_trackers()}
    for name in names:
        if name not in installed:
            raise ConfigError(
                f"training.trackers: {name} is not installed: pip install -e '.[{name}]', or leave it out"
            )


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """A line of metrics.jsonl as named numbers: ``train/loss``, ``valid/mmd/layer0``."""
    group, values = ("valid", line["valid"]) if "valid" in line else ("train", line)
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, list):
            found |= {f"{group}/{key}/layer{layer}": inner for layer, inner in enumerate(value)}
        else:
            found[f"{group}/{key}"] = value
    return found


class Trackers:
    """The started trackers of a run; none on ranks other than the main one."""

    def __init__(self, trackers: dict[str, GeneralTracker], sent: dict[str, int]) -> None:
        """By their names: trackers, and the last step that each has been sent already."""
        self._trackers, self._sent = trackers, sent

    def log(self, line: dict[str, Any]) -> None:
        """Shows a line of metrics.jsonl. A tracker that fails is left out from then on: training is worth more."""
        values = scalars(line)
        for name, tracker in list(self._trackers.items()):
            if line["step"] <= self._sent.get(name, -1):
                continue
            try:
                tracker.log(values, step=line["step"])
            except Exception as error:
                del self._trackers[name]
                warnings.warn(f"{name} fails and gets no more metrics: {_first_line(error)}", stacklevel=2)

    def close(self) -> None:
        """Sends what is left."""
        for name, tracker in self._trackers.items():
            try:
                tracker.finish()
            except Exception as error:
                warnings.warn(f"closing {name} failed: {_first_line(error)}", stacklevel=2)
        self._trackers.clear()


def start_trackers(accelerator: Accelerator, config: Config, out: Path, step: int, logged: int) -> Trackers:
    """Starts ``training.trackers`` for a run at ``step``, whose metrics.jsonl had come to step ``logged`` before.

    Hyper-parameters are shown once a run. Raises TrackerError when a tracker does not start.
    """
    if not accelerator.is_main_process:
        return Trackers({}, {})
    known = _read_state(out) if step else {}
    names = list(config.training.trackers)
    state = {name: known.get(name) or {"id": f"{config.name}-{secrets.token_hex(3)}", "sent": -1} for name in names}
    for name in set(names) & set(known):
        state[name]["sent"] = max(state[name]["sent"], logged)
    options = {name: _options(name, state[name]["id"], name in known, config, out, step) for name in names}
    try:
        accelerator.init_trackers(PROJECT, init_kwargs=options)
        started = dict(zip(names, accelerator.trackers, strict=True))
        for name, tracker in started.items():
            if name not in known or name in ("wandb", "trackio"):  # these replace, others would add
                tracker.store_init_configuration(_hyper_parameters(config))
            if name == "mlflow":  # it chooses its own
                state["mlflow"]["id"] = tracker.tracker.info.run_id  # pyright: ignore[reportOptionalMemberAccess]
    except Exception as error:
        raise TrackerError(
            f"a tracker of {', '.join(names)} did not start: {_first_line(error)}; mend that, or leave it "
            "out of training.trackers"
        ) from None
    if state:
        with replacing(out / STATE) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")
    accelerator.trackers = []  # they are closed here, whether the run ends well or not
    return Trackers(started, {name: entry["sent"] for name, entry in state.items() if name != "tensorboard"})


def _options(name: str, identity: str, resumed: bool, config: Config, out: Path, step: int) -> dict[str, Any]:
    """What makes each tracker go on where it was: an identity, or from which step on its records are void."""
    if name == "tensorboard":
        return {"purge_step": step + 1 if step else 0}
    if name == "wandb":
        return {"id": identity, "name": config.name, "dir": str(out), "resume": "allow"}
    if name == "trackio":
        return {"name": identity, "resume": "allow"}
    return {"run_id": identity} if resumed else {"run_name": config.name}


def _hyper_parameters(config: Config) -> dict[str, Any]:
    """The recipe's leaves; lists as text, which every tracker can show."""
    return {key: str(value) if isinstance(value, list) else value for key, value in flatten(config.plain())}


def _read_state(out: Path) -> dict[str, dict[str, Any]]:
    try:
        state = json.loads((out / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {
        name: entry
        for name, entry in (state.items() if isinstance(state, dict) else ())
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and isinstance(entry.get("sent"), int)
    }


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
