"""Rows from files: JSONL, CSV, Parquet.

In: paths or globs, relative to the recipe's folder. Out: rows in the order of the paths; a glob's files are sorted
by name, and a file named twice is read once.
Guarantees: files are read as streams; `where` is `path:line` (JSONL, CSV: the line the row starts on; Parquet: the
row number), lines and rows counted from 1. A path that cannot be opened is reported before the first row.
Rejected: polars for JSONL and CSV (it stops at the first malformed line, and infers types from a sample of rows, so
that the same line means different things in different files).
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Annotated, cast

import orjson
from pydantic import Field, field_validator, model_validator

from synthgen.errors import SourceError
from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.sources.rows import BadRow, SourceRow
from synthgen.types import JSONValue

__all__ = [
    "CSV",
    "JSONL",
    "PARQUET",
    "CSVParams",
    "FileParams",
    "JSONLParams",
    "ParquetParams",
    "read_csv",
    "read_jsonl",
    "read_parquet",
]

_GLOB = frozenset("*?[")
_UTF8_BOM = b"\xef\xbb\xbf"
# orjson reads 1024 levels but writes only 254; a row is written again inside journal lines, so leave room.
_MAX_DEPTH = 200
_NESTED = frozenset((dict, list))
_MAX_CELL = 2**31 - 1  # the csv module's own limit, 131072, is less than one long document


class FileParams(Strict):
    """Files to read: one path or glob, or a list of them."""

    path: Annotated[list[str], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str | list) else value

    @field_validator("path", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class JSONLParams(FileParams):
    """One JSON object a line; `.gz` is decompressed."""


class CSVParams(FileParams):
    """A header line, then rows (RFC 4180 quoting); all values are strings. `.gz` is decompressed."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1, pattern=r'^[^"\r\n]$')] = ","


class ParquetParams(FileParams):
    """Parquet files; `columns` leaves the others unread."""

    columns: Annotated[list[str], Field(min_length=1)] | None = None


def read_jsonl(params: JSONLParams, base: Path) -> Iterator[SourceRow | BadRow]:
    """Rows of JSON-lines files. Blank lines, a UTF-8 byte order mark and CRLF are accepted.

    Raises:
        SourceError: a file cannot be opened, or breaks while it is read.
    """
    paths = _files(params, base)
    return chain.from_iterable(_jsonl_rows(path, _shown(path, base)) for path in paths)


def read_csv(params: CSVParams, base: Path) -> Iterator[SourceRow | BadRow]:
    """Rows of CSV files; surrounding spaces of column names are dropped, of values kept.

    Raises:
        SourceError: a file cannot be opened, breaks while it is read, or has no usable header.
    """
    paths = _files(params, base)
    return (row for path in paths for row in _csv_rows(path, _shown(path, base), params.delimiter))


def read_parquet(params: ParquetParams, base: Path) -> Iterator[SourceRow | BadRow]:
    """Rows of Parquet files as plain JSON values: dates and times as ISO 8601, decimals as strings.

    Raises:
        SourceError: a file cannot be opened, is not Parquet, or lacks one of `columns`.
    """
    from synthgen.sources.parquet import parquet_rows  # polars: only when a Parquet file is read

    paths = _files(params, base)
    return (row for path in paths for row in parquet_rows(path, _shown(path, base), params.columns))


JSONL = Plugin("jsonl", JSONLParams, read_jsonl)
CSV = Plugin("csv", CSVParams, read_csv)
PARQUET = Plugin("parquet", ParquetParams, read_parquet)


def _files(params: FileParams, base: Path) -> list[Path]:
    """Every file meant, once, each opened for a moment so that all problems show before the first row."""
    found: dict[Path, None] = {}
    for given in params.path:
        path = base / Path(given).expanduser()
        if _GLOB.isdisjoint(given) or path.exists():
            found[path] = None
            continue
        anchor = Path(path.anchor)
        matches = sorted(match for match in anchor.glob(str(path.relative_to(anchor))) if match.is_file())
        if not matches:
            raise SourceError(f"{given}: no file matches; looked from {base}")
        found.update(dict.fromkeys(matches))
    for path in found:
        _check_readable(path)
    return list(found)


def _check_readable(path: Path) -> None:
    if path.suffix in {".zst", ".bz2", ".xz", ".zip"}:
        raise SourceError(
            f"{path}: {path.suffix} files cannot be read; decompress it, or compress it with gzip"
        )
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        raise SourceError(
            f"{path}: no such file; paths are relative to the recipe's folder, check the spelling"
        ) from error
    except IsADirectoryError as error:
        raise SourceError(f"{path}: is a folder; name its files, for example {path}/*.jsonl") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error


def _shown(path: Path, base: Path) -> str:
    """The path as users know it: below the recipe's folder without that folder."""
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _open_bytes(path: Path) -> IO[bytes]:
    # GzipFile is an IO[bytes] in all but its declared type.
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _broken(path: str, error: Exception) -> SourceError:
    return SourceError(f"{path}: breaks while it is read: {error}; is it complete?")


def _jsonl_rows(path: Path, shown: str) -> Iterator[SourceRow | BadRow]:
    try:
        with _open_bytes(path) as lines:
            for number, line in enumerate(lines, 1):
                text = line.removeprefix(_UTF8_BOM) if number == 1 else line
                if not text.isspace() and text:
                    yield _jsonl_row(text, f"{shown}:{number}")
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(shown, error) from error


def _jsonl_row(line: bytes, where: str) -> SourceRow | BadRow:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadRow(where, f"not valid JSON: {error.msg} (column {error.colno})")
    if not isinstance(value, dict):
        return BadRow(where, f"not a JSON object but a {type(value).__name__}")
    if (
        not _NESTED.isdisjoint(map(type, value.values()))  # first, since it need not look through the text
        and line.count(b"{") + line.count(b"[") > _MAX_DEPTH
        and _deeper_than(value, _MAX_DEPTH)
    ):
        return BadRow(where, f"nested deeper than {_MAX_DEPTH} levels")
    return SourceRow(value, where)


def _deeper_than(value: JSONValue, limit: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(_deeper_than(child, limit - 1) for child in children)


def _csv_rows(path: Path, shown: str, delimiter: str) -> Iterator[SourceRow | BadRow]:
    csv.field_size_limit(_MAX_CELL)  # process-wide; the csv module has no other way
    try:
        with _open_bytes(path) as raw:
            # surrogateescape: a byte that is not UTF-8 spoils its row, not the rest of the file.
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            names = _header(reader, shown)
            while True:
                where = f"{shown}:{reader.line_num + 1}"
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield BadRow(where, f"not valid CSV: {error}")
                    continue
                if cells:
                    yield _csv_row(names, cells, where)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(shown, error) from error


def _header(reader: Iterator[list[str]], shown: str) -> list[str]:
    try:
        names = [name.strip() for name in next(reader)]
        "".join(names).encode()
    except StopIteration:
        raise SourceError(f"{shown}: is empty; its first line must name the columns") from None
    except (csv.Error, UnicodeEncodeError) as error:
        raise SourceError(f"{shown}:1: the header is not CSV in UTF-8; save the file as UTF-8") from error
    for number, name in enumerate(names, 1):
        if not name:
            raise SourceError(f"{shown}:1: column {number} has no name; name it in the header")
        if names.count(name) > 1:
            raise SourceError(f"{shown}:1: two columns are named {name!r}; rename one")
    if not names:
        raise SourceError(f"{shown}:1: is blank; the first line must name the columns")
    return names


def _csv_row(names: list[str], cells: list[str], where: str) -> SourceRow | BadRow:
    if len(cells) != len(names):
        return BadRow(where, f"has {len(cells)} cells, the header names {len(names)} columns")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return BadRow(where, "not valid UTF-8")
    return SourceRow(dict(zip(names, cells, strict=True)), where)
