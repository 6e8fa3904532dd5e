"""Files of rows: Parquet and JSONL (also `.gz`), one by one or by folder and glob.

In: the paths a user named. Out: the files behind them, and their rows with `file:line`. Guarantees: bounded memory,
rows in file order; a line that is no JSON object is a `BadRow`, a damaged file a `SourceError`.
"""

import glob
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset.formats import Row
from synthgen.errors import SourceError

__all__ = ["BadRow", "find_inputs", "parquet_schema", "read_rows"]

_ENDINGS = (".parquet", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_CHUNK_ROWS = 2048


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was not read: `where` is `file:line` (Parquet: `file:row`), counted from 1."""

    where: str
    problem: str


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """The files behind paths, folders and globs, each once, in the order given and sorted within each.

    A folder that has a `data/` folder (a run or a hub dataset) stands for that; hidden files are left out.

    Raises:
        SourceError: a path does not exist, is of no known kind, or has no file in it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            files = _in_folder(path)
        elif path.exists():
            files = [path]
        else:
            files = _matching(path)
        if not files:
            raise SourceError(
                f"{path}: no such file, or a folder or pattern without {', '.join(_ENDINGS)} files"
            )
        for file in files:
            if not file.name.endswith(_ENDINGS):
                hint = "; make lines of an array first: jq -c '.[]'" if file.suffix == ".json" else ""
                raise SourceError(f"{file}: unknown kind of file; accepted: {', '.join(_ENDINGS)}{hint}")
            found[file] = None
    return list(found)


def parquet_schema(path: Path) -> pl.Schema:
    """Columns and types a Parquet file declares.

    Raises:
        SourceError: it is not Parquet.
    """
    try:
        return pl.scan_parquet(path, glob=False).collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{path}: not a readable Parquet file: {error}") from error


def read_rows(path: Path) -> Iterator[tuple[str, Row | BadRow]]:
    """Every row of a file with its `file:line`.

    Raises:
        SourceError: the file is unreadable or damaged.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    else:
        yield from _json_rows(path)


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row | BadRow]]:
    number = 0
    try:
        scan = pl.scan_parquet(path, glob=False)
        for frame in scan.collect_batches(chunk_size=_CHUNK_ROWS, maintain_order=True):
            for row in frame.iter_rows(named=True):
                number += 1
                yield f"{path.as_posix()}:{number}", row
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{path}: damaged Parquet file after row {number}: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[str, Row | BadRow]]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                number += 1
                where = f"{path.as_posix()}:{number}"
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not text.isspace() and text:
                    yield where, _json_row(text, where)
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: cannot be read after line {number}: {error}") from error


def _json_row(text: bytes, where: str) -> Row | BadRow:
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return BadRow(where, f"not valid JSON: {error.msg}")
    return row if isinstance(row, dict) else BadRow(where, "not a JSON object")


def _matching(pattern: Path) -> list[Path]:
    # Path.glob takes no absolute pattern.
    return sorted(Path(name) for name in glob.glob(str(pattern), recursive=True) if Path(name).is_file())  # noqa: PTH207


def _in_folder(folder: Path) -> list[Path]:
    root = folder / "data" if (folder / "data").is_dir() else folder
    return sorted(
        path
        for path in root.rglob("*")
        if path.name.endswith(_ENDINGS)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
