"""What can go wrong, as the user sees it.

    CowestError            exit code 2, one sentence: what was wrong, what is allowed, what to type
    ├── ConfigError        an option, a settings file, a folder
    ├── TaskError          a task that is unknown, broken, or of a kind that cannot be run
    ├── ModelError         a model that cannot be loaded, or lacks what a run asks of it
    ├── ComparisonError    exit code 4: scores that cannot be compared
    │   └── RecordError    a stored run that cannot be read
    │       └── OldRunError  one of an earlier version
    └── RunError           exit code 4: an evaluation or a training that was started and did not end
        ├── BudgetError    it stopped because the next call could have passed the budget
        └── Interrupted    exit code 130 (Ctrl-C) or 143 (SIGTERM): the process was told to end

Only the command line catches these; everything else in the package lets them pass. A sample that
fails inside a run raises nothing: it becomes a row with its error (see ``store/records.py``).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self


class CowestError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code = 2


class ConfigError(CowestError):
    """An option, a settings file or a folder that cannot be used."""


class TaskError(CowestError):
    """A task that is unknown, broken, or of a kind that cannot be run."""


class ModelError(CowestError):
    """A model that cannot be loaded, lacks what a run asks of it, or has not answered.

    Attributes:
        status: The HTTP status of an endpoint's refusal, if there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ComparisonError(CowestError):
    """Scores that cannot be compared: other data, nothing in common, too few of them, unreadable."""

    exit_code = 4


class RecordError(ComparisonError):
    """A stored run that cannot be read."""


class OldRunError(RecordError):
    """A stored run of an earlier version."""


class RunError(CowestError):
    """An evaluation or a training that was started and did not end."""

    exit_code = 4


class BudgetError(RunError):
    """A run that stopped because its next call could have passed the budget."""


class Interrupted(RunError):
    """A run that was told to end."""

    @classmethod
    def by(cls, number: int) -> Self:
        """By a signal, SIGINT or SIGTERM."""
        error = cls("Interrupted." if number == signal.SIGINT else "Told to end by SIGTERM.")
        error.exit_code = 128 + number
        return error


def redacted(text: str) -> str:
    """A message of others without the value of any key that this process knows.

    Keys are what environment variables named ``..._KEY``, ``..._TOKEN`` or ``..._SECRET`` hold.
    """
    for name, value in os.environ.items():
        if name.endswith(("_KEY", "_TOKEN", "_SECRET")) and len(value) >= 8:
            text = text.replace(value, f"[{name}]")
    return text


def printable(text: str) -> str:
    """Text of others without what moves a cursor, turns the reading direction, or is no character."""
    return "".join(c if c.isprintable() else " " for c in text)


def suggestion(wrong: str, allowed: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the closest names, or all if none is close."""
    names = sorted(allowed)
    close = get_close_matches(wrong, names, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}."
