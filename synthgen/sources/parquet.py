"""Parquet rows as plain JSON values.

In: one file. Out: its rows in file order, read in batches of 1024. Guarantees: every value is JSON: dates, times and
durations as ISO 8601 text, decimals as text (no digit is lost), categories as text, bytes as text if they are UTF-8,
NaN and infinities as null. Rejected: slicing the scan (a slice decodes the row group again from its start).
"""

import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from synthgen.errors import SourceError
from synthgen.sources.rows import BadRow, SourceRow
from synthgen.types import JSONValue

__all__ = ["parquet_rows"]

_BATCH = 1024
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what orjson writes


def parquet_rows(path: Path, shown: str, columns: list[str] | None) -> Iterator[SourceRow | BadRow]:
    """Rows of one file; `columns` None reads all.

    Raises:
        SourceError: not a Parquet file, damaged, or without one of `columns`.
    """
    number = 0
    try:
        for batch in _batches(path, shown, columns):
            for values in batch.iter_rows(named=True):
                number += 1
                yield _row(values, f"{shown}:{number}")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{shown}: cannot be read as Parquet: {_first_line(error)}") from error


def _batches(path: Path, shown: str, columns: list[str] | None) -> Iterator[pl.DataFrame]:
    # The path is a file by now: polars must not read it as a glob or as a hive folder.
    frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    if columns is not None:
        missing = sorted(set(columns) - set(frame.collect_schema().names()))
        if missing:
            raise SourceError(f"{shown}: has no column {', '.join(map(repr, missing))}")
        frame = frame.select(columns)
    return iter(frame.collect_batches(chunk_size=_BATCH, maintain_order=True))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _row(values: dict[str, object], where: str) -> SourceRow | BadRow:
    fields: dict[str, JSONValue] = {}
    for name, value in values.items():
        try:
            fields[name] = _plain(value)
        except (TypeError, UnicodeDecodeError):
            kind = type(value).__name__
            return BadRow(where, f"column {name!r} holds {kind}, which is no text; leave it out of `columns`")
    return SourceRow(fields, where)


def _plain(value: object) -> JSONValue:
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if _INT_MIN <= value <= _INT_MAX else str(value)
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return _iso_duration(value)
        case Decimal():
            return str(value)
        case bytes():
            return value.decode()
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple() | pl.Series():
            return [_plain(item) for item in value]
    raise TypeError(type(value).__name__)


def _iso_duration(value: timedelta) -> str:
    sign = "-" if value < timedelta(0) else ""
    micros = abs(value) // timedelta(microseconds=1)
    seconds, rest = divmod(micros, 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{sign}PT{seconds}{fraction}S"
