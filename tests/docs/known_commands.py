"""Whether a command line that a document shows would be accepted: its program, options, files and recipe keys."""

from __future__ import annotations

import itertools
import re
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer.main
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from analysis.cli import app as analysis_app
from pipeline.cli import app as train_app
from pipeline.config.load import parse_overrides, resolve
from pipeline.config.schema import ConfigError
from preprocess.cli import app as preprocess_app
from tests.conftest import REPOSITORY

TRAINER = "pipeline/train.py"
PLACEHOLDERS = {"RANK": "0", "N": "2", "N×8": "16", "PORT": "29500"}
"""Words in capitals in place of a number; all other placeholders are names, which any option takes."""


class NotAccepted(Exception):
    """Why a command would be refused."""


def problem_with(words: Sequence[str]) -> str | None:
    """Why this command line would be refused, or None when it would not be."""
    program, *rest = [PLACEHOLDERS.get(word, word) for word in words]
    if program not in CHECKS:
        return f"{program} is not a program that the documents may show (tests/docs/known_commands.py)"
    try:
        CHECKS[program](rest)
    except NotAccepted as reason:
        return str(reason)
    return None


def _parse(command: Any, words: list[str]) -> dict[str, Any]:
    """Parses with a typer or click command and returns its parameters, without running it."""
    try:
        return command.make_context(command.name, list(words)).params
    except typer.Exit:
        return {}  # --help
    except Exception as error:
        raise NotAccepted(f"{command.name} {' '.join(words)}: {error or type(error).__name__}") from None


def _subcommand(app: typer.Typer, program: str) -> Callable[[list[str]], None]:
    def check(words: list[str]) -> None:
        group: Any = typer.main.get_command(app)
        if not words or words == ["--help"]:
            return
        if words[0] not in group.commands:
            raise NotAccepted(f"{program} has no command {words[0]}")
        _parse(group.commands[words[0]], words[1:])

    return check


def _trainer(words: list[str]) -> None:
    given = _parse(typer.main.get_command(train_app), words)
    if not given:
        return
    recipe = REPOSITORY / given["recipe"] if given["recipe"].endswith(".yaml") else given["recipe"]
    try:
        resolve(recipe, parse_overrides(given["overrides"] or []))
    except ConfigError as error:
        raise NotAccepted(str(error)) from None


def _script(words: list[str], script: str) -> None:
    if script != TRAINER:
        raise NotAccepted(f"the launcher starts {script}, not {TRAINER}")
    _trainer(words)


def _parsed_by_argparse(parser: Any, words: list[str]) -> Any:
    try:
        return parser.parse_args(words)
    except SystemExit as end:
        if end.code == 0:
            return None  # --help
        raise NotAccepted(f"{parser.prog} does not take: {' '.join(words)}") from None


def _accelerate(words: list[str]) -> None:
    if words[:1] != ["launch"]:
        raise NotAccepted("only `accelerate launch` is known here")
    given = _parsed_by_argparse(launch_command_parser(), words[1:])
    if given is None:
        return
    if given.config_file:
        _file(given.config_file)
    _script(given.training_script_args, given.training_script)


def _torchrun(words: list[str]) -> None:
    given = _parsed_by_argparse(get_args_parser(), words)
    _script(given.training_script_args, given.training_script)


def _file(name: str) -> Path:
    if not (REPOSITORY / name).is_file():
        raise NotAccepted(f"there is no file {name}")
    return REPOSITORY / name


def _make(words: list[str]) -> None:
    text = (REPOSITORY / "Makefile").read_text()
    for word in words:
        pattern = rf"^{word.partition('=')[0]} \?=" if "=" in word else rf"^{re.escape(word)}:"
        if not re.search(pattern, text.replace(" :=", " ?="), re.MULTILINE):
            raise NotAccepted(f"the Makefile has no {word}")


def _sbatch(words: list[str]) -> None:
    while words and words[0].startswith("--"):
        words = words[2:]
    script = _file(words[0])
    if subprocess.run(["bash", "-n", script], check=False).returncode:
        raise NotAccepted(f"bash cannot read {script}")
    CHECKS["preprocess"](words[1:]) if script.stem == "preprocess" else _trainer(words[1:])


def _pip(words: list[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    target = words[-1]
    if words[0] != "install" or not target.startswith("."):
        raise NotAccepted("only `pip install` of this project is known here")
    for extra in re.findall(r"[a-z]+", target):
        if extra not in project["optional-dependencies"]:
            raise NotAccepted(f"the project has no extra {extra}")


def _docker(words: list[str]) -> None:
    if words[0] == "build":
        _file(words[words.index("--file") + 1])
        return
    images = [word for word in words if word.startswith("mmd-vlae:")]
    if words[0] != "run" or len(images) != 1:
        raise NotAccepted("only `docker build` and `docker run … mmd-vlae …` are known here")
    inner = words[words.index(images[0]) + 1 :]
    if inner and (problem := problem_with(inner)):
        raise NotAccepted(problem)


def _kubectl(words: list[str]) -> None:
    if words[0] not in {"apply", "logs", "delete"}:
        raise NotAccepted(f"kubectl {words[0]} is not known here")
    for flag, name in itertools.pairwise(words):
        if flag == "-f" and name.startswith("launch/"):
            _file(name)


def _dask(words: list[str]) -> None:
    from distributed.cli import dask_scheduler, dask_worker

    commands = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    if words[0] not in commands:
        raise NotAccepted(f"dask has no {words[0]}")
    _parse(commands[words[0]], words[1:])


def _python(words: list[str]) -> None:
    script = _file(words[0])
    done = subprocess.run(["python3", "-m", "py_compile", script], check=False, capture_output=True)
    text = script.read_text()

    def takes(option: str) -> bool:  # as argparse or as typer declares it
        return f'"{option}"' in text or f"    {option[2:].replace('-', '_')}: Annotated[" in text

    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    if done.returncode or not all(takes(option) for option in options):
        raise NotAccepted(f"{script.name} does not take {' '.join(words[1:])}")


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "preprocess": _subcommand(preprocess_app, "preprocess"),
    "analysis": _subcommand(analysis_app, "analysis"),
    "accelerate": _accelerate,
    "torchrun": _torchrun,
    "make": _make,
    "sbatch": _sbatch,
    "pip": _pip,
    "docker": _docker,
    "kubectl": _kubectl,
    "dask": _dask,
    "python": _python,
    "tensorboard": lambda words: None,
}
