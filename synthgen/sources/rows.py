"""What a source yields, and the one function every source is.

In: nothing. Out: `SourceRow`, `BadRow`, `ReadRows`. Rejected: raising on a bad line (one broken line of a
million would stop a run) and dropping it (nothing disappears without a word).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel

from synthgen.dataclasses import dataclass, inner
from synthgen.types import JSONValue

__all__ = ["BadRow", "ReadRows", "SourceRow"]

P_contra = TypeVar("P_contra", bound=BaseModel, contravariant=True)


@inner(frozen=True, slots=True)
class SourceRow:
    """One row: its fields, and where it stands, for people (`tickets.jsonl:17`)."""

    fields: dict[str, JSONValue]
    where: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used. `problem` never quotes the row's text."""

    where: str
    problem: str


class ReadRows(Protocol[P_contra]):
    """The `run` of a source plug-in."""

    def __call__(self, params: P_contra, base: Path) -> Iterator[SourceRow | BadRow]:
        """Rows in a fixed order, streamed; `base` is the folder relative paths start from.

        Raises:
            SourceError: a file as a whole cannot be read.
        """
        ...
