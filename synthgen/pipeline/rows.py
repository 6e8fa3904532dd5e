"""Root rows: who they are, whatever their order.

In: the stream of a source. Out: `Row`s with an identity that survives reordering: the row's own `id` field where it
has one, else its content; the n-th row of equal identity gets n as well. Memory: 2 to 3 bytes a row.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from synthgen.dataclasses import inner
from synthgen.journal import Entry
from synthgen.keymap import KeyMap
from synthgen.sources import BadRow, SourceRow
from synthgen.spool import Spool
from synthgen.types import JSONValue, digest

__all__ = ["Counter", "Numbers", "Row", "identify", "row_entry", "row_from_entry"]


@inner(frozen=True, slots=True)
class Row:
    """A source row. `problem` is set where its line could not be read; then it has no fields.

    `content` is the digest of its fields, or of the problem. `entry_key` names its journal entry: it changes when the
    fields behind an `id` change.
    """

    id: str
    fields: Mapping[str, JSONValue]
    where: str
    content: str
    problem: str | None = None

    @property
    def entry_key(self) -> str:
        """Key of the row's `S` entry in the journal."""
        return digest([self.id, self.where, self.content])


class Numbers(Protocol):
    """Who says how often a digest was seen before."""

    def next(self, key: str) -> int:
        """0 for the first time, then 1, 2, ..."""
        ...


class Counter:
    """How often each digest was seen before. `folder`: where to put what is too much for the memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._seen = KeyMap(kept_bytes=10, spool=Spool(folder))

    def next(self, key: str) -> int:
        """0 for the first time, then 1, 2, ..."""
        raw = bytes.fromhex(key)
        count = self._seen.set(raw, 1)
        if count is None:
            return 0
        self._seen.set(raw, count + 1)
        return count


def identify(source: Iterable[SourceRow | BadRow], folder: Path | None = None) -> Iterator[Row]:
    """Give every source row its identity; `folder` as `Counter` has it."""
    seen = Counter(folder)
    for row in source:
        if isinstance(row, BadRow):
            key = digest(["bad", row.where, row.problem])
            yield Row(digest([key, seen.next(key)]), {}, row.where, key, row.problem)
            continue
        content = digest(["row", row.fields])
        own = row.fields.get("id")
        key = content if own is None else digest(["id", own])
        yield Row(digest([key, seen.next(key)]), row.fields, row.where, content)


def row_entry(row: Row, key: str) -> Entry:
    """The `S` entry of a row; `key` is its `entry_key`."""
    return {
        "k": key,
        "t": "S",
        "id": row.id,
        "where": row.where,
        "problem": row.problem,
        "fields": dict(row.fields),
    }


def row_from_entry(entry: Entry) -> Row:
    """The row an `S` entry holds."""
    fields, where, problem = entry["fields"], str(entry["where"]), entry["problem"]
    assert isinstance(fields, dict)  # as `row_entry` wrote it
    if problem is not None:
        return Row(str(entry["id"]), fields, where, digest(["bad", where, problem]), str(problem))
    return Row(str(entry["id"]), fields, where, digest(["row", fields]))
