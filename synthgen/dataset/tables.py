"""Anybody's rows as frames with their own columns: what `synthgen dedup` reads.

In: Parquet and JSONL files (also `.gz`). Out: one schema for all of them, and frames of it, in file order, with the
line of every row. Guarantees: bounded memory; a line that is no JSON object, or does not fit the columns of the others,
is a `BadRow` and stops nothing; the same files give the same rows however they are cut into frames.
Rejected: rows as Python objects (`read` has them, because it rebuilds conversations; here columns go through as they
are, twenty times quicker).

Columns whose types differ between lines or files get the type that holds both, at last String with JSON text in it;
fields that a struct lacks in one line are null there.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset.files import BadRow, parquet_schema
from synthgen.errors import SourceError

__all__ = ["Table", "read_tables", "tables_schema"]

_BLOCK_BYTES = 8 << 20
_SLICE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Table:
    """Some rows of one file. `line`: UInt32, each row's line (Parquet: row) in its file, counted from 1."""

    path: Path
    frame: pl.DataFrame
    line: pl.Series
    bad: tuple[BadRow, ...] = ()


def tables_schema(files: Sequence[Path]) -> pl.Schema:
    """The columns of all files together. JSONL is read to its end, because its last line may bring a new one.

    Raises:
        SourceError: a file is damaged, has no row, or has a column that no type can share with another file's.
    """
    schema = pl.Schema()
    for path in files:
        found = [parquet_schema(path)] if path.suffix == ".parquet" else _block_schemas(path)
        for part in found:
            try:
                schema = pl.concat([schema.to_frame(), part.to_frame()], how="diagonal_relaxed").schema
            except pl.exceptions.PolarsError as error:
                raise SourceError(
                    f"{path}: its columns do not fit those of the other inputs: {error}"
                ) from error
    return schema


def read_tables(
    files: Sequence[Path], schema: pl.Schema, *, columns: Sequence[str] | None = None, skip: int = 0
) -> Iterator[Table]:
    """The rows of all files as frames of `schema`, or of some `columns` of it; the first `skip` rows are left out.

    Bad rows do not count among the skipped, and come with the table that follows them in their file.

    Raises:
        SourceError: a file is unreadable or damaged.
    """
    wanted = pl.Schema({name: schema[name] for name in (columns if columns is not None else schema)})
    for path in files:
        for table in _parquet(path, wanted) if path.suffix == ".parquet" else _jsonl(path, wanted):
            height = table.frame.height
            if height > skip:
                yield Table(path, table.frame.slice(skip), table.line.slice(skip), table.bad)
            elif table.bad:
                yield Table(path, table.frame.clear(), table.line.clear(), table.bad)
            skip = max(skip - height, 0)


def _parquet(path: Path, wanted: pl.Schema) -> Iterator[Table]:
    there = list(parquet_schema(path))
    number = 0
    try:
        # One column at least, because the rows of none cannot be counted.
        scan = pl.scan_parquet(path, glob=False)
        rows = int(scan.select(pl.len()).collect().item())
        scan = scan.select([name for name in wanted if name in there] or there[:1])
        step = _slice_rows(path, rows)
        while number < rows:
            # Slices, not polars' stream: that reads row groups ahead of whoever takes the frames.
            frame = scan.slice(number, step).collect()
            line = _lines(number, frame.height)
            columns = [
                pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype).alias(name)
                for name, dtype in wanted.items()
            ]
            yield Table(path, frame.with_columns(columns).select(list(wanted)), line)
            number += frame.height
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{path}: damaged Parquet file after row {number}: {error}") from error


def _slice_rows(path: Path, rows: int) -> int:
    """Rows that make some tens of megabytes of text, taking a compression of four."""
    row_bytes = 4 * path.stat().st_size / max(rows, 1)
    return int(min(max(_SLICE_BYTES / max(row_bytes, 1), 64), 1 << 16))


def _jsonl(path: Path, wanted: pl.Schema) -> Iterator[Table]:
    for number, block in _blocks(path):
        try:
            frame = pl.read_ndjson(BytesIO(block), schema=wanted)
        except pl.exceptions.PolarsError:
            frame = None
        rows = block.count(b"\n") + (not block.endswith(b"\n"))
        if frame is not None and frame.height == rows:
            yield Table(path, frame, _lines(number, rows))
        else:  # blank lines and bad ones, which only a look at each line tells apart
            yield _line_by_line(path, number, block, wanted)


def _line_by_line(path: Path, number: int, block: bytes, wanted: pl.Schema) -> Table:
    good: list[tuple[int, bytes]] = []
    bad: list[BadRow] = []
    for line, text in enumerate(block.split(b"\n"), start=number + 1):
        if not text.strip():
            continue
        problem = _problem(text)
        if problem is None:
            good.append((line, text))
        else:
            bad.append(BadRow(f"{path.as_posix()}:{line}", problem))
    frames = [wanted.to_frame()]
    lines: list[int] = []
    for part in _halved(good, wanted):
        if isinstance(part, int):
            bad.append(BadRow(f"{path.as_posix()}:{part}", "does not fit the columns of the other rows"))
        else:
            frames.append(part[0])
            lines += part[1]
    bad.sort(key=lambda row: int(row.where.rpartition(":")[2]))
    return Table(path, pl.concat(frames), pl.Series(lines, dtype=pl.UInt32), tuple(bad))


def _halved(
    rows: list[tuple[int, bytes]], wanted: pl.Schema
) -> Iterator[tuple[pl.DataFrame, list[int]] | int]:
    """Frames of the rows with their lines, and the line of each row that no frame takes; splits where one is."""
    if not rows:
        return
    try:
        frame = pl.read_ndjson(BytesIO(b"\n".join(text for _, text in rows)), schema=wanted)
        if frame.height == len(rows):
            yield frame, [line for line, _ in rows]
            return
    except pl.exceptions.PolarsError:
        pass
    if len(rows) == 1:
        yield rows[0][0]
        return
    yield from _halved(rows[: len(rows) // 2], wanted)
    yield from _halved(rows[len(rows) // 2 :], wanted)


def _block_schemas(path: Path) -> Iterator[pl.Schema]:
    for _, block in _blocks(path):
        try:
            yield pl.read_ndjson(BytesIO(block), infer_schema_length=None).schema
        except pl.exceptions.PolarsError:
            good = [line for line in block.split(b"\n") if line.strip() and _problem(line) is None]
            if good:
                try:
                    yield pl.read_ndjson(BytesIO(b"\n".join(good)), infer_schema_length=None).schema
                except pl.exceptions.PolarsError as error:
                    raise SourceError(f"{path}: its lines share no columns: {error}") from error


def _problem(line: bytes) -> str | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not valid JSON: {error.msg}"
    return None if isinstance(row, dict) else "not a JSON object"


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines, some megabytes at once, with the number of lines before them."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                block += file.readline() if not block.endswith(b"\n") else b""
                yield number, block.removeprefix(b"\xef\xbb\xbf") if number == 0 else block
                number += block.count(b"\n")
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: cannot be read after line {number}: {error}") from error


def _lines(before: int, count: int) -> pl.Series:
    return pl.int_range(before + 1, before + count + 1, dtype=pl.UInt32, eager=True)
