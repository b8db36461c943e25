"""The Dockerfile, by the rules that hadolint checks (their numbers in brackets) and by what it copies."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "launch/docker"


def instructions(text: str) -> list[tuple[str, str]]:
    """(NAME, rest) of each instruction, continuation lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def findings(text: str) -> list[str]:
    """What a linter would say; [] when nothing."""
    steps = instructions(text)
    runs = [rest for name, rest in steps if name == "RUN"]
    bases = [rest for name, rest in steps if name == "FROM"]
    users = [rest for name, rest in steps if name == "USER"]
    last_stage = [name for name, _ in steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]]
    wrong = {
        "DL3006/DL3007: a base without a fixed version": any("@sha256:" not in base for base in bases),
        "DL3002: the last user is root": not users or users[-1].split(":")[0] in {"root", "0"},
        "DL3000: a relative WORKDIR": any(n == "WORKDIR" and not r.startswith("/") for n, r in steps),
        "DL3020: ADD where COPY does": any(name == "ADD" for name, _ in steps),
        "DL3004: sudo": any("sudo" in run for run in runs),
        "DL3042: pip keeps its cache": any("pip install" in r and "--no-cache-dir" not in r for r in runs),
        "DL3013: pip without pinned versions": any("pip install" in r and "--constraint" not in r for r in runs),
        "DL3008/DL3009/DL3015: apt-get": any("apt-get" in run and not _installs_cleanly(run) for run in runs),
        "DL4006: a pipe hides a failure": any(re.search(r"(?<!\|)\|(?!\|)", run) for run in runs),
        "DL3025: CMD or ENTRYPOINT is not JSON": any(n in {"CMD", "ENTRYPOINT"} and r[:1] != "[" for n, r in steps),
        "DL3061: starts with neither FROM nor ARG": steps[0][0] not in {"FROM", "ARG"},
        "the last stage builds": last_stage.count("RUN") > 1,
    }
    return [rule for rule, broken in wrong.items() if broken]


def _installs_cleanly(run: str) -> bool:
    """Whether apt-get installs packages of a fixed version, nothing besides, and leaves no lists."""
    packages = shlex.split(run.partition("apt-get install ")[2].partition("&&")[0])
    named = [package for package in packages if not package.startswith("-")]
    return "--no-install-recommends" in packages and "rm -rf /var/lib/apt/lists" in run and all("=" in n for n in named)


TEXT = (FOLDER / "Dockerfile").read_text()


def test_no_findings() -> None:
    assert findings(TEXT) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("USER 10001:10001", "USER root"),
        ("@sha256:", ":"),
        ("--no-cache-dir ", ""),
        ("--constraint", "--requirement"),
        ('CMD ["preprocess", "--help"]', "CMD preprocess --help"),
        ("RUN python -m venv", "RUN apt-get install -y gcc && python -m venv"),
        ("'libc6-dev=2.36-*'", "libc6-dev"),
        ("WORKDIR /app", "WORKDIR app"),
    ],
)
def test_a_broken_rule_is_found(good: str, bad: str) -> None:
    assert good in TEXT
    assert len(findings(TEXT.replace(good, bad))) == 1


def test_copied_files_exist_and_are_not_ignored() -> None:
    kept = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in kept:
        assert (REPOSITORY / path).exists(), path
    copied = [shlex.split(rest) for name, rest in instructions(TEXT) if name == "COPY" and "--from" not in rest]
    for *sources, _ in copied:
        assert all(source == "." or source in kept for source in sources)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    needed = {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], "launch/recipes", "pyproject.toml"}
    assert needed | {project["project"]["readme"], *project["project"]["license-files"]} <= set(kept)


def test_every_dependency_is_pinned() -> None:
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (FOLDER / "constraints.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["dask"], *extras["download"]]:
        assert re.match(r"[a-z0-9-]+", requirement)[0] in pinned, requirement


def test_the_tag_is_the_version() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert f"--tag mmd-vlae:{version} ." in TEXT
