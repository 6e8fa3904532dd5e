"""Rows to train on: a run's folder, or anybody's chat data.

In: a folder with a manifest, or Parquet/JSONL in any format `synthgen filter` reads. Out: `Dataset`. Guarantees: of a
published dataset only what the manifest lists is read, and its digests hold; of a run one split; a row
that is no conversation is an error with its place, not a hole.

Per-message flags of foreign rows (`train: false`, or `weight: 0` as OpenAI writes it) decide what is trained on.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

import orjson

from synthgen.dataclasses import dataclass
from synthgen.dataset.files import BadRow, find_inputs, parquet_schema, read_rows
from synthgen.dataset.formats import (
    ACCEPTED,
    Format,
    MalformedRow,
    Row,
    find_format,
    read_messages,
    read_tools,
)
from synthgen.dataset.publish import is_published, read_manifest
from synthgen.dataset.whole import file_sha256
from synthgen.errors import SourceError, UsageError
from synthgen.train.conversation import Conversation
from synthgen.types import JSONValue, Message, canonical_json

__all__ = ["Dataset", "read_dataset", "split"]

_UNREAD = 5  # malformed rows named in an error
_PEEKED = 100  # rows whose columns decide on the format


@dataclass(frozen=True, slots=True)
class Dataset:
    """`digest`: sha256 over the files' digests. `folder` has a manifest, or is None for data that was not published by
    synthgen; `manifest` is then empty."""

    conversations: tuple[Conversation, ...]
    digest: str
    files: Mapping[str, str]
    folder: Path | None
    manifest: Mapping[str, JSONValue]


def read_dataset(
    path: Path, *, limit: int | None = None, split: Literal["train", "test"] = "train"
) -> Dataset:
    """The `split` of a run or published folder, or all rows of files; `limit`: at most so many rows.

    Raises:
        SourceError: no such data, damaged, changed since it was published, or a row is no conversation.
    """
    published = path.is_dir() and is_published(path)
    if path.is_dir() and not published and (path / "journal").is_dir():
        raise UsageError(f"{path}: is a run without a published dataset; run `synthgen generate` to its end")
    manifest = read_manifest(path) if published else {}
    files = _published(path, manifest, split) if published else find_inputs([path])
    digests = {_name(file, path): file_sha256(file) for file in files}
    if published:
        _check_digests(path, manifest, digests)
    conversations = tuple(_conversations(files, limit))
    if not conversations:
        raise SourceError(f"{path}: holds no row")
    return Dataset(
        conversations,
        hashlib.sha256(canonical_json(digests)).hexdigest(),
        digests,
        path if published else None,
        manifest,
    )


def split(
    conversations: Sequence[Conversation], share: float, *, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Training and validation rows: about `share` of the root rows, each with all its records on one side.

    Decided by a hash of the root row alone, so that adding rows moves none; at least one root row each if `share` > 0.

    Raises:
        UsageError: one root row cannot be both.
    """
    if share == 0:
        return list(conversations), []
    places = {row: _place(row, seed) for row in dict.fromkeys(c.row for c in conversations)}
    if len(places) < 2:
        raise UsageError("data.validation_share: all rows come from one source row, so none can be set aside")
    chosen = {row for row, place in places.items() if place < share}
    ordered = sorted(places, key=lambda row: places[row])
    if not chosen:
        chosen = {ordered[0]}
    elif len(chosen) == len(places):
        chosen.remove(ordered[-1])
    return (
        [c for c in conversations if c.row not in chosen],
        [c for c in conversations if c.row in chosen],
    )


def _place(row: str, seed: int) -> float:
    """A number in 0..1 that only the row and the seed decide."""
    hashed = blake2b(row.encode(), digest_size=8, key=str(seed).encode(), person=b"validation")
    return int.from_bytes(hashed.digest(), "big") / 2**64


def _published(folder: Path, manifest: Mapping[str, JSONValue], split: str) -> list[Path]:
    listed = manifest["files"]
    assert isinstance(listed, dict)  # read_manifest
    names = [PurePosixPath(name) for name in listed]
    wanted = sorted(
        name
        for name in names
        if name.parts[0] == "data" and name.suffix == ".parquet" and name.name.startswith(f"{split}-")
    )
    if not wanted:
        hint = ": give the recipe `output.test_share`" if split == "test" else ""
        raise SourceError(f"{folder}: its manifest lists no {split} split{hint}")
    return [folder / name for name in wanted]


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if root.is_dir() else file.name


def _check_digests(folder: Path, manifest: Mapping[str, JSONValue], found: Mapping[str, str]) -> None:
    listed = manifest["files"]
    assert isinstance(listed, dict)  # read_manifest
    for name, digest in found.items():
        entry = listed[name]
        if not isinstance(entry, dict) or entry.get("sha256") != digest:
            raise SourceError(
                f"{folder / name}: changed since it was published; publish it again with the command that made it"
            )


def _conversations(files: Sequence[Path], limit: int | None) -> Iterator[Conversation]:
    bad: list[BadRow] = []
    given = 0
    for file in files:
        format = _format(file)
        for where, row in read_rows(file):
            if given == limit:
                break
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            try:
                conversation = _conversation(row, format, where)
            except MalformedRow as problem:
                bad.append(BadRow(where, str(problem)))
                continue
            given += 1
            yield conversation
    if bad:
        lines = [f"{row.where}: {row.problem}" for row in bad[:_UNREAD]]
        more = [f"... and {len(bad) - _UNREAD} more"] if len(bad) > _UNREAD else []
        raise SourceError("\n".join([*lines, *more, "clean the data with `synthgen filter` first"]))


def _conversation(row: Row, format: Format, where: str) -> Conversation:
    messages = read_messages(row, format)
    own, root = row.get("id"), row.get("row")
    tools = read_tools(row)
    content = canonical_json([message.as_json() for message in messages])
    identity = own if isinstance(own, str) and own else blake2b(content, digest_size=16).hexdigest()
    return Conversation(
        messages,
        _flags(row, messages),
        tools=tools,
        id=identity,
        row=root if isinstance(root, str) and root else identity,
        where=where,
    )


def _flags(row: Row, messages: Sequence[Message]) -> tuple[bool, ...]:
    """`train` or `weight` of each message; a system message put in front of them has none."""
    turns = row.get("messages", row.get("conversations"))
    if isinstance(turns, str):
        turns = orjson.loads(turns)  # read_messages has read it
    if not isinstance(turns, list):
        return (True,) * len(messages)
    flags = [_flag(turn) for turn in turns]
    return (True,) * (len(messages) - len(flags)) + tuple(flags)


def _flag(turn: object) -> bool:
    if not isinstance(turn, Mapping):
        return True
    wanted = turn.get("train") if turn.get("train") is not None else turn.get("weight")
    if wanted is None or wanted in (0, 1):  # also False and True
        return wanted is None or bool(wanted)
    raise MalformedRow("a message's `train` or `weight` is neither 0 nor 1")


def _why_empty(path: Path) -> str:
    first = None if path.suffix == ".parquet" else next(read_rows(path), None)
    if first is None or not isinstance(first[1], BadRow):
        return f"{path}: no rows found"
    return f"{path}: no row can be read; the first, {first[1].where}: {first[1].problem}"


def _format(path: Path) -> Format:
    if path.suffix == ".parquet":
        columns = set(parquet_schema(path))
    else:
        rows = (row for _, row in read_rows(path) if not isinstance(row, BadRow))
        columns = {name for row in islice(rows, _PEEKED) for name in row}
    if not columns:
        raise SourceError(_why_empty(path))
    format = find_format(columns)
    if format is None:
        found = ", ".join(sorted(columns))
        raise SourceError(f"{path}: no known format: found columns {found}; accepted: {ACCEPTED}")
    return format
