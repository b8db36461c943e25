"""The number of threads follows the load of the machine: a simulated one, with step times from real runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.training.threads import AdaptiveThreads, ThreadChooser, adaptive_threads

IDLE = {2: 0.148, 1: 0.22}
"""Seconds a step by threads: faces recipe, 64 images, two cores."""
BESIDE_ONE = {2: 0.55, 1: 0.24}
BESIDE_ONE_BADLY = {2: 3.2, 1: 0.24}
BESIDE_TWO_NICE = {2: 1.4, 1: 0.23}
BESIDE_ONE_VERY_NICE = {2: 0.154, 1: 0.222}


def simulate(chooser: ThreadChooser, machine: dict[int, float], seconds: float, busy: bool, threads: int = 2):
    """Trains for ``seconds`` on a machine. Returns the share of the best rate, and the threads of the last step."""
    passed, steps = 0.0, 0
    while passed < seconds:
        duration = machine[threads] * (1 + 0.02 * (steps % 3 - 1))
        passed += duration
        steps += 1
        threads = chooser.next(duration, busy)
    return steps * min(machine.values()) / passed, threads


@pytest.mark.parametrize("busy", [False, True])
def test_an_idle_machine_keeps_all_threads_at_a_cost_below_three_percent(busy):
    share, threads = simulate(ThreadChooser(2), IDLE, 600, busy)
    assert threads == 2
    assert share > 0.97


def test_an_idle_machine_is_never_tried_with_fewer_threads():
    chooser, threads = ThreadChooser(2), {2}
    for _ in range(500):
        threads.add(chooser.next(0.148, False))
    assert threads == {2}


@pytest.mark.parametrize("machine", [BESIDE_ONE, BESIDE_ONE_BADLY, BESIDE_TWO_NICE])
@pytest.mark.parametrize("from_the_start", [False, True])
def test_a_busy_machine_falls_back_to_one_thread(machine, from_the_start):
    chooser = ThreadChooser(2)
    if not from_the_start:
        simulate(chooser, IDLE, 60, False)
    simulate(chooser, machine, 15, True)
    share, _ = simulate(chooser, machine, 600, True, threads=1)
    assert share > 0.95


def test_a_process_that_gives_way_costs_nothing():
    share, threads = simulate(ThreadChooser(2), BESIDE_ONE_VERY_NICE, 600, True)
    assert threads == 2
    assert share > 0.97


@pytest.mark.parametrize("machine", [BESIDE_ONE, BESIDE_ONE_BADLY])
def test_all_threads_return_when_the_machine_is_idle_again(machine):
    chooser = ThreadChooser(2)
    simulate(chooser, IDLE, 30, False)
    _, threads = simulate(chooser, machine, 120, True)
    _, threads = simulate(chooser, IDLE, 400, False, threads)
    assert threads == 2


def test_many_cores_are_given_up_in_steps():
    chooser = ThreadChooser(16)
    assert chooser.counts == [16, 12, 8, 4, 2, 1]
    machine = {16: 0.5, 12: 0.12, 8: 0.15, 4: 0.25, 2: 0.5, 1: 1.0}
    share, threads = simulate(chooser, machine, 300, True, threads=16)
    assert threads == 12
    assert share > 0.9


def test_the_number_of_threads_is_restored_behind_the_items():
    before = torch.get_num_threads()
    assert list(adaptive_threads(range(3), torch.device("cpu"))) == [0, 1, 2]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("environment", "expected"), [({}, "False"), ({"OMP_NUM_THREADS": "2"}, "True")])
def test_a_number_set_by_the_user_is_kept(environment, expected):
    plain = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    script = "from pipeline.training.threads import user_chose_threads; print(user_chose_threads())"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**plain, **environment}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(("option", "expected"), [((), "False"), (("--num_cpu_threads_per_process", "2"), "True")])
def test_threads_set_by_accelerate_are_not_the_users_choice(option, expected, tmp_path):
    script = tmp_path / "look.py"
    script.write_text(
        "import os\nfrom pipeline.training.threads import user_chose_threads\n"
        "assert 'OMP_NUM_THREADS' in os.environ\nprint(user_chose_threads())\n"
    )
    plain = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    words = ["--config_file", "launch/accelerate/cpu-1.yaml", *option, str(script)]
    accelerate = Path(sys.executable).with_name("accelerate")
    done = subprocess.run([accelerate, "launch", *words], env=plain, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(expected)


def test_several_processes_and_gpus_keep_their_threads(monkeypatch):
    monkeypatch.setattr("pipeline.training.threads.user_chose_threads", lambda: False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert AdaptiveThreads(torch.device("cpu"))._chooser is not None
    assert AdaptiveThreads(torch.device("cpu"), world_size=2)._chooser is None
    assert AdaptiveThreads(torch.device("cuda"))._chooser is None
    monkeypatch.setattr("pipeline.training.threads.user_chose_threads", lambda: True)
    assert AdaptiveThreads(torch.device("cpu"))._chooser is None
