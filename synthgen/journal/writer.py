"""Writing a journal: one thread, group commit, torn-tail recovery, the run lock.

In: entries from the event loop. Out: lines on disk; `commit` returns once its entry is durable (`fdatasync`), and
only then is the entry visible to readers. Entries that arrive while the disk works share the next commit, so one
`fdatasync` serves many requests under load and none waits for a timer.
Rejected: SQLite (12 times the CPU a row for the same durability), open-append-close a row (120 times).
"""

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from synthgen.errors import RunLocked, StorageError
from synthgen.journal.index import JournalIndex, segment_paths
from synthgen.journal.lines import Entry, encode

__all__ = ["Journal", "lock_run"]

SEGMENT_BYTES = 256 << 20


@dataclass(slots=True)
class _Pending:
    entry: Entry
    line: bytes
    done: asyncio.Future[None] | None


def lock_run(folder: Path) -> Callable[[], None]:
    """Take the lock of a run's journal folder; returns the function that gives it back.

    The lock is the kernel's (`flock`), so a killed process leaves none behind.

    Raises:
        RunLocked: another process holds it; the message names its pid.
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "LOCK", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be created: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(handle, 64, 0).decode(errors="replace").strip()
        os.close(handle)
        raise RunLocked(
            f"{folder.parent}: another synthgen (process {holder or 'unknown'}) works on this run; wait for it or stop it"
        ) from error
    except OSError as error:
        os.close(handle)
        raise StorageError(f"{folder / 'LOCK'}: cannot be locked: {error.strerror}") from error
    return lambda: os.close(handle)


class Journal:
    """The journal of a run, open for appending. Use from one event loop; hold `lock_run` around it."""

    def __init__(self, folder: Path) -> None:
        self.index = JournalIndex(folder)
        self.index.begin_session()
        self._loop = asyncio.get_running_loop()
        self._number, self._offset = self._recover(folder)
        try:
            self._file = _open_segment(folder, self._number)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be written: {error.strerror}") from error
        self._waiting: list[_Pending] = []
        self._wake = threading.Condition()
        self._closing = False
        self._failure: StorageError | None = None
        self.largest_commit = 0
        self._thread = threading.Thread(target=self._write_forever, name="journal", daemon=True)
        self._thread.start()

    def _recover(self, folder: Path) -> tuple[int, int]:
        """Cut the torn tail of the last segment; returns where to go on."""
        paths = segment_paths(folder)
        if not paths:
            return 1, 0
        number = int(paths[-1].stem)
        good_end = self.index.good_end[number]
        try:
            if paths[-1].stat().st_size > good_end:
                os.truncate(paths[-1], good_end)
        except OSError as error:
            raise StorageError(f"{paths[-1]}: cannot cut its torn tail: {error.strerror}") from error
        return number, good_end

    async def commit(self, *entries: Entry) -> None:
        """Append entries; returns when they are durable and readable.

        Raises:
            StorageError: this or an earlier write failed; nothing more is accepted.
        """
        done = self._loop.create_future()
        self._enqueue(list(entries), done)
        await done

    def append(self, *entries: Entry) -> None:
        """Append entries without waiting: durable with, or before, the next `commit`.

        Raises:
            StorageError: an earlier write failed.
        """
        self._enqueue(list(entries), None)

    def _enqueue(self, entries: list[Entry], done: asyncio.Future[None] | None) -> None:
        pending = [_Pending(entry, encode(entry), None) for entry in entries]
        pending[-1].done = done
        with self._wake:
            # Also after a failure: an answer that was under way then is kept for the last try in `close`.
            self._waiting += pending
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            self._wake.notify()

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if self._failure is not None or not self._waiting:
                    return
                batch, self._waiting = self._waiting, []
            try:
                positions = self._write(batch)
            except OSError as error:
                self._fail(batch, error)
                return
            self._loop.call_soon_threadsafe(self._committed, batch, positions)

    def _write(self, batch: list[_Pending]) -> list[tuple[int, int]]:
        if self._offset >= SEGMENT_BYTES:
            file = _open_segment(self.index.folder, self._number + 1)
            os.close(self._file)
            self._file, self._number, self._offset = file, self._number + 1, 0
        positions, offset = [], self._offset
        for pending in batch:
            positions.append((self._number, offset))
            offset += len(pending.line)
        rest = memoryview(b"".join(pending.line for pending in batch))
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fdatasync(self._file)
        self._offset = offset
        return positions

    def _committed(self, batch: list[_Pending], positions: list[tuple[int, int]]) -> None:
        self.largest_commit = max(self.largest_commit, len(batch))
        for pending, (segment, offset) in zip(batch, positions, strict=True):
            self.index.note(pending.entry, segment, offset)
            if pending.done is not None and not pending.done.done():
                pending.done.set_result(None)

    def _fail(self, batch: list[_Pending], error: OSError) -> None:
        """Cut what a failed write left behind and refuse everything from now on; the batch is kept for `close`."""
        path = self.index.folder / f"{self._number:06d}.jsonl"
        try:
            os.ftruncate(self._file, self._offset)
        except OSError as cut_error:
            error.add_note(f"the torn tail is cut on the next start ({cut_error.strerror})")
        failure = StorageError(
            f"{path}: cannot be written: {error.strerror}; free the disk and run the same command"
        )
        with self._wake:
            self._failure = failure
            self._waiting = batch + self._waiting
            waiting = [pending.done for pending in self._waiting]
        self._loop.call_soon_threadsafe(self._refuse, waiting, failure)

    @staticmethod
    def _refuse(waiting: list[asyncio.Future[None] | None], failure: StorageError) -> None:
        for done in waiting:
            if done is not None and not done.done():
                done.set_exception(failure)

    @property
    def failure(self) -> StorageError | None:
        """The write error that ended this journal, if any."""
        return self._failure

    async def close(self) -> int:
        """Write what waits, stop the thread, close the files; returns how many replies could not be stored."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # let the last `_committed` callbacks run
        lost = 0
        # The disk failed: one last try, for what came in since then. A refused intent was never sent.
        waiting = [pending for pending in self._waiting if pending.entry["t"] != "I"]
        if waiting:
            try:
                os.ftruncate(self._file, self._offset)
                self._committed(waiting, self._write(waiting))
            except OSError:
                lost = sum(pending.entry["t"] in ("R", "F", "X") for pending in waiting)
        os.close(self._file)
        self.index.close()
        return lost


def _open_segment(folder: Path, number: int) -> int:
    """Open a segment for appending, its name durable."""
    file = os.open(folder / f"{number:06d}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return file
