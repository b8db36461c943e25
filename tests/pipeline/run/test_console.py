"""A terminal that is closed or a log on a full disk does not end the training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.run.run_dir import MetricsLog
from tests.conftest import REPOSITORY

SCRIPT = """
import sys
from pipeline.run.console import TrainingLog
log = TrainingLog(10, 0, shown=True)
for number in range(3):
    log.say("a line")
    log.step(10, "loss", 1.0, 1.0)
reports = []
log.on_failure(reports.append)
log.close()
print("still here", file=sys.stderr, flush=True)
print(len(reports), reports[0])
"""


@pytest.mark.parametrize("closed", [False, True])
def test_a_log_that_cannot_be_written_is_dropped_and_reported(closed):
    if closed:  # `| head -1`, which has ended
        redirection = "2> >(exec 0<&-; exit)"
        script = f'sleep 0; exec "$0" -c "$1" {redirection}'
        words = ["bash", "-c", f"{script}", sys.executable, "import time; time.sleep(0.5)\n" + SCRIPT]
    else:
        words = ["bash", "-c", 'exec "$0" -c "$1" 2>/dev/full', sys.executable, SCRIPT]
    done = subprocess.run(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("1 the terminal's log cannot be written")


def test_numbers_that_are_not_finite_become_null(tmp_path: Path):
    shown = []
    log = MetricsLog(tmp_path, [{"step": 1, "valid": {"l1": 0.5}}], shown.append)
    log.append({"step": 2, "loss": float("nan"), "mmd": [1.0, float("inf")]})
    log.append({"step": 2, "valid": {"l1": float("nan")}})
    log.close()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "metrics.jsonl").open()]
    assert lines[1:] == shown == [{"step": 2, "loss": None, "mmd": [1.0, None]}, {"step": 2, "valid": {"l1": None}}]
