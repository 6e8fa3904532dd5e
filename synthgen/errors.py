"""What can go wrong, as types: each error knows the exit code of a command that ends with it.

In: nothing. Out: the `SynthgenError` tree. Messages say what happened, where, and what to do; they never
hold credentials or prompt text. Foreign exceptions become one of these at the boundary where they arise,
with `from`.

    SynthgenError            1   a bug, or nothing more precise
    ├── UsageError           2   command line, recipe, prompt, chain, key or input file is wrong
    │   ├── RecipeError      2   carries file:line
    │   ├── SourceError      2   an input file as a whole cannot be read
    │   └── MissingKeyError  2   a named environment variable is not set
    ├── StoppedShort         3   target missed, lane stopped, rows pending
    ├── PolicyError          4   review or deny
    ├── BudgetReached        5   the next request would not fit under the cap
    ├── StorageError         6   disk full, unwritable, damaged journal
    │   └── RunLocked        6   another process holds the run folder
    ├── CriteriaNotMet       7   a table of cases or criteria is not met
    └── Interrupted        130   SIGINT or SIGTERM, after draining
"""

from typing import ClassVar

__all__ = [
    "BudgetReached",
    "CriteriaNotMet",
    "Interrupted",
    "MissingKeyError",
    "PolicyError",
    "RecipeError",
    "RunLocked",
    "SourceError",
    "StoppedShort",
    "StorageError",
    "SynthgenError",
    "UsageError",
]


class SynthgenError(Exception):
    """Base of every error synthgen raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(SynthgenError):
    """The user has to change what they gave us."""

    exit_code = 2


class RecipeError(UsageError):
    """A YAML file (recipe, prompt, chain, policy lock) is wrong; the message starts with `file:line:`."""


class SourceError(UsageError):
    """An input file is missing, unreadable, or holds no valid row."""


class MissingKeyError(UsageError):
    """A credential's environment variable is not set."""


class StoppedShort(SynthgenError):
    """The plan is not finished: target missed, a lane stopped, or rows are pending."""

    exit_code = 3


class PolicyError(SynthgenError):
    """The policy gate says review or deny."""

    exit_code = 4


class BudgetReached(SynthgenError):
    """The next request does not fit under the cap."""

    exit_code = 5


class StorageError(SynthgenError):
    """The disk is full or unwritable, or a journal is damaged."""

    exit_code = 6


class RunLocked(StorageError):
    """Another process works in this run folder."""


class CriteriaNotMet(SynthgenError):
    """What was measured is not what was asked for."""

    exit_code = 7


class Interrupted(SynthgenError):
    """A signal asked us to stop; what was paid is stored."""

    exit_code = 130
