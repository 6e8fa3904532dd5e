"""Intermediate results of a long computation, so that a killed one goes on where it stopped.

In: arrays and frames by name. Out: the same, by memory map. Guarantees: a name that is there is whole (temporary name,
fsync, rename); results of another computation, by its fingerprint, are removed and never mixed in.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthgen.dataset.whole import storage_errors, sync_folder, write_bytes

__all__ = ["Scratch", "TextFile"]

_FINGERPRINT = "fingerprint.json"


class Scratch:
    """A folder of results of the computation that `fingerprint` describes."""

    def __init__(self, folder: Path, fingerprint: bytes) -> None:
        """Take over the results of the same computation, or start empty.

        Raises:
            StorageError: the folder cannot be made or cleared.
        """
        self.folder = folder
        with storage_errors(folder):
            known = folder / _FINGERPRINT
            if folder.exists() and not (known.is_file() and known.read_bytes() == fingerprint):
                shutil.rmtree(folder)
            if not folder.exists():
                folder.mkdir(parents=True)
                write_bytes(known, fingerprint)

    def has(self, name: str) -> bool:
        """Whether the result is there, and so whole."""
        return (self.folder / name).exists()

    @contextmanager
    def writer(self, name: str) -> Iterator[IO[bytes]]:
        """A file that gets its name when the block ends well.

        Raises:
            StorageError: the disk refuses.
        """
        path = self.folder / name
        partial = self.folder / f".{name}.part"
        with storage_errors(path):
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(self.folder)

    def save(self, name: str, array: NDArray[np.generic]) -> None:
        """Keep an array."""
        with self.writer(name) as file:
            np.save(file, array)

    def load(self, name: str) -> NDArray[np.uint64]:
        """An array of 64-bit numbers, mapped: its pages are read when they are touched."""
        with storage_errors(self.folder / name):
            mapped: NDArray[np.uint64] = np.load(self.folder / name, mmap_mode="r").view(np.uint64)
            return mapped

    def save_frame(self, name: str, frame: pl.DataFrame) -> None:
        """Keep a frame."""
        buffer = BytesIO()
        frame.write_ipc(buffer, compression="lz4")
        write_bytes(self.folder / name, buffer.getvalue())

    def load_frame(self, name: str, columns: Iterable[str]) -> pl.DataFrame:
        """Some columns of a frame."""
        with storage_errors(self.folder / name):
            return pl.read_ipc(BytesIO((self.folder / name).read_bytes()), columns=list(columns))

    def remove(self) -> None:
        """Remove all of it: the computation is done."""
        with storage_errors(self.folder):
            shutil.rmtree(self.folder)


class TextFile:
    """Texts of some rows, read by their number; in memory are two numbers a text."""

    def __init__(self, path: Path, row_N: NDArray[np.uint64], offset_N1: NDArray[np.uint64]) -> None:
        """`row_N` ascending; the text of its i-th row lies at `offset_N1[i]` of the file."""
        self._path = path
        self._row_N = row_N
        self._offset_N1 = offset_N1

    def read(self, row_M: NDArray[np.int64]) -> pl.Series:
        """The texts of these rows, each of which is in the file.

        Raises:
            StorageError: the file cannot be read.
        """
        place_M = np.searchsorted(self._row_N, row_M.astype(np.uint64))
        start_M, end_M = self._offset_N1[place_M].tolist(), self._offset_N1[place_M + 1].tolist()
        with storage_errors(self._path), self._path.open("rb") as file:
            texts = [os.pread(file.fileno(), b - a, a) for a, b in zip(start_M, end_M, strict=True)]
        return pl.Series(texts, dtype=pl.Binary).cast(pl.String)
