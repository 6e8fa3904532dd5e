"""Parquet whose bytes depend on its rows alone.

In: a frame with the exact schema of its table. Out: a file under its final name, whole or absent (`whole`).
Guarantee: the same rows give the same bytes whatever their chunks, the number of threads or the process.
Rejected: letting polars write to the path (its errors hide errno, and the bytes could not be synced before the
rename); one shard compressed in memory costs a third of the frame it comes from.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import polars as pl

from synthgen.dataset.about import CardFile
from synthgen.dataset.whole import file_sha256, storage_errors, write_bytes
from synthgen.schema import SCHEMA_VERSION, RecordShape, Table, arrow_schema_b64, table_schema

__all__ = [
    "check_schema",
    "stored_files",
    "write_parquet",
    "write_table",
]

# HF streaming reads one row group at a time; 10,000 chat rows are some 10 MB of text.
ROW_GROUP_ROWS = 10_000
ZSTD_LEVEL = 3  # level 9 costs five times the CPU for a tenth fewer bytes


def stored_files(folder: Path, rows: Mapping[str, int]) -> tuple[CardFile, ...]:
    """The shards in a folder, with their hashes; `rows` maps their paths to row counts.

    Raises:
        StorageError: one of them cannot be read.
    """
    files = []
    for name, count in rows.items():
        path = folder / name
        with storage_errors(path):
            files.append(CardFile(name, file_sha256(path), path.stat().st_size, count))
    return tuple(files)


def check_schema(frame: pl.DataFrame, table: Table, shape: RecordShape) -> None:
    """Refuse a frame whose columns are not exactly those of its table, in order.

    Raises:
        ValueError: names the columns that are missing, unknown, or of another type.
    """
    wanted = table_schema(table, shape)
    if frame.schema == wanted and list(frame.schema) == list(wanted):
        return
    missing = [name for name in wanted if name not in frame.schema]
    unknown = [name for name in frame.schema if name not in wanted]
    other = [name for name, dtype in wanted.items() if name in frame.schema and frame.schema[name] != dtype]
    raise ValueError(
        f"frame is not a {table} table of shape {shape.label()}: "
        f"missing {missing}, unknown {unknown}, other type {other}"
    )


def write_parquet(
    frame: pl.DataFrame,
    path: Path,
    *,
    table: Table,
    shape: RecordShape,
    metadata: Mapping[str, str],
    row_group_rows: int = ROW_GROUP_ROWS,
) -> None:
    """Write one shard: zstd, statistics, plain Arrow types, `metadata` under keys `synthgen.*`.

    Raises:
        ValueError: the frame does not have the table's schema.
        StorageError: the disk refuses.
    """
    check_schema(frame, table, shape)
    keys = {"table": table, "shape": shape.label(), **metadata}
    write_table(
        frame, path, metadata=keys, arrow=arrow_schema_b64(table, shape), row_group_rows=row_group_rows
    )


def write_table(
    frame: pl.DataFrame,
    path: Path,
    *,
    metadata: Mapping[str, str],
    arrow: str | None = None,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> None:
    """Write a frame with columns of its own; `arrow` None leaves the Arrow types to polars (its large ones).

    Raises:
        StorageError: the disk refuses.
    """
    keys = {"schema_version": str(SCHEMA_VERSION), **metadata}
    buffer = BytesIO()
    frame.rechunk().write_parquet(
        buffer,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        statistics=True,
        row_group_size=row_group_rows,
        metadata={
            **({} if arrow is None else {"ARROW:schema": arrow}),
            **{f"synthgen.{name}": keys[name] for name in sorted(keys)},
        },
    )
    write_bytes(path, buffer.getvalue())
