"""Shows the lines of metrics.jsonl in TensorBoard, wandb, trackio or mlflow, each step once.

accelerate starts the trackers (its ``log_with``). A resumed run appends to what was shown before. TensorBoard can hide
the steps after the checkpoint, which are repeated. The others cannot go back, so they are not sent again what a killed
run has already sent; the repeated values are the same.
"""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from pipeline.config.load import flat_values
from pipeline.config.schema import Config
from preprocess.errors import UserError, first_line
from preprocess.shards.atomic import write_file

PROJECT = "mmd-vlae"  # the project of wandb and trackio, the experiment of mlflow
FOLDER = "tracking"  # of TensorBoard's files, in the run's folder


class _Sent(TypedDict):
    """What a tracker was sent: the ID of its run, and the last step."""

    id: str
    sent: int


_STATE, _STATE_FILE = TypeAdapter(dict[str, _Sent]), "trackers.json"


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
    """The started trackers of a run; none on ranks other than the main one. One that fails is dropped."""

    def __init__(self, trackers: dict[str, Any], sent: dict[str, int]) -> None:
        """Takes the trackers by name, and the last step that each was sent already."""
        self._trackers, self._sent = trackers, sent

    def log(self, line: dict[str, Any]) -> None:
        """Shows a line of metrics.jsonl."""
        values = scalars(line)
        self._send(line["step"], lambda _, tracker: tracker.log(values, step=line["step"]))

    def log_pictures(self, step: int, pictures: dict[str, Image.Image]) -> None:
        """Shows pictures by name in TensorBoard and wandb; the other trackers take numbers only."""

        def send(name: str, tracker: Any) -> None:
            if name == "wandb":
                tracker.log_images({f"previews/{key}": [image] for key, image in pictures.items()}, step=step)
            elif name == "tensorboard":
                arrays = {f"previews/{key}": np.asarray(image)[None] for key, image in pictures.items()}
                tracker.log_images(arrays, step=step, dataformats="NHWC")

        self._send(step, send)

    def _send(self, step: int, send: Callable[[str, Any], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                if step > self._sent.get(name, -1):
                    send(name, tracker)
            except Exception as error:
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
    """Starts the recipe's trackers on the main process. The hyper-parameters are shown once per run.

    Args:
        accelerator: Of this process.
        config: The recipe.
        out: The run's folder.
        step: The step that the run continues from.
        logged: The last step in metrics.jsonl, which a killed run may have shown.

    Raises:
        TrackerError: When a tracker does not start.
    """
    if not accelerator.is_main_process or not config.training.trackers:
        return Trackers({}, {})
    known = _read_state(out) if step else {}
    state: dict[str, _Sent] = {
        name: known.get(name, {"id": f"{config.name}-{secrets.token_hex(3)}", "sent": -1})
        for name in config.training.trackers
    }
    for name in known.keys() & state.keys():
        state[name]["sent"] = max(state[name]["sent"], logged)
    options = {name: _options(name, entry["id"], name in known, config, out, step) for name, entry in state.items()}
    try:
        accelerator.init_trackers(PROJECT, init_kwargs=options)
        started = dict(zip(state, accelerator.trackers, strict=True))
        for name, tracker in started.items():
            if name not in known or name in ("wandb", "trackio"):  # these replace, others would add
                # lists as text, which every tracker can show
                values = {key: str(v) if isinstance(v, list) else v for key, v in flat_values(config).items()}
                tracker.store_init_configuration(values)
            if name == "mlflow":  # it chooses its own
                state["mlflow"]["id"] = tracker.tracker.info.run_id  # pyright: ignore[reportOptionalMemberAccess]
    except Exception as error:
        raise TrackerError(
            f"a tracker of {', '.join(state)} did not start: {first_line(error)}; fix that, or remove it "
            "from training.trackers"
        ) from None
    write_file(out / _STATE_FILE, json.dumps(state).encode())
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


def _read_state(out: Path) -> dict[str, _Sent]:
    try:
        return _STATE.validate_json((out / _STATE_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
