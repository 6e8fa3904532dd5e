"""Logs of real requests: what people asked a model, one request a row.

In: JSONL, CSV and Parquet files, by their endings. Out: rows with `instruction` (the last user turn), `system` and
`history` (the turns before, both empty where there are none). Guarantees: the same streams, order and `where` as the
file sources; a row in which nobody asks anything is a `BadRow`; answers in the log are read by nobody but as history.
Rejected: naming the log's format in the recipe. Logs of one gateway mix several of them.

Known are a list of turns under `messages` or `input`, with its system text beside it (`system`, `instructions`); the
same inside `request`, `body`, `kwargs` or `params`, also as JSON text; and plain text under one of `_TEXTS`, or the
`column` that is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from synthgen.dataclasses import dataclass
from synthgen.errors import SourceError
from synthgen.plugins import Plugin
from synthgen.sources.files import (
    CSVParams,
    FileParams,
    JSONLParams,
    ParquetParams,
    read_csv,
    read_jsonl,
    read_parquet,
)
from synthgen.sources.rows import BadRow, SourceRow
from synthgen.types import JSONValue

__all__ = ["REQUESTS", "RequestsParams", "read_requests"]

_INSIDE = ("request", "body", "kwargs", "params")
_TURNS = ("messages", "input", "prompt")
_SYSTEM = ("system", "instructions")
_TEXTS = ("instruction", "question", "query", "prompt", "input", "text", "content", "user")
_DEPTH = 3  # a batch file's line in a gateway's line
_CSV, _PARQUET = (".csv", ".csv.gz"), (".parquet",)


class RequestsParams(FileParams):
    """Log files; `column` holds the request as plain text where no column of a known name does."""

    column: str | None = None


def read_requests(params: RequestsParams, base: Path) -> Iterator[SourceRow | BadRow]:
    """The requests of log files, in file order.

    Raises:
        SourceError: a file cannot be opened or breaks while it is read, or its ending says nothing.
    """
    streams = [_rows(path, base) for path in params.path]
    return (_request(row, params.column) for rows in streams for row in rows)


REQUESTS = Plugin("requests", RequestsParams, read_requests)


def _rows(path: str, base: Path) -> Iterator[SourceRow | BadRow]:
    if path.endswith(_PARQUET):
        return read_parquet(ParquetParams(path=[path]), base)
    if path.endswith(_CSV):
        return read_csv(CSVParams(path=[path]), base)
    if path.endswith((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".log")):
        return read_jsonl(JSONLParams(path=[path]), base)
    raise SourceError(f"{path}: unknown kind of log; accepted: .jsonl, .ndjson, .log, .csv, .parquet")


def _request(row: SourceRow | BadRow, column: str | None) -> SourceRow | BadRow:
    if isinstance(row, BadRow):
        return row
    if column is not None:
        text = row.fields.get(column)
        asked = _Asked(text) if isinstance(text, str) and text.strip() else None
    else:
        asked = _asked(row.fields, _DEPTH)
    if asked is None:
        wanted = "no request in it" if column is None else f"no text in column {column!r}"
        return BadRow(row.where, f"{wanted}; there are: {', '.join(sorted(row.fields))}")
    fields: dict[str, JSONValue] = {
        "instruction": asked.instruction,
        "system": asked.system,
        "history": asked.history,
    }
    return SourceRow(fields, row.where)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request; `history` has a turn a paragraph, with its role in front."""

    instruction: str
    system: str = ""
    history: str = ""


def _asked(fields: Mapping[str, JSONValue], depth: int) -> _Asked | None:
    for name in _TURNS:
        turns = _parsed(fields.get(name))
        if isinstance(turns, list) and (found := _last_question(turns, _system(fields))):
            return found
    for name in _INSIDE if depth else ():
        inner = _parsed(fields.get(name))
        if isinstance(inner, dict) and (found := _asked(inner, depth - 1)):
            return found
    texts = (fields.get(name) for name in _TEXTS)
    text = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    return None if text is None else _Asked(text, _system(fields))


def _parsed(value: JSONValue) -> JSONValue:
    """Lists and objects, also where they are JSON text."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            parsed: JSONValue = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
        return parsed
    return value


def _system(fields: Mapping[str, JSONValue]) -> str:
    return next((text for name in _SYSTEM if (text := _text(fields.get(name)))), "")


def _last_question(turns: Sequence[JSONValue], system: str) -> _Asked | None:
    said = [
        (str(turn.get("role") or turn.get("from") or ""), _text(turn.get("content", turn.get("value"))))
        for turn in turns
        if isinstance(turn, dict)
    ]
    asked = [place for place, (role, text) in enumerate(said) if role in ("user", "human") and text.strip()]
    if not asked:
        return None
    before = said[: asked[-1]]
    rules = [text for role, text in before if role in ("system", "developer")]
    history = "\n\n".join(f"{role}: {text}" for role, text in before if role not in ("system", "developer"))
    return _Asked(said[asked[-1]][1], "\n\n".join(filter(None, [system, *rules])), history)


def _text(content: JSONValue) -> str:
    """The text of a turn: a string, or the text parts of a list; pictures and files are left out."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "\n".join(part for part in parts if isinstance(part, str))
