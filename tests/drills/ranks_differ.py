"""Ranks that were started with different recipes, shards or code."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

from tests.drills.drill import Ground, Removal, drill
from tests.drills.trainer_runs import by_hand, ends_within, errors_of, rank_environment


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _other_shards(ground: Ground) -> Path:
    """Shards of the same faces with fewer a file: other data, same shape."""
    other = ground.folder / "other-shards"
    if not other.exists():
        words = ("celeba", "--source", ground.faces, "--out", other, "--size", 32, "--shard-size", 90)
        assert ground.run("preprocess", *words).returncode == 0
    return other


def _other_code(ground: Ground) -> Path:
    """A copy of the code with one comment more."""
    other = ground.folder / "other-code"
    for name in ("pipeline", "preprocess", "launch"):
        shutil.copytree(ground.code / name, other / name)
    with (other / "pipeline/mmd.py").open("a") as file:
        file.write("# another version\n")
    return other


def _pair(ground: Ground, kind: str) -> tuple[float, list[str]]:
    """Starts rank 0 as it should be and rank 1 with another ``kind``; seconds to the end and what was said."""
    out, port = ground.folder / f"run-{kind}", _free_port()
    other: list[str] = ["training.validation_samples=77"] if kind == "recipe" else []
    data = _other_shards(ground) if kind == "shards" else None
    place = rank_environment(1, 2, port)
    if kind == "code":
        place["PYTHONPATH"] = str(_other_code(ground))
    elsewhere = Path(place["PYTHONPATH"]) if kind == "code" else ground.code
    first = by_hand(ground, out)
    second = by_hand(ground, out, *other, data=data)
    second[1] = str(elsewhere / second[1])
    began = time.monotonic()
    with (
        ground.started(*first, env=rank_environment(0, 2, port)) as zero,
        ground.started(*second, env=place) as one,
    ):
        said = [ends_within(process, 60)[1] for process in (zero, one)]
        assert zero.returncode == one.returncode == 1, said
    return time.monotonic() - began, errors_of("\n".join(said))


@drill(
    "ranks that differ",
    "two ranks with another recipe, other shards or other code are refused at the start, the difference named",
    Removal(
        "agreement of ranks", "pipeline/run_setup.py", "    check_agreement(asked, accelerator.device)", "    _ = asked"
    ),
)
def ranks_that_differ(ground: Ground) -> str:
    """Starts two ranks by hand, each kind of difference once (the short case: the recipe)."""
    seen = []
    named = {"recipe": "training.validation_samples", "shards": "shards:", "code": "code:"}
    for kind in named if ground.full else ("recipe",):
        seconds, sentences = _pair(ground, kind)
        assert sentences and all("rank 1 was started with something else" in s for s in sentences), sentences
        assert named[kind] in sentences[0], sentences
        seen.append(f"{kind} after {seconds:.0f} s")
    return "refused: " + ", ".join(seen)
