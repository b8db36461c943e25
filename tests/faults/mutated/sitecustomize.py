"""Removes one protection from every Python process of a fault test.

Python imports a module of this name at its start. This folder is on PYTHONPATH only where a mutation is asked for, and
FAULT_MUTATION names it as JSON: ``target`` ("package.module:name" or "package.module:Class.name"), ``kind``, ``value``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.util
import inspect
import json
import os
import sys
from types import ModuleType
from typing import Any


def returns(value: Any, original: Any, module: ModuleType) -> Any:
    """A function that does nothing and returns ``value``."""
    return lambda *_, **__: value


def is_set_to(value: Any, original: Any, module: ModuleType) -> Any:
    """Another constant: the Python expression ``value``, which may use ``original`` and the module's names."""
    return eval(value, {"contextlib": contextlib, "sys": sys, **vars(module), "original": original})


def shows_causes(value: Any, original: Any, module: ModuleType) -> Any:
    """The function raises what it was told by a library, not its own sentence about it."""

    def reveal(error: Exception) -> Exception:
        return error.__cause__ or error.__context__ or error  # type: ignore[return-value]

    @functools.wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return original(*arguments, **named)
        except Exception as error:
            raise reveal(error) from None

    @functools.wraps(original)
    def generate(*arguments: Any, **named: Any) -> Any:
        try:
            yield from original(*arguments, **named)
        except Exception as error:
            raise reveal(error) from None

    return generate if inspect.isgeneratorfunction(original) else call


KINDS = {kind.__name__: kind for kind in (returns, is_set_to, shows_causes)}


def mutate(module: ModuleType, name: str, kind: str, value: Any) -> None:
    """Replaces one named thing of a module that was just imported."""
    *owners, last = name.split(".")
    owner: Any = module
    for part in owners:
        owner = getattr(owner, part)
    raw = vars(owner)[last]  # a static or class method stays one
    original = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
    replacement = KINDS[kind](value, original, module)
    wrap = type(raw) if isinstance(raw, staticmethod | classmethod) else lambda function: function
    setattr(owner, last, wrap(replacement))


class MutatingFinder(importlib.abc.MetaPathFinder):
    """Finds one module as Python would, and mutates it when it has run."""

    def __init__(self, module: str, name: str, kind: str, value: Any) -> None:
        self.module, self.change = module, (name, kind, value)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The module's own spec with a loader that mutates; None for all other modules."""
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_mutate(module: ModuleType) -> None:
            run(module)
            mutate(module, *self.change)

        spec.loader.exec_module = run_and_mutate  # type: ignore[method-assign]
        return spec


if "FAULT_MUTATION" in os.environ:
    asked = json.loads(os.environ["FAULT_MUTATION"])
    where, what = asked["target"].split(":")
    sys.meta_path.insert(0, MutatingFinder(where, what, asked["kind"], asked["value"]))
