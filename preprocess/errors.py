"""The errors that a user reads. `preprocess.progress.exit_on_error` prints the message and exits with `exit_code`.

Every error of the three packages that a user can cause or fix derives from `UserError`. Its message is one sentence:
what is wrong, in which file or option, and what to do next.
"""

from __future__ import annotations


class UserError(Exception):
    """A command failed for a reason that the message explains: a full disk, a damaged file, a lock."""

    exit_code = 1


class UsageError(UserError):
    """The command asks for something that is not possible: a bad option, or a source that does not exist."""

    exit_code = 2


class ManifestError(UserError):
    """A manifest is missing, damaged, or written by another version."""


class ShardError(UserError):
    """A shard is missing, truncated or unreadable."""


class UnreadableImage(Exception):
    """One image cannot become a sample. The message is the reason that the manifest records."""


def first_line(error: BaseException, limit: int = 300) -> str:
    """Returns at most `limit` characters of the first line of an error's text, or its class name without a text."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split())[:limit] if lines else type(error).__name__
