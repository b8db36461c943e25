"""Attributes by name: in any case, with '_' or ' ' between words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from preprocess.errors import UsageError


def match_attribute(name: str, known: Sequence[str]) -> str:
    """Returns the one of ``known`` that equals ``name`` but for case and '_' or ' ' between words.

    Raises:
        UsageError: There is none; the message names the nearest.
    """
    if not known:
        raise UsageError(
            f"the model has no attribute directions, so it has no '{name}': export it with `analysis export` beside "
            "shards that have attributes"
        )
    plain = {each.lower().replace("_", " "): each for each in known}
    wanted = name.lower().replace("_", " ").strip()
    if wanted in plain:
        return plain[wanted]
    near = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.5)
    hint = f"did you mean {plain[near[0]]}?" if near else f"there are {', '.join(known)}"
    raise UsageError(f"there is no attribute '{name}'; {hint}")
