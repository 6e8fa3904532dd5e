"""Frames of any columns, to the final shards of a dataset that nobody sees yet.

In: frames of one schema per kind of file, in the order they shall have. Out: finished shards for `publish`, at
`<out>/.staging/new`. Guarantees: memory holds one shard per kind; the bytes depend on the rows and their order alone,
not on how the frames were cut. A killed process leaves only `.staging`, which the next one removes.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from synthgen.dataset.about import CardFile
from synthgen.dataset.whole import storage_errors, sync_folder
from synthgen.dataset.write import stored_files, write_table

__all__ = ["TableStaging"]


class TableStaging:
    """Collects the rows of one publication, by the path of their shards (`data/train`)."""

    def __init__(self, out: Path, *, rows_per_shard: int, metadata: Mapping[str, str]) -> None:
        """Start empty, removing what a killed process left.

        Raises:
            StorageError: the folder cannot be made or cleared.
        """
        self.folder = out / ".staging"
        self.rows: Mapping[str, int] = {}
        self.files: tuple[CardFile, ...] = ()
        self._rows_per_shard = rows_per_shard
        self._metadata = metadata
        self._waiting: dict[str, list[pl.DataFrame]] = {}
        self._written: dict[str, list[tuple[Path, int]]] = {}
        with storage_errors(self.folder):
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.new.mkdir(parents=True)

    @property
    def new(self) -> Path:
        """Where the finished shards lie."""
        return self.folder / "new"

    def add(self, kind: str, frame: pl.DataFrame) -> None:
        """Append rows; also without rows, the kind will have a file.

        Raises:
            StorageError: the disk refuses.
        """
        waiting = self._waiting.setdefault(kind, [])
        waiting.append(frame)
        while sum(part.height for part in waiting) >= self._rows_per_shard:
            rows = pl.concat(waiting)
            self._write(kind, rows.head(self._rows_per_shard))
            waiting[:] = [rows.slice(self._rows_per_shard)]

    def finish(self) -> None:
        """Write what waits; `rows` then maps the paths of the shards to their rows, and `files` holds their hashes.

        Raises:
            StorageError: the disk refuses.
        """
        final: dict[str, int] = {}
        for kind, waiting in sorted(self._waiting.items()):
            rest = pl.concat(waiting)
            if rest.height or kind not in self._written:
                self._write(kind, rest)
            shards = self._written[kind]
            for number, (path, rows) in enumerate(shards):
                name = f"{kind}-{number:05d}-of-{len(shards):05d}.parquet"
                with storage_errors(path):
                    path.replace(self.new / name)
                final[name] = rows
            sync_folder((self.new / kind).parent)
        self.rows = final
        self.files = stored_files(self.new, final)

    def close(self) -> None:
        """Remove the staging folder, published or not."""
        with storage_errors(self.folder):
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def __enter__(self) -> "TableStaging":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, kind: str, frame: pl.DataFrame) -> None:
        shards = self._written.setdefault(kind, [])
        path = self.new / f"{kind}-{len(shards):05d}.parquet"
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_table(frame, path, metadata=self._metadata)
        shards.append((path, frame.height))
