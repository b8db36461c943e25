"""The errors a person is meant to read: each message is one clear sentence, never a traceback."""

from __future__ import annotations


class UsageError(Exception):
    """The command was asked for something it cannot do (exit code 2): bad option, source not found."""


class RunError(Exception):
    """The command was right and failed all the same (exit code 1): disk full, damaged input, a lock."""


class UnreadableImage(Exception):
    """One image cannot become a sample; the message is the reason that the manifest records."""


class ShardError(ValueError):
    """A shard is missing, cut short or unreadable; the message names it and what to do."""
