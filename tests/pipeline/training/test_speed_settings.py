"""What makes a step fast is really on in a run of two processes, looked up where torch keeps it."""

from __future__ import annotations

import json

from tests import processes
from tests.conftest import REPOSITORY

LOOK = """
import json, sys
sys.path.insert(0, {repository!r})
from pathlib import Path
import torch
from pipeline.config.load import merge, parse_overrides, resolve
from pipeline.distributed.setup import make_accelerator
from pipeline.training.build import build_run
from pipeline.training.loop import train_step
from pipeline.training.step_metrics import StepMetrics

words = ["training.global_batch_size=8", "training.mixed_precision=no"]
recipe = Path({repository!r}) / "tests/pipeline/small.yaml"
config = resolve(recipe, merge(parse_overrides(words), {{"data": {{"path": {shards!r}}}}}))
run = build_run(config, make_accelerator(config, Path({out!r})))
batch = next(run.data.train.batches(run.data.sampler, 0, 1, 1))
train_step(run, batch, StepMetrics(run))
last = torch.channels_last
maps = []
for module in run.model.vlae.modules():
    if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
        module.register_forward_hook(lambda m, i, o: maps.append(o.stride(1) == 1))
train_step(run, batch, StepMetrics(run))
weights = [p for p in run.model.vlae.parameters() if p.ndim == 4]
found = {{
    "fused": all(group["fused"] for group in run.model.optimizer.param_groups),
    "gradient_as_bucket_view": run.model.objective.gradient_as_bucket_view,
    "static_graph": run.model.objective.static_graph,
    "images": batch.images.is_contiguous(memory_format=last),
    "weights": all(w.is_contiguous(memory_format=last) for w in weights),
    "feature_maps": all(maps) and len(maps) > 4,
}}
if run.is_main:
    Path({out!r}, "found.json").write_text(json.dumps(found))
"""


def test_fused_optimizer_bucket_views_static_graph_and_channels_last(face_shards, tmp_path):
    script = tmp_path / "look.py"
    script.write_text(
        LOOK.format(repository=str(REPOSITORY), shards=str(face_shards), out=str(tmp_path)),
        encoding="utf-8",
    )
    done = processes.run(("python", script), processes.environment({"CUDA_VISIBLE_DEVICES": ""}), 300, ranks=2)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(found.values()), found
