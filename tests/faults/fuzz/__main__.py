"""Feeds spoilt files to the code that reads them: `python -m tests.faults.fuzz KIND,KIND COUNT SEED FOLDER`.

Prints JSON for each kind: how many files were read and refused, the slowest, the process's peak of memory, and every
finding: what is neither a proper result nor the project's own error in one short sentence. The file that is being read
lies in FOLDER, so that a crash leaves it there.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.fuzz import files, shards
from tests.faults.fuzz.images import images
from tests.faults.fuzz.target import Target
from tests.faults.peak_memory import peak_mib

TARGETS: dict[str, Callable[[Path], Target]] = {
    "image": images,
    "annotation": files.annotations,
    "manifest": files.manifests,
    "recipe": files.recipes,
    "checkpoint": files.checkpoints,
    "zip": files.zips,
    "tar": files.tars,
    "parquet": files.parquets,
    "idx": files.idx,
    "npy shard": shards.npy_shards,
    "png shard": shards.png_shards,
}
SECONDS = 20  # for one file; a loaded machine takes its time
MEMORY = 4 << 30  # of the process: what would take more fails instead of bringing the machine down


class Hang(BaseException):
    """A file took too long."""


def main(kinds: list[str], count: int, seed: int, folder: Path) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    found = {}
    for kind in kinds:
        room = folder / kind
        room.mkdir(parents=True)
        found[kind] = fuzz(TARGETS[kind](room), count, random.Random(seed), room)
    return found


def fuzz(target: Target, count: int, chance: random.Random, folder: Path) -> dict[str, Any]:
    """Outcomes of `count` files."""
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    slowest = 0.0
    for number in range(count):
        data = target.make(chance)
        (folder / "last").write_bytes(data)
        began = time.perf_counter()
        signal.alarm(SECONDS)
        try:
            target.read(data)
            outcomes["read"] += 1
        except target.refusals as error:
            outcomes["refused"] += 1
            if not 0 < len(str(error)) < 2000 or "\n" in str(error):
                findings.append(f"{number}: no short sentence: {str(error)[:200]!r}")
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            findings.append(f"{number}: {type(error).__name__}: {str(error)[:160]} ({place.filename}:{place.lineno})")
            (folder / f"finding-{number}").write_bytes(data)
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - began)
    return {"outcomes": dict(outcomes), "findings": findings, "slowest": slowest, "peak_mib": peak_mib()}


def _too_long(*_: object) -> None:
    raise Hang(f"more than {SECONDS} s")


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
