"""What the launcher asks for: refused in one sentence where it is not supported, never applied silently."""

from __future__ import annotations

import json
import os
import platform

import pytest

from pipeline.config.schema import ConfigError
from pipeline.distributed.setup import check_launcher, use_all_cores
from tests.conftest import REPOSITORY, run_command
from tests.pipeline.launching import launch_words


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed"),
        ("ACCELERATE_USE_FSDP", "1", "FSDP"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "parallelism"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradient accumulation over 4 steps"),
    ],
)
def test_unsupported_settings_of_the_launcher_are_named(variable, value, name):
    with pytest.raises(ConfigError, match=f"{name}.*not supported here.*--config_file"):
        check_launcher({variable: value})


def test_settings_without_an_effect_pass():
    check_launcher({"ACCELERATE_USE_FSDP": "false", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"})


def test_the_recipe_decides_about_compilation_and_precision(face_shards, tmp_path):
    leaked = {
        "ACCELERATE_DYNAMO_BACKEND": "inductor",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "TORCH_COMPILE_DISABLE": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
    }
    done = run_command(*launch_words(face_shards, tmp_path / "run", steps=1), env=leaked)
    assert done.returncode == 0, done.stderr
    assert "no precision" in done.stderr
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text())["step"] == 1


@pytest.mark.parametrize(("given", "threads"), [("1", "3"), ("2", "2")])
def test_the_cores_are_divided_among_the_processes_of_a_machine(given, threads):
    script = (
        "import os, torch; os.sched_getaffinity = lambda _: set(range(6)); torch.cuda.is_available = lambda: False;"
        "from pipeline.distributed.setup import use_all_cores; use_all_cores(); print(torch.get_num_threads())"
    )
    done = run_command("python", "-c", script, env={"OMP_NUM_THREADS": given, "LOCAL_WORLD_SIZE": "2"})
    assert done.stdout.strip() == threads, done.stderr


def test_all_cores_are_divided_where_the_system_has_no_affinity(monkeypatch):
    """macOS has no os.sched_getaffinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    chosen = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    use_all_cores()
    assert chosen == [3]


def test_a_device_of_the_launcher_that_torch_does_not_find_is_refused():
    with pytest.raises(ConfigError, match="asks for the device xpu"):
        check_launcher({"ACCELERATE_TORCH_DEVICE": "xpu:0"})


KEPT = """
import json, psutil, sys
sys.path.insert(0, {repository!r})
from pipeline.distributed.setup import keep_freed_memory


def kept():
    before = psutil.Process().memory_info().rss
    block = b"x" * (64 << 20)
    del block
    return (psutil.Process().memory_info().rss - before) / 2**20


before = kept()
keep_freed_memory()
print(json.dumps([before, kept()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has the setting")
def test_freed_memory_stays_with_the_process(tmp_path):
    script = tmp_path / "kept.py"
    script.write_text(KEPT.format(repository=str(REPOSITORY)), encoding="utf-8")
    done = run_command("python", script)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert before < 8, "MiB of 64 that stay without the setting"
    assert after > 56
