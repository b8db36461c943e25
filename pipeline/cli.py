"""The command line of the trainer: options, checks that need no torch, error messages and exit codes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Never

import typer

from pipeline.checkpoint.folder import explain_folder
from pipeline.config.load import merge, nested, parse_overrides, recipe_names, resolve, to_yaml
from pipeline.config.schema import Config, ConfigError
from pipeline.distributed.signals import SIGNALS, STOPPED_EARLY
from preprocess.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


def run() -> None:
    """The entry of ``mmd-vlae-train`` and of pipeline/train.py."""
    SIGNALS.listen()  # before torch, whose import takes seconds in which a scheduler may stop the job
    app()


@app.command()
def main(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Any recipe key.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help=f"A YAML file, or the name of a recipe: {', '.join(recipe_names())}.")
    ] = "celeba64",
    data: Annotated[str | None, typer.Option(help="Folder of shards or address (data.path; default shards/).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of this run (default runs/NAME).")] = None,
    resume: Annotated[
        str, typer.Option(help="auto: continue the run in --out; never; or a checkpoint to start an empty --out from.")
    ] = "auto",
    steps: Annotated[int | None, typer.Option(help="training.steps")] = None,
    global_batch_size: Annotated[int | None, typer.Option(help="training.global_batch_size, over all ranks")] = None,
    allow_pipe: Annotated[
        bool, typer.Option("--allow-pipe", help="Let --data name a program: pipe:COMMAND {}.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="seed")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="training.mixed_precision: no, bf16 or fp16")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe and exit.")] = False,
) -> None:
    """Trains an MMD-VLAE on shards; `accelerate launch` starts one such process per device."""
    options = {
        "data.path": data,
        "training.steps": steps,
        "training.global_batch_size": global_batch_size,
        "training.mixed_precision": mixed_precision,
        "seed": seed,
    }
    try:
        changes = parse_overrides(overrides or [])
        for key, value in options.items():
            changes = merge(changes, nested(key, value)) if value is not None else changes
        config = resolve(recipe, changes)
        if print_config:
            typer.echo(to_yaml(config), nl=False)
            return
        _check_without_torch(config, out, resume)
        from pipeline.training.run_training import run_training  # noqa: PLC0415 - imports torch, which takes seconds

        finished = run_training(config, out or Path("runs") / config.name, resume, allow_pipe)
    except UserError as error:
        _exit(str(error), error.exit_code)
    except OSError as error:
        path = f" ({error.filename})" if error.filename else ""
        _exit(f"{error.strerror or error}{path}; the checkpoints written so far are complete", UserError.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _exit(
            "this model and batch need more memory than the device has: choose a smaller --global-batch-size, more "
            "processes, --mixed-precision bf16, or narrower model.layers",
            UserError.exit_code,
        )
    if not finished:
        sys.stdout.flush()
        os._exit(STOPPED_EARLY)


def _check_without_torch(config: Config, out: Path | None, resume: str) -> None:
    """Finds the usual mistakes before torch is imported. Raises UserError."""
    for tracker in config.training.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise ConfigError(
                f"training.trackers: {tracker} is not installed: pip install {tracker}, or remove it from the list"
            )
    folder = config.data.path
    if re.match(r"[a-z][a-z0-9+]+:", folder, re.IGNORECASE) is None and not (Path(folder) / "manifest.json").is_file():
        from preprocess.shards.manifest import Manifest  # noqa: PLC0415 - only for its message

        Manifest.read(Path(folder))
    given = Path(resume)
    if resume not in ("auto", "never") and not given.is_file():
        remedy = "write auto, never, or the path of a checkpoint"
        reason = explain_folder(given, remedy) if given.is_dir() else f"does not exist; {remedy}"
        raise ConfigError(f"--resume {resume} {reason}")
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: on the CPU torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error)


def _exit(message: str, code: int) -> Never:
    """Prints the message, on the other ranks with their number, and ends the process at once.

    The other ranks may be waiting in a collective that this one will never join.
    """
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        time.sleep(0.5)  # an error on every rank is printed once: the launcher ends this rank after rank 0
    with contextlib.suppress(OSError):  # a closed terminal; the exit code remains
        print(f"[rank {rank}] error: {message}" if rank != "0" else f"error: {message}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)
