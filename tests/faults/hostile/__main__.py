"""Reads hostile files and prints what was said of each, as JSON: `python -m tests.faults.hostile GROUP FOLDER`."""

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


def main(group: str, folder: Path) -> list[dict[str, object]]:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    said = []
    for number, case in enumerate(GROUPS[group]):
        room = folder / str(number)  # no word of the case: it would be found in every error
        room.mkdir(parents=True)
        began = time.perf_counter()
        try:
            case.attack(room)
            problem = "it was read"
        except Exception as error:
            kind, text = type(error).__name__, str(error)
            sentence = kind in OURS and case.words in text and "\n" not in text and len(text) < 2000
            problem = "" if sentence else f"{kind}: {text[:300]}"
        seconds = time.perf_counter() - began
        said.append({"case": case.name, "problem": problem, "seconds": seconds, "peak": peak_mib()})
    return said


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
