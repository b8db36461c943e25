"""Writes docs/reference.md: every option of the three commands and every key of a recipe, read from the code.

python docs/generate_reference.py
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import typer.main
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from analysis.cli import app as analysis_app
from pipeline.cli import app as train_app
from pipeline.config.schema import Config
from preprocess.cli import app as preprocess_app

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = REPOSITORY / "docs/reference.md"
COMMAND_COLUMNS = ("option", "default", "meaning")
KEY_COLUMNS = ("key", "type", "default", "meaning")

HEAD = """# Reference

Written by `python docs/generate_reference.py` from the code; a test fails when it is stale. Change the help texts and
field descriptions there, not this page.

Exit codes of all commands: 0 done, 1 failed, 2 bad usage. The trainer also ends with 75 when it was asked to stop and
has saved ([faults](faults.md)); launchers between it and the shell turn that into 1.
"""


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; bars in cells are escaped, and line breaks become spaces."""
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join("| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in line) + " |\n" for line in lines)


def plain(value: object) -> str:
    """A default as a recipe or a command line would have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(f'"{v}"' if isinstance(v, str) else plain(v) for v in value) + "]"
    if isinstance(value, Path):
        return str(value.relative_to(REPOSITORY)) if value.is_relative_to(REPOSITORY) else str(value)
    return str(value)


def _default_of(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.default is None or parameter.default is False:
        return ""
    return f"`{plain(parameter.default)}`"


def options(command: Any) -> list[tuple[str, ...]]:
    """(names, default, help) of each parameter of a command."""
    rows = []
    for parameter in command.params:
        if (
            "--help" in parameter.opts
            or "--install-completion" in parameter.opts
            or "--show-completion" in parameter.opts
        ):
            continue
        is_argument = parameter.param_type_name == "argument"
        names = [parameter.metavar or parameter.name.upper()] if is_argument else parameter.opts
        shown = ", ".join(f"`{name}`" for name in names)
        rows.append((shown, _default_of(parameter), getattr(parameter, "help", "") or ""))
    return rows


def commands(app: typer.Typer, program: str) -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
    """(full name, first paragraph of its help, options) of each command of an app."""
    root: Any = typer.main.get_command(app)
    for name, command in getattr(root, "commands", {"": root}).items():
        text = inspect.cleandoc(command.help or "").replace("\f", "").partition("\n\n")[0]
        yield f"{program} {name}".strip(), text, options(command)


def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """The text that follows each field in the source of a section."""
    (tree,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        is_field = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if is_field and is_text and isinstance(following.value.value, str):
            found[statement.target.id] = inspect.cleandoc(following.value.value)
    return found


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
        each = [a for a in arguments if a is not Ellipsis]
        text = (
            f"list of {type_text(each[0], [])}" if Ellipsis in arguments else f"{len(each)} x {type_text(each[0], [])}"
        )
    else:
        text = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
            getattr(annotation, "__name__", ""), str(annotation)
        )
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    limits = [f"{sign} {getattr(m, name):g}" for m in metadata for name, sign in signs if hasattr(m, name)]
    return f"{text}, {', '.join(limits)}" if limits else text


def is_section(annotation: object) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def sections(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
    """(dotted prefix, docstring, rows) of each section of the recipe, outermost first."""
    texts = descriptions(section)
    fields = {name: field for name, field in section.model_fields.items() if not is_section(field.annotation)}
    rows = []
    for name, field in fields.items():
        default = "required" if field.default is PydanticUndefined else f"`{plain(field.default)}`"
        rows.append((f"`{prefix}{name}`", type_text(field.annotation, field.metadata), default, texts.get(name, "")))
    yield prefix.rstrip("."), inspect.cleandoc(section.__doc__ or ""), rows
    for name, field in section.model_fields.items():
        if is_section(field.annotation):
            yield from sections(field.annotation, f"{prefix}{name}.")


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
            parts.append(f"### `{name}`\n{text}\n\n{table(COMMAND_COLUMNS, rows)}")
    parts.append(
        "## Keys of a recipe\n"
        "In a YAML file under `launch/recipes/`, or as `key.path=value` after the trainer's options.\n"
    )
    for prefix, text, rows in sections():
        parts.append(f"### {f'`{prefix}`' if prefix else 'Top level'}\n{text}\n\n{table(KEY_COLUMNS, rows)}")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(TARGET.relative_to(REPOSITORY))
