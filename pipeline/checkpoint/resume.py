"""Everything about resuming a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.file import CheckpointError, checkpoint_config
from pipeline.data.shard_checks import refuse_other_shards
from pipeline.run.run_dir import differences
from pipeline.run.state import Run


def restore(run: Run, state: dict[str, Any], path: Path) -> None:
    """Continues ``run`` from a checkpoint's contents.

    Raises CheckpointError when it was made with other data or another configuration, naming each difference.
    """
    changed = differences(checkpoint_config(state, path), run.config)
    if changed:
        raise CheckpointError(
            f"{path} was trained with another configuration ({'; '.join(changed)}); train into another --out"
        )
    before, now = str(state.get("order", "planned")), run.sample_order
    if (before == "planned") != (now == "planned"):
        raise CheckpointError(
            f"{path} was trained in another order of samples ({before}; now {now}): set data.mode as it was, or train "
            "into another --out"
        )
    if state["manifest_digest"] != run.data.source.digest:
        raise CheckpointError(
            f"{path} was trained on other shards than {run.data.source.address} (the manifests differ); name the same "
            "shards with --data, or train into another --out"
        )
    if other := refuse_other_shards(state.get("left_out", []), run.data.source.left_out, str(path)):
        raise CheckpointError(other)
    try:
        run.model.vlae.load_state_dict(state["model"])
        run.model.average.module.load_state_dict(state["ema"] or state["model"])
        run.model.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"]["torch"])
        run.step = int(state["progress"]["step"])
    except Exception as error:  # torch raises nearly anything on states of another shape
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} does not fit this model: {reason}") from None
