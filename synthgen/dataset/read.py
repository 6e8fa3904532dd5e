"""Anybody's chat data, as records: the input of `synthgen filter`.

In: Parquet and JSONL files (also `.gz`), folders and globs of them, each in one of the formats of `formats`. Out:
batches with the record schema and, beside them, the rows that could not be read and why.
Guarantees: bounded memory but for 16 bytes a row to keep ids unique; one malformed row never stops the run; ids and
order depend on the files' contents and the order of the paths alone.
Rejected: reading through `datasets` (a heavy dependency, and it fails a whole file for one bad row).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import get_args

import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset.files import BadRow, find_inputs, parquet_schema, read_rows
from synthgen.dataset.formats import (
    ACCEPTED,
    REASONING,
    Format,
    MalformedRow,
    Row,
    find_format,
    read_messages,
    read_tools,
    shape_of,
)
from synthgen.errors import SourceError
from synthgen.schema import RecordShape, message_struct, record_schema
from synthgen.types import FinishReason, Message, canonical_json

__all__ = ["Batch", "detect_shape", "open_inputs"]

_PEEK_ROWS = 100
_TEXT_COLUMNS = ("step", "teacher", "route", "served_model", "row_license", "seed_relation", "policy_id")


@dataclass(frozen=True, slots=True)
class Batch:
    """Records with `record_schema(shape)`, in file order, and the bad rows met on the way.

    `fields`: of every record, its other columns as one JSON object (references, tests, labels), for filters to look at.
    """

    frame: pl.DataFrame
    bad: tuple[BadRow, ...]
    fields: tuple[str, ...]


def detect_shape(paths: Sequence[Path]) -> RecordShape:
    """The smallest shape that keeps all reasoning, tools and names of the inputs.

    Parquet declares its fields; JSONL is read to its end, because its last row may be the first with a tool call.

    Raises:
        SourceError: an input is missing, damaged, or in no known format.
    """
    shape = RecordShape()
    for path in find_inputs(paths):
        format = _format(path)
        declared = _declared_shape(path, format) if format and path.suffix == ".parquet" else None
        if declared is not None:
            shape |= declared
        elif format is not None:
            for _, row in read_rows(path):
                if isinstance(row, BadRow):
                    continue
                try:
                    shape |= shape_of(read_messages(row, format), read_tools(row))
                except MalformedRow:
                    continue  # open_inputs reports it
    return shape


def open_inputs(
    paths: Sequence[Path],
    shape: RecordShape,
    *,
    score_columns: Sequence[str] = (),
    origin_column: str | None = None,
    batch_rows: int = 2048,
) -> Iterator[Batch]:
    """Read the inputs as records, in batches of at most `batch_rows` rows.

    A row keeps its own `id` if that is a text no earlier row had, else it gets a content hash. Columns with the
    names and types of our schema are kept (`row` defaults to the id, `source` to file:line), others are dropped.
    `score_columns` are numeric columns that become scores of their names; `origin_column` holds `teacher@route`.

    Raises:
        SourceError: at once where an input is missing, while reading where one is damaged or in no known format.
    """
    extra = _Extra(tuple(score_columns), origin_column)
    return _batches(find_inputs(paths), shape, extra, batch_rows)


@dataclass(frozen=True, slots=True)
class _Extra:
    score_columns: tuple[str, ...]
    origin_column: str | None


def _batches(files: Iterable[Path], shape: RecordShape, extra: _Extra, batch_rows: int) -> Iterator[Batch]:
    ids = _Ids()
    schema = record_schema(shape)
    for path in files:
        format = _format(path)
        numbered = read_rows(path)
        while chunk := list(islice(numbered, batch_rows)):
            records: list[dict[str, object]] = []
            bad: list[BadRow] = []
            fields: list[str] = []
            for where, row in chunk:
                if isinstance(row, BadRow):
                    bad.append(row)
                    continue
                assert format is not None  # it has a row
                try:
                    records.append(_record(row, where, format, shape, ids, extra))
                    fields.append(_fields(row))
                except MalformedRow as problem:
                    bad.append(BadRow(where, str(problem)))
            yield Batch(pl.DataFrame(records, schema=schema), tuple(bad), tuple(fields))


def _fields(row: Row) -> str:
    """What a row says beside its conversation, as JSON; a value JSON has no form for is its text."""
    others = {key: value for key, value in row.items() if key not in ("messages", "conversations", "tools")}
    return orjson.dumps(others, default=str).decode()


def _record(
    row: Row, where: str, format: Format, shape: RecordShape, ids: "_Ids", extra: _Extra
) -> dict[str, object]:
    messages = read_messages(row, format)
    tools = read_tools(row)
    identity = ids.of(_text(row.get("id")), messages, tools)
    teacher, route = _text(row.get("teacher")), _text(row.get("route"))
    if extra.origin_column is not None and (origin := _text(row.get(extra.origin_column))):
        teacher, _, at = origin.rpartition("@") if "@" in origin else (origin, "", "")
        teacher, route = teacher or None, at or None
    finish = row.get("finish_reason")
    record: dict[str, object] = {
        **{name: _text(row.get(name)) for name in _TEXT_COLUMNS},
        "id": identity,
        "messages": [message_struct(message, shape) for message in messages],
        "source": _text(row.get("source")) or where,
        "row": _text(row.get("row")) or identity,
        "sample": _count(row.get("sample")),
        "parents": _texts(row.get("parents")),
        "teacher": teacher,
        "route": route,
        "finish_reason": finish if finish in get_args(FinishReason) else None,
        "scores": _scores(row, extra.score_columns),
        "flags": _texts(row.get("flags")),
        "generation": _count(row.get("generation")),
    }
    if shape.tools:
        record["tools"] = tools
    return record


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**31 else None


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list):
        return None
    texts = [item for item in value if isinstance(item, str)]
    return texts if len(texts) == len(value) else None


def _scores(row: Row, columns: Sequence[str]) -> list[dict[str, object]] | None:
    stored = row.get("scores")
    by_name: dict[str, float] = {}
    for entry in stored if isinstance(stored, list) else ():
        if isinstance(entry, dict) and isinstance(name := entry.get("name"), str):
            by_name[name] = _number(entry.get("score"))
    by_name |= {column: _number(row[column]) for column in columns if column in row}
    return [{"name": name, "score": score} for name, score in by_name.items() if math.isfinite(score)] or None


def _number(value: object) -> float:
    """NaN for anything that is not a number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


class _Ids:
    """Unique ids over all inputs of one call."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._copies: dict[bytes, int] = {}

    def of(self, own: str | None, messages: Sequence[Message], tools: str | None) -> str:
        if own is not None and self._is_new(own):
            return own
        content = [message.as_json() for message in messages]
        text = canonical_json({"messages": content, "tools": tools})
        hashed = blake2b(text, digest_size=16).digest()
        while True:  # ends at once, unless the input uses content hashes of ours as its own ids
            occurrence = self._copies[hashed] = self._copies.get(hashed, -1) + 1
            identity = blake2b(hashed + occurrence.to_bytes(8, "big"), digest_size=16).hexdigest()
            if self._is_new(identity):
                return identity

    def _is_new(self, identity: str) -> bool:
        key = blake2b(identity.encode(), digest_size=16).digest()
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


def _format(path: Path) -> Format | None:
    """The format of a file; None where it has no row at all.

    Raises:
        SourceError: its columns are those of no known format.
    """
    if path.suffix == ".parquet":
        columns = set(parquet_schema(path))
    else:
        good = (row for _, row in read_rows(path) if not isinstance(row, BadRow))
        peeked = list(islice(good, _PEEK_ROWS))
        columns = {name for row in peeked for name in row}
        if not columns:
            return None
        # A column of another format that never holds anything says nothing of this file's.
        columns = {name for row in peeked for name, value in row.items() if value is not None} or columns
    format = find_format(columns)
    if format is None:
        hint = "; a plain `text` has no turns: make messages of it first" if "text" in columns else ""
        raise SourceError(
            f"{path}: no known format: found columns {', '.join(sorted(columns)) or '(none)'}; "
            f"accepted: {ACCEPTED}{hint}"
        )
    return format


def _declared_shape(path: Path, format: Format) -> RecordShape | None:
    """The shape a Parquet file's types allow; None where conversations are JSON text."""
    schema = parquet_schema(path)
    names: set[str] = set()
    for dtype in (schema[name] for name in format.split("/")):
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        if isinstance(inner, pl.Struct):
            names |= {field.name for field in inner.fields if field.dtype != pl.Null}
        elif format in ("messages", "conversations"):
            return None
    if format in ("prompt/completion", "instruction"):
        names |= {name for name in REASONING if schema.get(name) == pl.String}
    return RecordShape(
        reasoning=any(name in names for name in REASONING),
        tools=schema.get("tools", pl.Null) != pl.Null or bool(names & {"tool_calls", "tool_call_id"}),
        names="name" in names,
    )
