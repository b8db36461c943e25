"""Writes docs/reference.md: every option of the three commands and every key of a recipe, read from the code.

python docs/generate_reference.py
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import typer.main
from pydantic import BaseModel

from analysis.cli import app as analysis_app
from pipeline.cli import app as train_app
from pipeline.config.load import is_resumable
from pipeline.config.schema import Config
from preprocess.cli import app as preprocess_app

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = REPOSITORY / "docs/reference.md"
Row = tuple[str, ...]

HEAD = """# Reference

Written by `python docs/generate_reference.py` from the code; a test fails when it is out of date. Change the help texts
and field descriptions there, not this page.

Exit codes of all commands: 0 done, 1 failed, 2 bad usage. The trainer also ends with 75 when it was asked to stop and
has saved ([faults](faults.md)); launchers between it and the shell turn that into 1.
"""
KEYS = """## Keys of a recipe
In a YAML file, or as `key.path=value` after the trainer's options. Keys marked with * may change when a run is resumed.
"""


def table(columns: Row, rows: list[Row]) -> str:
    """A Markdown table; bars in cells are escaped, and line breaks become spaces."""
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join("| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in line) + " |\n" for line in lines)


def plain(value: object) -> str:
    """A default as a recipe or a command line would have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(f'"{v}"' if isinstance(v, str) else plain(v) for v in value) + "]"
    if isinstance(value, Path) and value.is_relative_to(REPOSITORY):
        return str(value.relative_to(REPOSITORY))
    return str(value)


def option_default(parameter: Any) -> str:
    """The default of an option, "required", or "" for none."""
    if parameter.required or isinstance(parameter.show_default, str):
        return "required" if parameter.required else parameter.show_default
    return "" if parameter.default is None or parameter.default is False else f"`{plain(parameter.default)}`"


def options(command: Any) -> list[Row]:
    """(names, default, help) of each parameter of a command."""
    rows = []
    for parameter in command.params:
        if {"--help", "--install-completion", "--show-completion"} & set(parameter.opts):
            continue
        is_argument = parameter.param_type_name == "argument"
        names = [parameter.metavar or parameter.name.upper()] if is_argument else parameter.opts
        shown = ", ".join(f"`{name}`" for name in names)
        rows.append((shown, option_default(parameter), getattr(parameter, "help", "") or ""))
    return rows


def commands(app: typer.Typer, program: str) -> Iterator[tuple[str, str, list[Row]]]:
    """(full name, first paragraph of its help, options) of each command of an app."""
    root: Any = typer.main.get_command(app)
    for name, command in getattr(root, "commands", {"": root}).items():
        text = inspect.cleandoc(command.help or "").replace("\f", "").partition("\n\n")[0]
        yield f"{program} {name}".strip(), text, options(command)


def type_text(annotation: Any, metadata: list[Any]) -> str:
    """An annotation in words: choices as they are typed, limits as inequalities."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        text = ", ".join(f"`{choice}`" for choice in arguments)
    elif origin in (typing.Union, types.UnionType):
        text = " or ".join("null" if a is type(None) else type_text(a, []) for a in arguments)
    elif origin is typing.Annotated:
        return type_text(arguments[0], [m for extra in arguments[1:] for m in getattr(extra, "metadata", [extra])])
    elif origin is tuple:
        count = "list of" if Ellipsis in arguments else f"{len(arguments)} x"
        text = f"{count} {type_text(arguments[0], [])}"
    else:
        names = {str: "text", int: "integer", float: "number", bool: "true or false"}
        text = names.get(annotation, str(annotation))
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    limits = [f"{sign} {getattr(m, name):g}" for m in metadata for name, sign in signs if hasattr(m, name)]
    return ", ".join([text, *limits])


def sections(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, list[Row]]]:
    """(dotted prefix, docstring, rows) of each section of the recipe, outermost first."""
    rows, inner = [], []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner.append((name, field.annotation))
            continue
        key = f"`{prefix}{name}`{' *' if is_resumable(field) else ''}"
        text = type_text(field.annotation, field.metadata)
        rows.append((key, text, f"`{plain(field.default)}`", field.description or ""))
    yield prefix.rstrip("."), inspect.cleandoc(section.__doc__ or ""), rows
    for name, annotation in inner:
        yield from sections(annotation, f"{prefix}{name}.")


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    programs = (
        ("preprocess", preprocess_app, "preprocess"),
        ("The trainer", train_app, "accelerate launch pipeline/train.py"),
        ("analysis", analysis_app, "analysis"),
    )
    for title, app, program in programs:
        parts.append(f"## {title}\n")
        for name, text, rows in commands(app, program):
            parts.append(f"### `{name}`\n{text}\n\n{table(('option', 'default', 'meaning'), rows)}")
    parts.append(KEYS)
    for prefix, text, rows in sections():
        title = f"`{prefix}`" if prefix else "Top level"
        parts.append(f"### {title}\n{text}\n\n{table(('key', 'type', 'default', 'meaning'), rows)}")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(TARGET.relative_to(REPOSITORY))
