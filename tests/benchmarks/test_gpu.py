"""The GPU benchmark goes through all its parts on the CPU."""

from __future__ import annotations

import json

from tests.conftest import REPOSITORY, run_command


def test_dry_run_writes_every_part(tmp_path):
    out = tmp_path / "gpu.json"
    done = run_command("python", REPOSITORY / "benchmarks/gpu.py", "--dry-run", "--out", out)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert set(figures) == {"machine", "precisions", "throughput", "synchronization", "memory", "mmd_share"}
    assert figures["precisions"]["agrees_with_float32"]["bf16"]
    assert all(row["images_per_second"] > 0 for row in figures["throughput"].values())
