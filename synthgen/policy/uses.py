"""What the data is for, as a closed vocabulary.

In: the strings under `use` in a recipe. Out: canonical, sorted, unique uses. Guarantee: a use outside the
vocabulary never reaches a rule. A purpose says what is done with the rows, a modifier how; `publish-*` are
modifiers that can stand alone, `research-nc` and `commercial` cannot.
Rejected: implying a purpose for a lone modifier (adding a use could then lower a decision).
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache

from synthgen.assets import suggest
from synthgen.errors import UsageError

__all__ = ["MANNERS", "USES", "covers", "matching_uses", "parse_uses"]

_TASKS = ("classifier", "embedding", "generative")
MANNERS = ("research-nc", "commercial")
USES: tuple[str, ...] = (
    "train-general",
    *(f"train-task-internal:{task}" for task in _TASKS),
    *(f"train-task-distributed:{task}" for task in _TASKS),
    "train-own-family",
    "evaluate-only",
    "publish-dataset",
    "publish-weights",
    *MANNERS,
)
_ALIASES = {"train-competing-general-model": "train-general"}


def parse_uses(given: Iterable[str]) -> tuple[str, ...]:
    """Canonical uses, sorted and without repeats; parsing its own result changes nothing.

    Raises:
        UsageError: no use, an unknown use, or only `research-nc`/`commercial` without a purpose.
    """
    uses = sorted({_ALIASES.get(use, use) for use in given})
    for use in uses:
        if use not in USES:
            raise UsageError(f"unknown use {use!r}{suggest(use, list(USES))}; allowed: {', '.join(USES)}")
    if not set(uses) - set(MANNERS):
        named = f"{', '.join(uses)} only says how" if uses else "no use is declared"
        raise UsageError(f"use: {named}; add what the data is for, one of: {', '.join(USES[:-2])}")
    return tuple(uses)


@cache
def matching_uses(pattern: str) -> frozenset[str]:
    """The uses a rule file's pattern covers: an exact use, a glob such as `train-task-*`, or `*`."""
    return frozenset(use for use in USES if fnmatchcase(use, pattern))


def covers(patterns: Iterable[str], use: str) -> bool:
    """Whether any pattern covers the use."""
    return any(use in matching_uses(pattern) for pattern in patterns)
