"""What can go wrong, and the exit status that each kind leads to on the command line."""

from __future__ import annotations


class NexusError(Exception):
    """Base of every error that is meant to be read by the user: one sentence, no traceback."""

    exit_code = 1


class InputError(NexusError, ValueError):
    """A file, value or option that cannot be used: says what is wrong and what to do."""

    exit_code = 2


class OutOfMemory(NexusError, MemoryError):  # noqa: N818 (says what happened)
    """Too little memory, after every fallback."""

    exit_code = 3


class Cancelled(NexusError):  # noqa: N818 (nothing went wrong)
    """Stopped on request."""

    exit_code = 130
