"""Reads hostile files and prints what was said of each, as JSON: `python -m tests.faults.hostile GROUP,GROUP ROOM`."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from tests.faults.hostile import checkpoints, sets, sources
from tests.faults.peak_memory import peak_mib

GROUPS = {"checkpoints": checkpoints.CASES, "sets": sets.CASES, "sources": sources.CASES}
MEMORY = 4 << 30  # what would take more fails instead of bringing the machine down
OURS = frozenset(
    ("CheckpointError", "ConfigError", "LoaderError", "ManifestError", "ShardError", "UnreadableImage", "UsageError")
)


def main(groups: list[str], folder: Path) -> list[dict[str, object]]:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    said = []
    for group in groups:
        for number, case in enumerate(GROUPS[group]):
            room = folder / f"{group}-{number}"  # no word of the case: it would be found in every error
            room.mkdir(parents=True)
            before = peak_mib()
            began = time.perf_counter()
            try:
                case.attack(room)
                problem = "it was read"
            except Exception as error:
                kind, text = type(error).__name__, str(error)
                sentence = kind in OURS and case.words in text and "\n" not in text and len(text) < 2000
                problem = "" if sentence else f"{kind}: {text[:300]}"
            took = {"seconds": time.perf_counter() - began, "mib": peak_mib() - before, "peak": peak_mib()}
            said.append({"case": case.name, "problem": problem, **took})
    return said


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1].split(","), Path(sys.argv[2]))))
