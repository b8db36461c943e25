"""Signals at one process: the first asks to stop, a second SIGINT ends the process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

STEP = """
import time, torch
from pipeline.distributed.shutdown import StopRequest
stop = StopRequest(torch.device("cpu"), 1)
print("in a step", flush=True)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    time.sleep(0.05)
    if stop.should_stop(1):
        print("asked", flush=True)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_second_sigint_ends_a_step_that_takes_long(first):
    listening = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{STEP}"  # under nohup it is ignored
    process = subprocess.Popen([sys.executable, "-c", listening], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in a step\n"
    process.send_signal(first)
    assert process.stdout.readline() == "asked\n", "the first signal only asks"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 128 + signal.SIGINT


def test_a_hangup_that_is_ignored_stays_ignored():
    script = STEP.replace('print("in a step"', 'print("ready"')
    words = ["bash", "-c", 'trap "" HUP; exec "$0" -c "$1"', sys.executable, script]
    process = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
