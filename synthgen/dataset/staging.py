"""From candidates, wave by wave, to the final shards of a dataset that nobody sees yet.

In: frames of one schema per kind, in plan order. Out: a folder of finished shards for `publish`, at
`<out>/.staging/new`. Guarantees: memory holds a few thousand rows while they arrive and two shards while they are
cut; the bytes depend on the rows and their order alone, not on how the frames were cut; all records of one root row
are on the same side of the train/test split. A killed process leaves only `.staging`, which the next one removes.
One writer per folder: the caller holds the run's lock.
Rejected: writing final shards at once. The split and the number of shards are only known when all rows are.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import polars as pl

from synthgen.dataset.about import CardFile
from synthgen.dataset.whole import storage_errors, sync_folder
from synthgen.dataset.write import check_schema, stored_files, write_parquet
from synthgen.schema import RecordShape, Table, table_schema

__all__ = ["Kind", "Staging", "root_hash"]

Kind = Literal["accepted", "rejected", "quarantine", "lineage", "logprobs", "judgements"]

_TABLE: dict[Kind, Table] = {
    "accepted": "record",
    "rejected": "rejected",
    "quarantine": "rejected",
    "lineage": "lineage",
    "logprobs": "logprobs",
    "judgements": "judgements",
}
# A reply of 400 tokens with 20 alternatives each takes about 100 KB: a shard of these is some 200 MB in memory.
LOGPROBS_ROWS_PER_SHARD = 2048
SPOOL_ROWS = 4096
SPOOL_BYTES = 32 << 20
_NO_METADATA: Mapping[str, str] = MappingProxyType({})


def root_hash(row: str) -> int:
    """Where a root row falls in the split: blake2b of its id as a number below 2**64."""
    return int.from_bytes(blake2b(row.encode(), digest_size=8).digest(), "big")


class Staging:
    """Collects the rows of one publication. `close` (or leaving the `with` block) removes what was not published.

    `policy_ids` are those of the accepted rows so far.
    """

    def __init__(self, out: Path, shape: RecordShape, *, rows_per_shard: int, test_share: float) -> None:
        """Start empty, removing what a killed process left.

        Raises:
            StorageError: the folder cannot be made or cleared.
        """
        if rows_per_shard < 1 or not 0 <= test_share < 1:
            raise ValueError(
                f"rows_per_shard {rows_per_shard} must be above 0, test_share {test_share} in 0..1"
            )
        self.folder = out / ".staging"
        self.shape = shape
        self.rows: Mapping[str, int] = {}
        self.files: tuple[CardFile, ...] = ()
        self.policy_ids: set[str] = set()
        self._rows_per_shard = rows_per_shard
        self._test_share = test_share
        self._split = _Split()
        self._withdrawn: pl.DataFrame | None = None
        with storage_errors(self.folder):
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.new.mkdir(parents=True)
            self._spools = {kind: _Spool(self.folder / kind) for kind in get_args(Kind)}

    @property
    def new(self) -> Path:
        """Where the finished shards lie, in the folders they will have in the dataset."""
        return self.folder / "new"

    def add(self, kind: Kind, frame: pl.DataFrame) -> None:
        """Append rows, in plan order within their kind.

        Raises:
            ValueError: the frame has not the schema of its kind, or a null `id` or `row`.
            StorageError: the disk refuses.
        """
        check_schema(frame, _TABLE[kind], self.shape)
        needed = ["id", "row"] if "row" in frame.columns else ["id"]
        if any(frame[name].null_count() for name in needed):
            raise ValueError(f"{kind}: {' and '.join(needed)} must not be null")
        if kind == "accepted":
            self._split.see(frame["row"].unique())
            self.policy_ids.update(frame["policy_id"].drop_nulls().unique())
        self._spools[kind].add(frame)

    def accepted(self) -> Iterator[pl.DataFrame]:
        """The accepted rows so far, in order, without those withdrawn; they stay."""
        for frame in self._spools["accepted"].read():
            yield self._staying(frame)

    def in_test(self, frame: pl.DataFrame) -> pl.Series:
        """Which of the rows the split puts into `data/test`, as far as rows are known."""
        cut = self._split.cut(self._test_share)
        return pl.Series([cut > 0 and root_hash(row) < cut for row in frame["row"]], dtype=pl.Boolean)

    def withdraw(self, said: pl.DataFrame, *, same_split: bool = False) -> None:
        """Move accepted rows behind the rejects; `said` has `id`, `stage`, `reason`, `score`, `threshold`, `detail`.

        Their logprobs go. `policy_ids` are then those of the rows that stay, and so is the split, unless it is kept.
        """
        self._withdrawn = said if self._withdrawn is None else pl.concat([self._withdrawn, said])
        if not same_split:
            self._split = _Split()
        self.policy_ids = set()
        for frame in self.accepted():
            if not same_split:
                self._split.see(frame["row"].unique())
            self.policy_ids.update(frame["policy_id"].drop_nulls().unique())

    def _staying(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self._withdrawn is None:
            return frame
        return frame.join(self._withdrawn, on="id", how="anti", maintain_order="left")

    def finish(self, *, metadata: Mapping[str, str] = _NO_METADATA) -> None:
        """Cut everything added into final shards under `new`; `rows` then maps their paths to row counts, and `files`
        holds their hashes.

        `data/` always has a train shard, be it empty; other kinds have files only if they have rows.
        `metadata` goes into every shard under `synthgen.*`.

        Raises:
            StorageError: the disk refuses.
        """
        train = self._shards("accepted", "data/train", metadata)
        test = self._shards("accepted", "data/test", metadata)
        withdrawn: list[pl.DataFrame] = []
        for frame in self._spools["accepted"].drain():
            if self._withdrawn is not None:
                withdrawn.append(frame.join(self._withdrawn, on="id", how="inner", maintain_order="left"))
                frame = self._staying(frame)
            in_test = self.in_test(frame)
            train.add(frame.filter(~in_test))
            test.add(frame.filter(in_test))
        written = [train.finish(at_least_one=True), test.finish()]
        for kind in ("rejected", "quarantine", "lineage", "logprobs", "judgements"):
            shards = self._shards(kind, f"{kind}/{kind}", metadata)
            for frame in self._spools[kind].drain():
                shards.add(self._staying(frame) if kind == "logprobs" else frame)
            for frame in withdrawn if kind == "rejected" else ():
                shards.add(frame.select(table_schema("rejected", self.shape).names()))
            written.append(shards.finish())
        self.rows = {path: rows for part in written for path, rows in part.items()}
        self.files = stored_files(self.new, self.rows)

    def close(self) -> None:
        """Remove the staging folder, published or not."""
        with storage_errors(self.folder):
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def __enter__(self) -> "Staging":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shards(self, kind: Kind, prefix: str, metadata: Mapping[str, str]) -> "_Shards":
        rows = self._rows_per_shard
        if kind == "logprobs":
            rows = min(rows, LOGPROBS_ROWS_PER_SHARD)
        return _Shards(self.new, prefix, _TABLE[kind], self.shape, rows, metadata)


class _Split:
    """What must be known of all root rows to split them: the extremes of their hashes."""

    def __init__(self) -> None:
        self._lowest: int | None = None
        self._highest: int | None = None

    def see(self, rows: Iterable[str]) -> None:
        hashes = [root_hash(row) for row in rows]
        if not hashes:
            return
        lowest, highest = min(hashes), max(hashes)
        self._lowest = lowest if self._lowest is None else min(self._lowest, lowest)
        self._highest = highest if self._highest is None else max(self._highest, highest)

    def cut(self, share: float) -> int:
        """Root rows whose hash is below this are the test split.

        With two root rows or more and a share above 0, either side has at least one.
        """
        if share == 0 or self._lowest is None or self._highest is None:
            return 0
        return min(max(int(share * 2**64), self._lowest + 1), self._highest)


class _Spool:
    """Rows waiting on disk, in Arrow IPC pieces; a piece is written once it is worth a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pieces: list[Path] = []
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        folder.mkdir()

    def add(self, frame: pl.DataFrame) -> None:
        if frame.height == 0:
            return
        self._waiting.append(frame)
        self._waiting_rows += frame.height
        self._waiting_bytes += int(frame.estimated_size())
        if self._waiting_rows >= SPOOL_ROWS or self._waiting_bytes >= SPOOL_BYTES:
            self._flush()

    def _flush(self) -> None:
        path = self._folder / f"{len(self._pieces):06d}.arrow"
        buffer = BytesIO()
        pl.concat(self._waiting).write_ipc(buffer, compression="lz4")
        with storage_errors(path):
            path.write_bytes(buffer.getvalue())  # no fsync: a spool never outlives its process
        self._pieces.append(path)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def read(self) -> Iterator[pl.DataFrame]:
        """The rows in order; they stay."""
        if self._waiting:
            self._flush()
        for path in self._pieces:
            with storage_errors(path):
                content = path.read_bytes()
            yield pl.read_ipc(BytesIO(content))

    def drain(self) -> Iterator[pl.DataFrame]:
        """The rows in order; each piece is deleted once it is read, so the disk holds the rows about once."""
        if self._waiting:
            self._flush()
        for path in self._pieces:
            with storage_errors(path):
                content = path.read_bytes()
                path.unlink()
            yield pl.read_ipc(BytesIO(content))
        self._pieces = []


class _Shards:
    """Cuts a stream of frames into files of `rows_per_shard` rows under a final name."""

    def __init__(
        self,
        root: Path,
        prefix: str,
        table: Table,
        shape: RecordShape,
        rows_per_shard: int,
        metadata: Mapping[str, str],
    ) -> None:
        self._root = root
        self._prefix = prefix
        self._table = table
        self._shape = shape
        self._rows_per_shard = rows_per_shard
        self._metadata = metadata
        self._waiting: list[pl.DataFrame] = []
        self._written: list[tuple[Path, int]] = []

    def add(self, frame: pl.DataFrame) -> None:
        self._waiting.append(frame)
        while sum(part.height for part in self._waiting) >= self._rows_per_shard:
            rows = pl.concat(self._waiting)
            self._write(rows.head(self._rows_per_shard))
            self._waiting = [rows.slice(self._rows_per_shard)]

    def finish(self, *, at_least_one: bool = False) -> dict[str, int]:
        """Path relative to the dataset -> rows; the names get their `-of-000NN` now that the count is known."""
        rest = (
            pl.concat(self._waiting) if self._waiting else table_schema(self._table, self._shape).to_frame()
        )
        if rest.height or (at_least_one and not self._written):
            self._write(rest)
        self._waiting = []
        final: dict[str, int] = {}
        for number, (path, rows) in enumerate(self._written):
            name = f"{self._prefix}-{number:05d}-of-{len(self._written):05d}.parquet"
            with storage_errors(path):
                path.replace(self._root / name)
            final[name] = rows
        if self._written:
            sync_folder((self._root / self._prefix).parent)
        return final

    def _write(self, frame: pl.DataFrame) -> None:
        path = self._root / f"{self._prefix}-{len(self._written):05d}.parquet"
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(frame, path, table=self._table, shape=self._shape, metadata=self._metadata)
        self._written.append((path, frame.height))
