"""Sealing: turning a finished segment into its compressed form, in the background, without ever risking it.

In: a raw segment and the account before it. Out: the files of `sealed.py`, the raw segment gone. Order: compressed file
written, synced, read back and compared; renamed; index written, synced, renamed (from here on the sealed form
counts); folder synced; raw segment removed. Guarantees: killed at any point, either the raw segment or the complete
sealed form is there, and opening gives the same; what a killed sealing leaves behind is written over by the next.
A disk without room for it ends sealing for the session, never the run.
Rejected: a process of its own (it would outlive a killed parent and touch a folder whose lock is free).
"""

import os
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np

from synthgen.errors import StorageError
from synthgen.journal.contents import Contents, index_path, raw_path, sealed_path
from synthgen.journal.ledger import Account
from synthgen.journal.sealed import Frames, SegmentIndex, compress, read_index, write_index
from synthgen.journal.system import sync_folder
from synthgen.spool import read_at

__all__ = ["seal"]

_FRAME_BYTES = 128 << 10


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
        del contents  # as large as the index
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
