"""Sources: where the rows of a run come from.

In: the `source` part of a recipe and the recipe's folder. Out: a stream of `SourceRow` and `BadRow`, in source order.
Guarantees: memory does not grow with the number of rows; the same files give the same rows with the same `where`;
one bad line never stops a run, an unreadable file always does.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from synthgen.plugins import load_plugin
from synthgen.recipe.model import SourceConfig
from synthgen.sources.rows import BadRow, ReadRows, SourceRow

__all__ = ["BadRow", "ReadRows", "SourceRow", "read_source"]


def read_source(source: SourceConfig, base: Path) -> Iterator[SourceRow | BadRow]:
    """Rows of a recipe's source; relative paths are relative to `base`, the recipe's folder.

    Stops after `source.limit` valid rows; bad rows on the way there are reported and do not count.

    Raises:
        SourceError: a file cannot be read (before the first row, where that can be known).
    """
    # A source plug-in promises this signature; the registry holds plug-ins of every kind.
    read = cast("ReadRows[BaseModel]", load_plugin("source", source.kind).run)
    rows = read(source.params, base)
    return rows if source.limit is None else _first(rows, source.limit)


def _first(rows: Iterator[SourceRow | BadRow], limit: int) -> Iterator[SourceRow | BadRow]:
    valid = 0
    for row in rows:
        yield row
        valid += isinstance(row, SourceRow)
        if valid == limit:
            return
