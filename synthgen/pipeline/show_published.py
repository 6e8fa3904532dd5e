"""The story of a record that `filter` or `dedup` published: what it is, where it came from, why it went.

In: a published folder without a journal. Out: a `RowStory` without steps, from what stands in the shards: scores, flags,
stage, reason, score and threshold, and of a duplicate the row it repeats.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import polars as pl

from synthgen.errors import UsageError
from synthgen.pipeline.stories import Record, RowStory, said, score_lines
from synthgen.types import JSONValue

__all__ = ["find_published", "published_story"]

_FOLDERS = (("data", "accepted"), ("rejected", "rejected"), ("quarantine", "quarantined"))


def find_published(folder: Path, wanted: pl.Expr) -> list[tuple[str, Record]]:
    """Outcome and record of the published rows that are wanted; two at most are read of each shard folder."""
    found: list[tuple[str, Record]] = []
    for name, outcome in _FOLDERS:
        files = sorted((folder / name).glob("*.parquet"))
        if files:
            rows = pl.scan_parquet(files).filter(wanted).head(2).collect().to_dicts()
            found += [(outcome, row) for row in rows]
    return found


def published_story(folder: Path, prefix: str) -> RowStory:
    """The story of the record whose id starts with `prefix`.

    Raises:
        UsageError: no such record, or several.
    """
    found = find_published(folder, pl.col("id").str.starts_with(prefix))
    if not found:
        raise UsageError(
            f"{folder}: no record whose id starts with {prefix!r}; ids stand in data/ and rejected/"
        )
    if len(found) > 1:
        raise UsageError(f"{folder}: several records start with {prefix!r}; give more of the id")
    outcome, record = found[0]
    return RowStory(
        id=str(record["id"]),
        outcome=outcome,
        source=str(record.get("source") or "-"),
        fields={},
        steps=(),
        verdicts=tuple(_verdicts(folder, record)),
        record=record,
        cost_usd=0.0,
    )


def _verdicts(folder: Path, record: Record) -> Iterator[str]:
    yield from (f"flag: {flag}" for flag in cast(list[str], record.get("flags") or []))
    if record.get("stage"):
        yield said(*(record.get(key) for key in ("stage", "reason", "score", "threshold", "detail")))
    if str(record.get("stage")).startswith("dedup:") and record.get("detail"):
        for _, first in find_published(folder, pl.col("id").eq(str(record["detail"]))):
            yield f"the row it repeats, {first['source']}: {_last(first)}"
    yield from score_lines(record)


def _last(record: Record) -> JSONValue:
    """The last turn of a record."""
    messages = cast(list[Record], record.get("messages") or [])
    return messages[-1]["content"] if messages else ""
