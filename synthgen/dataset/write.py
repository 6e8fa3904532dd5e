"""Files that are either whole or absent, and Parquet whose bytes depend on its rows alone.

In: a frame with the exact schema of its table, or bytes. Out: a file under its final name, on disk for good.
Guarantees: temporary name, fsync, rename, so no reader ever sees half a file; the same rows give the same bytes
whatever their chunks, the number of threads or the process; a disk that fails becomes a `StorageError` that names
the path.
Rejected: letting polars write to the path (its errors hide errno, and the bytes could not be synced before the
rename); one shard compressed in memory costs a third of the frame it comes from.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import polars as pl

from synthgen.dataset.about import CardFile
from synthgen.errors import StorageError
from synthgen.schema import SCHEMA_VERSION, RecordShape, Table, arrow_schema_b64, table_schema

__all__ = [
    "check_schema",
    "file_sha256",
    "storage_errors",
    "stored_files",
    "sync_folder",
    "write_bytes",
    "write_parquet",
    "write_table",
]

# HF streaming reads one row group at a time; 10,000 chat rows are some 10 MB of text.
ROW_GROUP_ROWS = 10_000
ZSTD_LEVEL = 3  # level 9 costs five times the CPU for a tenth fewer bytes

_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "the quota is used up: free some space and run the same command again",
    errno.EACCES: "make it writable, or choose another output folder",
    errno.EPERM: "make it writable, or choose another output folder",
    errno.EROFS: "the file system is read-only: choose another output folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it, or choose another output folder",
    errno.EEXIST: "a file stands where a folder is needed: move it, or choose another output folder",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that says where and what to do.

    `path` is named where the error itself names none.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str | os.PathLike) else path
        advice = _ADVICE.get(error.errno or 0, "check the disk and run the same command again")
        raise StorageError(f"{where}: {error.strerror or error}; {advice}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path` by temporary name, fsync and rename; the rename itself is not yet synced.

    Raises:
        StorageError: the disk refuses; nothing stands at `path` that was not there before.
    """
    partial = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def file_sha256(path: Path) -> str:
    """Of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a rename is only safe once its folder is."""
    with storage_errors(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
