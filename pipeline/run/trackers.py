"""Shows the lines of metrics.jsonl in TensorBoard, wandb, trackio or mlflow, each step once.

accelerate starts the trackers (its ``log_with``). A resumed run appends to what was shown before. TensorBoard can hide
the steps after the checkpoint, which are repeated. The others cannot go back, so they are not sent again what a killed
run has already sent; the repeated values are the same.
"""

from __future__ import annotations

import json
import secrets
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

from pipeline.config.load import flat_values
from pipeline.config.schema import Config
from preprocess.errors import UserError, first_line
from preprocess.shards.atomic import replace_file

PROJECT = "mmd-vlae"  # the project of wandb and trackio, the experiment of mlflow
FOLDER = "tracking"  # of TensorBoard's files, in the run's folder
STATE = "trackers.json"


class TrackerError(UserError):
    """A tracker does not start."""


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers of a line of metrics.jsonl by name: ``train/loss``, ``valid/mmd/layer0``.

    Numbers that were not finite (null), and lines about events, are left out.
    """
    group, values = ("valid", line["valid"]) if "valid" in line else ("train", line)
    named: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list):
            named |= {f"{group}/{key}/layer{layer}": inner for layer, inner in enumerate(value)}
        else:
            named[f"{group}/{key}"] = value
    return {name: value for name, value in named.items() if isinstance(value, int | float)}


class Trackers:
    """The started trackers of a run; none on ranks other than the main one."""

    def __init__(self, trackers: dict[str, Any], sent: dict[str, int]) -> None:
        """Takes the trackers by name, and the last step that each was sent already."""
        self._trackers, self._sent = trackers, sent

    def log(self, line: dict[str, Any]) -> None:
        """Shows a line of metrics.jsonl. A tracker that fails is dropped: training continues."""
        values = scalars(line)
        for name, tracker in list(self._trackers.items()):
            if line["step"] <= self._sent.get(name, -1):
                continue
            try:
                tracker.log(values, step=line["step"])
            except Exception as error:
                self._drop(name, error)

    def log_pictures(self, step: int, pictures: dict[str, Image.Image]) -> None:
        """Shows pictures by name in TensorBoard and wandb; the other trackers take numbers only."""
        for name, tracker in list(self._trackers.items()):
            if name not in ("tensorboard", "wandb") or step <= self._sent.get(name, -1):
                continue
            try:
                if name == "wandb":
                    tracker.log_images({f"previews/{key}": [image] for key, image in pictures.items()}, step=step)
                else:
                    arrays = {f"previews/{key}": np.asarray(image)[None] for key, image in pictures.items()}
                    tracker.log_images(arrays, step=step, dataformats="NHWC")
            except Exception as error:
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        del self._trackers[name]
        warnings.warn(f"{name} failed and gets no more metrics: {first_line(error)}", stacklevel=3)

    def close(self) -> None:
        """Sends the rest and closes the trackers."""
        for name, tracker in self._trackers.items():
            try:
                tracker.finish()
            except Exception as error:
                warnings.warn(f"closing {name} failed: {first_line(error)}", stacklevel=2)
        self._trackers.clear()


def start_trackers(accelerator: Accelerator, config: Config, out: Path, step: int, logged: int) -> Trackers:
    """Starts the recipe's trackers. The hyper-parameters are shown once per run.

    Args:
        accelerator: of this process; only the main process has trackers.
        config: the recipe.
        out: the run's folder.
        step: the step that the run continues from.
        logged: the last step in metrics.jsonl before that.

    Raises:
        TrackerError: a tracker does not start.
    """
    if not accelerator.is_main_process:
        return Trackers({}, {})
    known = _read_state(out) if step else {}
    names: list[str] = list(config.training.trackers)
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
            f"a tracker of {', '.join(names)} did not start: {first_line(error)}; fix that, or remove it "
            "from training.trackers"
        ) from None
    if state:
        with replace_file(out / STATE) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")
    accelerator.trackers = []  # `Trackers.close` closes them, whether or not the run succeeds
    return Trackers(started, {name: entry["sent"] for name, entry in state.items() if name != "tensorboard"})


def _options(name: str, identity: str, resumed: bool, config: Config, out: Path, step: int) -> dict[str, Any]:
    """The options with which each tracker continues its run: an ID, or the step from which to discard its records."""
    if name == "tensorboard":
        return {"purge_step": step + 1 if step else 0}
    if name == "wandb":
        return {"id": identity, "name": config.name, "dir": str(out), "resume": "allow"}
    if name == "trackio":
        return {"name": identity, "resume": "allow"}
    return {"run_id": identity} if resumed else {"run_name": config.name}


def _hyper_parameters(config: Config) -> dict[str, Any]:
    """The values of the recipe; lists as text, which every tracker can show."""
    return {key: str(value) if isinstance(value, list) else value for key, value in flat_values(config).items()}


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
