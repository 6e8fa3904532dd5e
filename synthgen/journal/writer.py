"""Writing a journal: one thread, group commit, torn-tail recovery, the full disk, the run lock.

In: entries from the event loop. Out: lines on disk; `commit` returns once its entry is durable (`fdatasync`), and
only then is the entry visible to readers. The thread is handed what one turn of the loop brings, at its end; entries that
arrive while the disk works share the next commit, so one `fdatasync` serves many requests under load and none waits for a
timer. A segment that is full is sealed in the
background. On a full disk no intent or row is accepted any more, so nothing further is sent; the ballast makes room for
the answers under way, which are stored and handed out as ever.
Rejected: SQLite (12 times the CPU a row for the same durability), open-append-close a row (120 times).
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from itertools import filterfalse
from pathlib import Path
from typing import TypeAlias

from synthgen.errors import RunLocked, StorageError, UsageError
from synthgen.journal.ballast import Ballast, is_full
from synthgen.journal.contents import raw_path
from synthgen.journal.index import JournalIndex, segment_numbers
from synthgen.journal.lines import Entry, encode
from synthgen.journal.sealer import Sealer
from synthgen.journal.system import lock, sync, sync_folder
from synthgen.spool import read_at

__all__ = ["Journal", "is_locked", "lock_run", "require_folder"]

SEGMENT_BYTES = 128 << 20


# An entry, its line, and who is told when it is durable.
_Pending: TypeAlias = tuple[Entry, bytes, "asyncio.Future[None] | None"]


def _is_paid(pending: _Pending) -> bool:
    """Whether it says what became of a send: that is kept also when nothing may be sent any more."""
    entry = pending[0]
    return entry["t"] not in ("I", "S") and entry.get("state") != "prepared"


def lock_run(folder: Path) -> Callable[[], None]:
    """Take the lock of a run's journal folder; returns the function that gives it back.

    The lock is the kernel's (`flock`), so a killed process leaves none behind.

    Raises:
        RunLocked: another process holds it; the message names its pid.
        UsageError: a file is in the place of a folder.
        StorageError: the folder cannot be written.
    """
    require_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "LOCK", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be created: {error.strerror}") from error
    try:
        lock(handle)
        if not _is_at(handle, folder / "LOCK"):
            # Somebody removed the file in between: whoever comes next locks another one, and both would write.
            os.close(handle)
            return lock_run(folder)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"{os.getpid()}\n".encode())
    except BlockingIOError as error:
        holder = read_at(handle, 64, 0).decode(errors="replace").strip()
        os.close(handle)
        raise RunLocked(
            f"{folder.parent}: another synthgen (process {holder or 'unknown'}) works on this run; wait for it or stop it"
        ) from error
    except OSError as error:
        os.close(handle)
        raise StorageError(f"{folder / 'LOCK'}: cannot be locked: {error.strerror}") from error
    return lambda: os.close(handle)


def require_folder(path: Path) -> None:
    """Check that `path` is a folder or can become one, before anything is read or bought for it. Makes nothing.

    Raises:
        UsageError: it is a file, or below one.
    """
    there = next((place for place in (path, *path.parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise UsageError(f"{there}: is a file, where a folder is to be; choose another with -o")


def is_locked(folder: Path) -> bool:
    """Whether a process works on the run of this journal folder. Writes nothing; False where nobody can tell."""
    try:
        handle = os.open(folder / "LOCK", os.O_RDWR)
    except OSError:
        return False
    try:
        lock(handle)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


class Journal:
    """The journal of a run, open for appending. Use from one event loop; hold `lock_run` around it."""

    def __init__(self, folder: Path) -> None:
        self.index = JournalIndex(folder)
        self.index.begin_session()
        self._loop = asyncio.get_running_loop()
        self._number, self._offset = self._recover(folder)
        try:
            self._ballast = Ballast(folder)
            self._file = _open_segment(folder, self._number)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be written: {error.strerror}") from error
        self._sealer = Sealer(self.index)
        self._sealer.add(self.index.unsealed())
        self._gathered: list[_Pending] = []  # in this turn of the loop; the thread knows nothing of them
        self._waiting: list[_Pending] = []
        self._wake = threading.Condition()
        self._closing = False
        self._failure: StorageError | None = None
        self._dead = False  # not even what is paid can be written
        self.largest_commit = 0
        self.uncommitted = 0  # lines handed over that are not durable yet
        self._thread = threading.Thread(target=self._write_forever, name="journal", daemon=True)
        self._thread.start()

    def _recover(self, folder: Path) -> tuple[int, int]:
        """Cut the torn tail of the last segment; returns where to go on."""
        numbers = segment_numbers(folder)
        if not numbers:
            return 1, 0
        number = numbers[-1]
        if self.index.is_sealed(number):
            return number + 1, 0
        path, good_end = raw_path(folder, number), self.index.good_end[number]
        try:
            if path.stat().st_size > good_end:
                os.truncate(path, good_end)
        except OSError as error:
            raise StorageError(f"{path}: cannot cut its torn tail: {error.strerror}") from error
        return number, good_end

    def commit(self, *entries: Entry) -> asyncio.Future[None]:
        """Append entries of one kind; to be awaited: they are then durable and readable.

        Raises:
            StorageError: this or an earlier write failed. From then on only what became of earlier sends is accepted,
                and that as long as there is room.
        """
        done = self._loop.create_future()
        self._gather(entries, done)
        return done

    def append(self, *entries: Entry) -> None:
        """Append entries of one kind without waiting: durable with, or before, the next `commit`.

        Raises:
            StorageError: as `commit`, of an earlier write.
        """
        self._gather(entries, None)

    def _gather(self, entries: Sequence[Entry], done: asyncio.Future[None] | None) -> None:
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        *others, last = entries
        for entry in others:
            self._gathered.append((entry, encode(entry), None))
        self._gathered.append((last, encode(last), done))
        self.uncommitted += len(entries)
        if self._failure is not None and self._refuses(self._gathered[-1]):
            if done is not None:
                done.cancel()  # nobody waits for it
            raise self._failure.with_traceback(None)

    def _refuses(self, pending: _Pending) -> bool:
        """Whether an entry is too late for a disk that has failed."""
        return self._failure is not None and (self._dead or not _is_paid(pending))

    def _hand_over(self) -> None:
        """Give the thread what this turn of the loop has brought."""
        gathered, self._gathered = self._gathered, []
        with self._wake:
            failure = self._failure
            refused = [] if failure is None else list(filter(self._refuses, gathered))
            # What is paid is kept also when the disk takes nothing: for the last try in `close`.
            self._waiting += (
                [one for one in gathered if _is_paid(one) or not self._refuses(one)] if refused else gathered
            )
            self._wake.notify()
        if failure is not None:
            self._refuse([done for _, _, done in refused], failure)

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if not self._waiting:
                    return
                batch, self._waiting = self._waiting, []
            if not self._write_or_fail(batch):
                return

    def _write_or_fail(self, batch: list[_Pending]) -> bool:
        """Write a batch; on a full disk what is paid of it, with the ballast gone. False: nothing more can be written."""
        try:
            segment, offset = self._write(batch)
        except OSError as error:
            first = self._failure is None
            self._fail(batch, error, dead=not (first and is_full(error)))
            if self._dead:
                return False
            self._ballast.release()
            kept = list(filter(_is_paid, batch))
            return not kept or self._write_or_fail(kept)
        self._loop.call_soon_threadsafe(self._committed, batch, segment, offset)
        return True

    def _write(self, batch: list[_Pending]) -> tuple[int, int]:
        """Write lines, one behind the other; the segment, and where in it the first one starts."""
        if self._offset >= SEGMENT_BYTES:
            file = _open_segment(self.index.folder, self._number + 1)
            os.close(self._file)
            self._sealer.add([self._number])
            self._file, self._number, self._offset = file, self._number + 1, 0
        start = self._offset
        lines = b"".join([line for _, line, _ in batch])
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        sync(self._file)
        self._offset += len(lines)
        return self._number, start

    def _committed(self, batch: list[_Pending], segment: int, offset: int) -> None:
        self.largest_commit = max(self.largest_commit, len(batch))
        self.uncommitted -= len(batch)
        note = self.index.noting(segment)
        for entry, line, done in batch:
            note(entry, offset)
            offset += len(line)
            if done is not None and not done.done():
                done.set_result(None)

    def _fail(self, batch: list[_Pending], error: OSError, *, dead: bool) -> None:
        """Cut what a failed write left behind and refuse what would cost money from now on.

        `dead`: refuse everything; what is paid is kept for `close`.
        """
        path = raw_path(self.index.folder, self._number)
        try:
            os.ftruncate(self._file, self._offset)
        except OSError as cut_error:
            error.add_note(f"the torn tail is cut on the next start ({cut_error.strerror})")
        failure = StorageError(
            f"{path}: cannot be written: {error.strerror}; free the disk and run the same command"
        )
        with self._wake:
            self._failure = failure = self._failure or failure
            self._dead = dead
            everything = batch + self._waiting
            refused = everything if dead else list(filterfalse(_is_paid, everything))
            # A refused intent was never sent: it must not be written later.
            self._waiting = list(filter(_is_paid, everything if dead else self._waiting))
        self._loop.call_soon_threadsafe(self._refuse, [done for _, _, done in refused], failure)

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
        self._hand_over()
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # let the last `_committed` callbacks run
        lost = 0
        # The disk failed: one last try.
        waiting = self._waiting
        if waiting:
            try:
                os.ftruncate(self._file, self._offset)
                self._committed(waiting, *self._write(waiting))
            except OSError:
                lost = sum(entry["t"] in ("R", "F", "X") for entry, _, _ in waiting)
        await asyncio.to_thread(self._sealer.close)
        self._ballast.release()
        os.close(self._file)
        self.index.close()
        return lost


def _open_segment(folder: Path, number: int) -> int:
    """Open a segment for appending, its name durable."""
    file = os.open(folder / f"{number:06d}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sync_folder(folder)
    return file
