"""What stands in the documents: commands, Python blocks, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.docs.known_commands import CHECKS

PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((REPOSITORY / "docs").glob("*.md"))
SHELL = {"sh", "console", "bash"}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command line of a document."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its words; environment variables before the program are left out."""
        words = shlex.split(self.text, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        return words


def blocks(page: Path, languages: set[str]) -> list[str]:
    """The fenced blocks of these languages."""
    return [body for language, body in _FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def block_commands(page: Path) -> list[Command]:
    """The command lines in fenced shell blocks, continuation lines joined, comments left out."""
    lines = "\n".join(blocks(page, SHELL)).replace("\\\n", " ").splitlines()
    found = [line.removeprefix("$ ").removesuffix(" &").strip() for line in lines]
    name = page.relative_to(REPOSITORY).as_posix()
    return [Command(name, line) for line in found if line and not line.startswith("#")]


def inline_commands(page: Path) -> Iterator[Command]:
    """`code` in running text and tables that begins with a known program and has an argument."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    name = page.relative_to(REPOSITORY).as_posix()
    for raw in re.findall(r"`([^`]+)`", text):
        code = " ".join(raw.split())
        if not set("…|→") & set(code) and " " in code and code.split()[0] in CHECKS:
            named_only = len(code.split()) == 2 and code.split()[0] in {"preprocess", "analysis", "accelerate"}
            yield Command(name, f"{code} --help" if named_only else code)


def recipe_commands() -> Iterator[Command]:
    """The commands in the heads of recipes and launch files."""
    for path in sorted((REPOSITORY / "launch").rglob("*")):
        if path.suffix not in {".yaml", ".sbatch"} and path.name != "Dockerfile":
            continue
        head = re.sub(r" ?\\\n#\s+", " ", path.read_text(encoding="utf-8"))
        for line in re.findall(r"^#\s+(?:Command: |Images: )?((?:" + "|".join(CHECKS) + r") .*)$", head, re.MULTILINE):
            yield Command(path.relative_to(REPOSITORY).as_posix(), re.sub(r"\s{2,}\(.*\)$", "", line))


def links(page: Path) -> list[str]:
    """The relative links and pictures of a page, anchors left out."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return [target for target in found if "://" not in target]
