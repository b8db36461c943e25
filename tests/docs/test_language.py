"""Words that have a plainer one (CONTRIBUTING.md) are in no page, program, test or launch file."""

from __future__ import annotations

import re
import subprocess

from tests.conftest import REPOSITORY

AVOIDED = re.compile(
    r"\b(whatever|anew|goes on|stands? for|stands there|rungs?|strangers?|drills?|number by number|one's own"
    r"|colour\w*|behaviour|(neighbour|regularis|memoris|analys(?=ed|ing)|recognis|normalis|initialis)\w*)\b",
    re.IGNORECASE,
)
FILES = ("*.md", "*.py", "*.yaml", "*.html", "*.sbatch", "Makefile")


def test_plain_words() -> None:
    names = subprocess.run(["git", "ls-files", *FILES], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = [
        f"{name}:{number}: {match[0]}"
        for name in names.stdout.splitlines()
        if name not in {"CHANGELOG.md", "tests/docs/test_language.py"} and (REPOSITORY / name).exists()
        for number, line in enumerate((REPOSITORY / name).read_text(encoding="utf-8").splitlines(), 1)
        for match in AVOIDED.finditer(line)
    ]
    assert found == []
