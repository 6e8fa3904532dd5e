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

_ID = pl.col("id").cast(pl.String)
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
    if not _has_ids(folder):
        raise UsageError(
            f"{folder}: its rows have no column `id`; `dup_of` in rejected/ names them by file:line"
        )
    found = find_published(folder, _ID.str.starts_with(prefix))
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


def _has_ids(folder: Path) -> bool:
    files = sorted(folder.glob("*/*.parquet"))
    return not files or "id" in pl.read_parquet_schema(files[0])


def _verdicts(folder: Path, record: Record) -> Iterator[str]:
    yield from (f"flag: {flag}" for flag in cast(list[str], record.get("flags") or []))
    if record.get("stage"):
        yield said(*(record.get(key) for key in ("stage", "reason", "score", "threshold", "detail")))
    repeated = record.get("dup_of")
    if repeated is not None:
        yield f"dedup: {record['dup_reason']}, Jaccard {record['dup_jaccard']:.4g} to {repeated}, {record['dup_cluster']} was kept"
    elif record.get("dup_cluster") is not None:
        yield "dedup: kept for its cluster"
    if str(record.get("stage")).startswith("dedup:"):
        repeated = record.get("detail")
    if repeated is not None:
        for _, first in find_published(folder, _ID.eq(str(repeated))):
            source = first.get("source")
            yield f"the row it repeats, {first['id'] if source is None else source}: {_last(first)}"
    if isinstance(record.get("scores"), list):
        yield from score_lines(record)


def _last(record: Record) -> JSONValue:
    """The last turn of a record; of rows of any columns, their longest text."""
    messages = record.get("messages")
    if isinstance(messages, list):
        return cast(Record, messages[-1])["content"] if messages else ""
    return max((value for value in record.values() if isinstance(value, str)), key=len, default="")
