"""What `dedup` knows of its rows: keys, order and names on disk, piece by piece; texts only where they are candidates.

In: files, and which text of a row is compared. Out: an `Index` over all of them, references first. Guarantees: of a row,
memory holds some bytes, never its text; a killed index goes on after its last whole piece; rows are numbered in the order
of files and lines, and that number says nothing about who survives.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset import Scratch, Table, TextFile, read_tables
from synthgen.refine.minhash import MinHasher
from synthgen.refine.shingles import I64, U64
from synthgen.refine.survivors import Keep, survival_order

__all__ = ["Index", "Inputs", "SpilledKeys", "build_index"]

PIECE_ROWS = 1 << 16
PIECE_BYTES = 32 << 20
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Some files with one schema. `id`: the column with the rows' names; None where there is none."""

    files: tuple[Path, ...]
    schema: pl.Schema
    text: pl.Expr
    id: str | None
    score: pl.Expr | None = None
    source: str | None = None

    def columns(self) -> list[str]:
        """What must be read to index a row: all of it where its content is its identity."""
        if self.id is None:
            return list(self.schema)
        used = {self.id, self.source, *self.text.meta.root_names()}
        used |= set(self.score.meta.root_names()) if self.score is not None else set()
        return [name for name in self.schema if name in used]


@dataclass(frozen=True, slots=True)
class SpilledKeys:
    """Band keys of all rows, read from disk one band at a time (`synthgen.refine.near.Keys`)."""

    scratch: Scratch
    pieces: int
    bands: int

    def band(self, number: int) -> U64:
        """The keys of one band."""
        return np.concatenate([self.scratch.load(_keys(i))[number] for i in range(self.pieces)])

    def totals(self) -> U64:
        """The sums of the shingle hashes."""
        return self.band(self.bands)


@dataclass(frozen=True, slots=True)
class Index:
    """All rows, those of `references` first; `size_I`: rows of each piece."""

    scratch: Scratch
    references: Inputs | None
    inputs: Inputs
    size_I: tuple[int, ...]
    reference_rows: int
    bands: int

    @property
    def rows(self) -> int:
        """References and input rows."""
        return sum(self.size_I)

    def keys(self) -> SpilledKeys:
        """The band keys."""
        return SpilledKeys(self.scratch, len(self.size_I), self.bands)

    def columns(self, names: Sequence[str], *, references: bool = False) -> pl.DataFrame:
        """What is kept of the input rows, or of the references: `file line id digest chars score source`."""
        start_I = np.cumsum([0, *self.size_I])[:-1]
        pieces = np.flatnonzero((start_I < self.reference_rows) == references).tolist()
        return pl.concat([self.scratch.load_frame(_rows(i), names) for i in pieces])

    def order(self, keep: Keep) -> I64:
        """Row numbers in the order of survival; references come before all inputs."""
        names = ["digest"] + (["id"] if self.inputs.id else [])
        names += {"longest": ["chars"], "best": ["score"]}.get(keep.policy, [])
        order_N = survival_order(self.columns(names), keep) + self.reference_rows
        if self.reference_rows == 0:
            return order_N
        first_N = survival_order(self.columns(["id", "digest"], references=True), Keep())
        return np.concatenate([first_N, order_N])

    def names(self, row_M: I64) -> list[str]:
        """What the rows are called, numbers ascending: their id, else `file:line`."""
        files = [path.as_posix() for group in self._groups() for path in group.files]
        out: list[str] = []
        start = 0
        for i, size in enumerate(self.size_I):
            lo, hi = np.searchsorted(row_M, [start, start + size])
            wanted = self.scratch.load_frame(_rows(i), ["id", "file", "line"])[row_M[lo:hi] - start]
            for name, file, line in wanted.iter_rows():
                out.append(f"{files[file]}:{line}" if name is None or name == "" else str(name))
            start += size
        return out

    def sources(self) -> tuple[pl.Series, list[str]]:
        """Each input row's source as a number, and what the numbers stand for."""
        if self.inputs.source is None:
            first = len(self.references.files) if self.references else 0
            return self.columns(["file"])["file"] - first, [path.as_posix() for path in self.inputs.files]
        source = self.columns(["source"])["source"].fill_null("(no source)")
        names = source.unique().sort().to_list()
        return source.cast(pl.Enum(names)).to_physical(), names

    def texts(self, row_M: I64) -> TextFile:
        """The compared texts of these rows, copied to a file of their own in one pass over the inputs."""
        if not self.scratch.has("texts-offsets.npy"):
            self._copy_texts(row_M)
        return TextFile(
            self.scratch.folder / "texts.bin",
            self.scratch.load("texts-rows.npy"),
            self.scratch.load("texts-offsets.npy"),
        )

    def _copy_texts(self, row_M: I64) -> None:
        wanted_N = np.zeros(self.rows, np.bool_)
        wanted_N[row_M] = True
        sizes: list[I64] = [np.zeros(1, np.int64)]
        start = 0
        with self.scratch.writer("texts.bin") as file:
            for group in self._groups():
                columns = group.text.meta.root_names()
                for table in read_tables(group.files, group.schema, columns=columns):
                    place_M = np.flatnonzero(wanted_N[start : start + table.frame.height])
                    start += table.frame.height
                    texts = table.frame[place_M].select(group.text).to_series()
                    file.write("".join(texts).encode())
                    sizes.append(texts.str.len_bytes().cast(pl.Int64).to_numpy())
        self.scratch.save("texts-rows.npy", np.flatnonzero(wanted_N))
        self.scratch.save("texts-offsets.npy", np.cumsum(np.concatenate(sizes)))

    def _groups(self) -> list[Inputs]:
        return [self.references, self.inputs] if self.references else [self.inputs]


def build_index(
    scratch: Scratch, references: Inputs | None, inputs: Inputs, hasher: MinHasher, keep: Keep, say: Say
) -> Index:
    """Index all rows that no earlier call has indexed.

    Raises:
        SourceError: a file cannot be read.
        StorageError: the disk refuses.
    """
    files = len(references.files) if references else 0
    size_I: list[int] = []
    done = [0, 0]  # rows of references, of inputs
    for i in count():
        if not scratch.has(_rows(i)):
            break
        file = scratch.load_frame(_rows(i), ["file"])["file"]
        size_I.append(len(file))
        of_references = int((file < files).sum())
        done[0] += of_references
        done[1] += len(file) - of_references
    for number, group, skip in ((0, references, done[0]), (files, inputs, done[1])):
        if group is None:
            continue
        tables = read_tables(group.files, group.schema, columns=group.columns(), skip=skip)
        for rows, texts in _pieces(tables, group, number, keep):
            keys = hasher.band_keys(texts)
            scratch.save(_keys(len(size_I)), np.vstack([keys.key_BN, keys.total_N]))
            if group.id is not None and keep.policy != "random":
                rows = rows.with_columns(digest=pl.Series(keys.total_N))
            scratch.save_frame(_rows(len(size_I)), rows)  # last: a piece is there when this file is
            size_I.append(rows.height)
            done[group is inputs] += rows.height
            say(f"{done[0] + done[1]} rows indexed")
    return Index(scratch, references, inputs, tuple(size_I), done[0], hasher.bands)


def _pieces(
    tables: Iterator[Table], group: Inputs, first_file: int, keep: Keep
) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
    """What is kept of the rows, and their compared texts, some tens of megabytes at once."""
    number_of = {path: first_file + i for i, path in enumerate(group.files)}
    rows: list[pl.DataFrame] = []
    texts: list[pl.Series] = []
    height = size = 0
    for table in tables:
        text = table.frame.select(group.text).to_series()
        rows.append(_row_frame(table, text, number_of[table.path], group, keep))
        texts.append(text)
        height += len(text)
        size += int(text.estimated_size())
        if height >= PIECE_ROWS or size >= PIECE_BYTES:
            yield pl.concat(rows), pl.concat(texts)
            rows, texts, height, size = [], [], 0, 0
    if height:
        yield pl.concat(rows), pl.concat(texts)


def _row_frame(table: Table, text: pl.Series, number: int, group: Inputs, keep: Keep) -> pl.DataFrame:
    """Columns in a fixed order; those that nobody will ask for are null."""
    none = pl.lit(None, dtype=pl.String)
    wanted = pl.col(group.id) if group.id else none
    if group.id and not group.schema[group.id].is_integer():
        wanted = wanted.cast(pl.String)
    score = group.score if group.score is not None else pl.lit(None, dtype=pl.Float64)
    source = pl.col(group.source).cast(pl.String) if group.source else none
    # Not a select: of literals alone, that would be one row.
    rows = table.frame.with_columns(id=wanted, score=score.cast(pl.Float64), source=source)
    if group.id is None:
        buffer = BytesIO()
        table.frame.select(pl.exclude(pl.Binary)).write_ndjson(buffer)  # JSON has no bytes
        digest = _digests(buffer.getvalue().split(b"\n")[:-1])
    elif keep.policy == "random":
        digest = _digests([str(name).encode() for name in rows["id"]])
    else:
        digest = [0] * rows.height  # the keys' totals take this place
    return rows.select(
        pl.lit(number, dtype=pl.UInt32).alias("file"),
        table.line.alias("line"),
        "id",
        pl.Series("digest", digest, dtype=pl.UInt64),
        text.str.len_chars().alias("chars"),
        "score",
        "source",
    )


def _digests(contents: Sequence[bytes]) -> list[int]:
    return [int.from_bytes(blake2b(content, digest_size=8).digest(), "big") for content in contents]


def _rows(piece: int) -> str:
    return f"rows-{piece:06d}.arrow"


def _keys(piece: int) -> str:
    return f"keys-{piece:06d}.npy"
