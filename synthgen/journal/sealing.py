"""Sealing: turning a finished segment into its compressed form, in the background, without ever risking it.

In: a raw segment and the account before it. Out: the files of `sealed.py`, the raw segment gone. Order: compressed file
written, synced, read back and compared; renamed; index written, synced, renamed (from here on the sealed form
counts); folder synced; raw segment removed. Guarantees: killed at any point, either the raw segment or the complete
sealed form is there, and opening gives the same; what a killed sealing leaves behind is written over by the next.
A disk without room for it ends sealing for the session, never the run.
Rejected: a process of its own (it would outlive a killed parent and touch a folder whose lock is free).
"""

import os
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from zlib import crc32

import numpy as np

from synthgen.errors import StorageError, SynthgenError
from synthgen.journal.index import JournalIndex
from synthgen.journal.ledger import Account
from synthgen.journal.sealed import (
    Contents,
    Frames,
    SegmentIndex,
    compress,
    index_path,
    raw_path,
    read_index,
    sealed_path,
    write_index,
)
from synthgen.spool import read_at

__all__ = ["Sealer", "seal", "sync_folder"]

_FRAME_BYTES = 128 << 10


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def seal(folder: Path, number: int, *, stopped: Callable[[], bool] = lambda: False) -> SegmentIndex:
    """Seal a raw segment; those before it are sealed already. Gives up soon after `stopped` says so.

    Raises:
        StorageError: what was written does not read back as the segment; that is kept.
        OSError: the disk refuses; `InterruptedError` when stopped.
    """
    raw, sealed, index = (at(folder, number) for at in (raw_path, sealed_path, index_path))
    sealed_new, index_new = _new(sealed), _new(index)
    try:
        contents = Contents(number, _account_before(folder, number))
        frames = _compress(raw, sealed_new, contents, stopped)
        sealed_new.replace(sealed)
        found = SegmentIndex.of(contents, frames)
        write_index(index_new, found)
        index_new.replace(index)
    except BaseException:
        for path in (sealed_new, index_new):
            path.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    raw.unlink()
    sync_folder(folder)
    return found


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _account_before(folder: Path, number: int) -> Account:
    if number == 1:
        return Account()
    before = read_index(index_path(folder, number - 1), number - 1)
    if before is None:
        raise StorageError(f"{index_path(folder, number - 1)}: is missing or damaged")
    return before.account


def _compress(raw: Path, path: Path, contents: Contents, stopped: Callable[[], bool]) -> Frames:
    """Write the compressed file, durable and checked, and note what the lines say on the way."""
    raw_starts, file_starts, raw_crc = [0], [0], 0
    with raw.open("rb") as file, path.open("wb") as out:
        size = os.fstat(file.fileno()).st_size

        def put(end: int) -> None:
            nonlocal raw_crc
            piece = read_at(file.fileno(), end - raw_starts[-1], raw_starts[-1])
            raw_crc = crc32(piece, raw_crc)
            raw_starts.append(end)
            file_starts.append(file_starts[-1] + out.write(compress(piece)))

        for end in contents.read(file):
            if stopped():
                raise InterruptedError("the session ended")
            if end - raw_starts[-1] >= _FRAME_BYTES:
                put(end)
        contents.note_tail(size)
        if size > raw_starts[-1]:
            put(size)
        out.flush()
        os.fsync(out.fileno())
    frames = Frames(np.array(raw_starts, np.uint64), np.array(file_starts, np.uint64))
    _read_back(path, frames, raw_crc)
    return frames


def _read_back(path: Path, frames: Frames, raw_crc: int) -> None:
    found = 0
    with path.open("rb") as file:
        for frame in range(len(frames)):
            found = crc32(frames.read(file.fileno(), frame) or b"", found)
    if found != raw_crc:
        raise StorageError(f"{path}: does not read back as it was written; is the disk failing?")


class Sealer:
    """Seals segments one after the other in a thread, and has the index use the sealed form."""

    def __init__(self, index: JournalIndex) -> None:
        self._index = index
        self._numbers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._closing = False
        self.problem: str | None = None
        self._thread: threading.Thread | None = None

    def add(self, numbers: Iterable[int]) -> None:
        """Have segments sealed, in ascending order; one that lost its index gets a new one."""
        for number in numbers:
            self._numbers.put(number)
            if self._thread is None:
                self._thread = threading.Thread(target=self._seal_forever, name="sealer", daemon=True)
                self._thread.start()

    def _seal_forever(self) -> None:
        while (number := self._numbers.get()) is not None and not self._closing:
            try:
                self._seal(number)
            except (OSError, SynthgenError) as error:
                # Nothing is lost: the segment stays as it is, and the next session tries again.
                self.problem = f"segment {number} could not be sealed: {error}"
                return

    def _seal(self, number: int) -> None:
        folder = self._index.folder
        if self._index.is_sealed(number):
            index = self._index.load_sealed(number)
            path = index_path(folder, number)
            write_index(_new(path), index)
            _new(path).replace(path)
            raw_path(folder, number).unlink(missing_ok=True)
            sync_folder(folder)
        else:
            self._index.adopt(seal(folder, number, stopped=lambda: self._closing))

    def finish(self) -> None:
        """Wait until all that was added is sealed; nothing can be added any more."""
        if self._thread is not None:
            self._numbers.put(None)
            self._thread.join()

    def close(self) -> None:
        """Stop at once; what is not sealed is left to the next session."""
        self._closing = True
        self.finish()
