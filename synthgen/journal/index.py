"""Reading a journal: which keys are answered, where, and what has been spent.

In: a run's `journal/` folder. Out: `JournalIndex`: point reads by key, the ledger of money and tokens, damage found.
Guarantees: memory is 30 bytes a key of a segment that is not sealed, of which there are two while a run goes on, and next
to nothing for the others: a key of theirs takes 20 bytes of temporary disk; opening reads no line of a sealed segment; a reply is only found once its line is whole; damage is
reported and costs only the entry it hit (in a sealed segment: its frame). Opening changes no file: cutting a torn tail and
sealing are the writer's business. Reading is safe from any thread; `note` belongs to one.
"""

import os
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from synthgen.errors import StorageError
from synthgen.journal.batches import OpenBatch
from synthgen.journal.contents import SEGMENT_SHIFT, Contents, damage_at, index_path, raw_path, sealed_path
from synthgen.journal.ledger import Account, Ledger
from synthgen.journal.lines import Entry, decode, scan
from synthgen.spool import Spool, read_at
from synthgen.types import JSONValue

if TYPE_CHECKING:  # sealed segments are read with numpy: only where there are some
    from synthgen.journal.keys import KeyTable
    from synthgen.journal.sealed import Frames, SegmentIndex

__all__ = ["JournalIndex", "segment_numbers", "segment_paths"]

_CACHED_FRAMES = 64  # of 128 KiB: replies are read about in the order they were written


def segment_numbers(folder: Path) -> list[int]:
    """Numbers of a journal's segments in order, raw and sealed."""
    names = (
        path.name.partition(".")
        for pattern in ("*.jsonl", "*.jsonl.zst", "*.idx")
        for path in folder.glob(pattern)
    )
    return sorted({int(stem) for stem, _, _ in names if stem.isdecimal()})


def segment_paths(folder: Path) -> list[Path]:
    """Journal segments in order: the raw file where there is one, else the sealed one."""
    raw_and_sealed = ((raw_path(folder, n), sealed_path(folder, n)) for n in segment_numbers(folder))
    return [raw if raw.exists() else sealed for raw, sealed in raw_and_sealed]


class _File:
    """A file handle that closes with its last reader: a raw segment may be sealed while somebody reads it."""

    def __init__(self, path: Path) -> None:
        self.handle = -1
        try:
            self.handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}") from error

    def __del__(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)


class JournalIndex:
    """Keys of a journal in memory, everything else on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._forgotten: set[bytes] = set()
        self._files: dict[int, _File] = {}
        self._changing = threading.Lock()
        self._frame = lru_cache(_CACHED_FRAMES)(self._read_frame)
        try:
            try:
                self._load_all()
            except FileNotFoundError:  # another process has just sealed what was listed
                self._load_all()
        except OSError as error:
            raise StorageError(f"{folder}: cannot be read: {error}") from error
        self._account.write_off()

    # Opening

    def _load_all(self) -> None:
        self.damaged: list[str] = []
        self.good_end: dict[int, int] = {}
        self._account = Account()
        self._recent: tuple[Contents, ...] = ()  # segments that are not sealed, oldest first
        self._replies: tuple[KeyTable, ...] = ()
        self._rows: tuple[KeyTable, ...] = ()
        self._frames: dict[int, Frames] = {}  # of those that are
        self._rebuilt: dict[int, SegmentIndex] = {}  # without a usable index file
        self._leftover: list[int] = []  # sealed, only the raw segment is still there
        numbers = segment_numbers(self.folder)
        self._load_tables([number for number in numbers if self._has_sealed_form(number)])
        for number in numbers:
            if number not in self._frames:
                self._load_raw(number, last=number == numbers[-1])

    def _has_sealed_form(self, number: int) -> bool:
        """Whether the sealed form of a segment counts: it is complete, or there is no other."""
        if not raw_path(self.folder, number).exists():
            return True
        path = sealed_path(self.folder, number)
        from synthgen.journal.sealed import read_index

        index = read_index(index_path(self.folder, number), number)
        if index is None or not path.exists() or path.stat().st_size != index.frames.file_size:
            return False
        self._leftover.append(number)
        return True

    def _load_tables(self, numbers: list[int]) -> None:
        """Load sealed segments: one table of all their keys."""
        if not numbers:
            return
        from synthgen.journal.keys import KeyTable

        parts, replies, rows = Spool(self.folder), list[KeyTable](), list[KeyTable]()
        for number in numbers:
            index = self.load_sealed(number)
            replies.append(KeyTable.of(index.replies, number << SEGMENT_SHIFT, parts))
            rows.append(KeyTable.of(index.rows, number << SEGMENT_SHIFT, parts))
            self._frames[number] = index.frames
            self.damaged += index.damaged
            self._account = index.account
        self._account = self._account.copy()
        whole = Spool(self.folder)
        self._replies = (KeyTable.merged(replies, whole),)
        self._rows = (KeyTable.merged(rows, whole),)

    def load_sealed(self, number: int) -> "SegmentIndex":
        """The index of a sealed segment: from its file, or built again from its lines."""
        from synthgen.journal.sealed import read_index, rebuild_index

        if number in self._rebuilt:
            return self._rebuilt[number]
        index = read_index(index_path(self.folder, number), number)
        path = sealed_path(self.folder, number)
        size = path.stat().st_size if path.exists() else None
        if index is None or size != index.frames.file_size:
            index = self._rebuilt[number] = rebuild_index(self.folder, number, self._account, index)
        return index

    def _load_raw(self, number: int, *, last: bool) -> None:
        contents = Contents(number, self._account)
        with raw_path(self.folder, number).open("rb") as file:
            for _ in contents.read(file):
                pass
            size = os.fstat(file.fileno()).st_size
        if not last:  # only the segment that was being written can be torn
            contents.note_tail(size)
        self.damaged += contents.damaged
        self.good_end[number] = contents.end
        self._recent += (contents,)

    # Changing

    @property
    def ledger(self) -> Ledger:
        """What was spent so far; sends that earlier sessions left open count as lost."""
        return self._account.ledger

    @property
    def open_batches(self) -> dict[str, OpenBatch]:
        """Batches that may still be under way at a vendor, by name; they change as entries are noted."""
        return self._account.batches

    def noting(self, segment: int) -> Callable[[Entry, int], None]:
        """What is to be told of every entry of a commit, and of its place in the segment."""
        recent = self._recent
        contents = recent[-1] if recent and recent[-1].number == segment else None
        if contents is None:
            contents = Contents(segment, self._account)
            with self._changing:
                self._recent += (contents,)
        return self._note_again if self._forgotten else contents.note

    def _note_again(self, entry: Entry, offset: int) -> None:
        self._recent[-1].note(entry, offset)
        if entry["t"] in ("R", "F"):
            self._forgotten.discard(bytes.fromhex(str(entry["k"])))

    def begin_session(self) -> None:
        """Forget the sends that are open: nobody will close them, and the ledger has them as lost."""
        self._account.open_sends.clear()

    def is_sealed(self, number: int) -> bool:
        """Whether this index reads a segment in its sealed form."""
        return number in self._frames

    def unsealed(self) -> list[int]:
        """Segments to be sealed: all raw ones but the last, and sealed ones whose sealing is not complete."""
        raw = [contents.number for contents in self._recent[:-1]]
        return sorted({*raw, *self._rebuilt, *self._leftover})

    def adopt(self, index: "SegmentIndex") -> None:
        """Go over to the sealed form of a segment, which holds the same."""
        from synthgen.journal.keys import with_segment

        replies = with_segment(self._replies, index.replies, index.number << SEGMENT_SHIFT, self.folder)
        rows = with_segment(self._rows, index.rows, index.number << SEGMENT_SHIFT, self.folder)
        self._replies, self._rows = replies, rows
        with self._changing:
            self._frames[index.number] = index.frames
            self._files.pop(index.number, None)
            self._recent = tuple(one for one in self._recent if one.number != index.number)

    # Looking up

    def _reply_place(self, key: bytes) -> int | None:
        if key in self._forgotten:
            return None
        for contents in reversed(self._recent):
            if (place := contents.replies.get(key)) is not None:
                return contents.number << SEGMENT_SHIFT | place
        return _find(self._replies, key)

    def _row_place(self, key: bytes) -> int | None:
        for contents in reversed(self._recent):
            if (place := contents.rows.get(key)) is not None:
                return contents.number << SEGMENT_SHIFT | place
        return _find(self._rows, key)

    def __contains__(self, key: str) -> bool:
        return self._reply_place(bytes.fromhex(key)) is not None

    def has_row(self, row_id: str) -> bool:
        """Whether the fields of a root row are journaled."""
        return self._row_place(bytes.fromhex(row_id)) is not None

    def reply(self, key: str) -> Entry | None:
        """The `R` or `F` entry of a request key."""
        place = self._reply_place(bytes.fromhex(key))
        return None if place is None else self._read(place)

    def row(self, row_id: str) -> Entry | None:
        """The `S` entry of a root row."""
        place = self._row_place(bytes.fromhex(row_id))
        return None if place is None else self._read(place)

    def forget_failures(self) -> int:
        """Make failed requests askable again; returns how many. Reads the index files of all sealed segments."""
        before = len(self._forgotten)
        for number, key, place in self._replies_with_places():
            if place & 1 and self._reply_place(key) == number << SEGMENT_SHIFT | place:
                self._forgotten.add(key)
        return len(self._forgotten) - before

    def _replies_with_places(self) -> Iterator[tuple[int, bytes, int]]:
        """Segment, key and place in it of every last reply a segment knows; a key may come once a segment."""
        recent = self._recent
        for number in sorted(self._frames):
            for key, place in self.load_sealed(number).replies.items():
                yield number, key, place
        for contents in recent:
            if contents.number not in self._frames:
                for key, place in contents.replies.items():
                    yield contents.number, key, place

    def keys(self) -> Iterator[str]:
        """Keys that have a reply or a final failure. Reads the index files of all sealed segments."""
        for number, key, place in self._replies_with_places():
            if self._reply_place(key) == number << SEGMENT_SHIFT | place:
                yield key.hex()

    def entries(self) -> Iterator[Entry]:
        """Every good entry in the order it was written."""
        for number in segment_numbers(self.folder):
            yield from self._entries_of(number)

    def _entries_of(self, number: int) -> Iterator[Entry]:
        frames = self._frames.get(number)
        if frames is not None and not len(frames):
            return
        path = raw_path(self.folder, number) if frames is None else sealed_path(self.folder, number)
        with path.open("rb") as file:
            for _, _, entry in scan(file if frames is None else frames.lines(file.fileno())):
                if entry is not None:
                    yield entry

    # Reading

    def _read(self, place: int) -> Entry:
        segment = place >> SEGMENT_SHIFT
        offset = (place & ((1 << SEGMENT_SHIFT) - 1)) >> 1
        file, frames = self._form_of(segment)
        line = _line_at(file, offset) if frames is None else self._sealed_line(segment, frames, offset)
        entry = decode(line)
        if entry is None:
            raise StorageError(
                f"{self.folder}: {damage_at(segment, offset, len(line))}; `synthgen journal verify` says what is "
                f"damaged; remove {index_path(self.folder, segment).name} to go on and ask again what was lost"
            )
        return entry

    def _sealed_line(self, segment: int, frames: "Frames", offset: int) -> bytes:
        number = frames.holding(offset)
        raw = self._frame(segment, number)
        start = offset - int(frames.raw_starts[number])
        return raw[start : raw.find(b"\n", start) + 1]

    def _read_frame(self, segment: int, number: int) -> bytes:
        file, frames = self._form_of(segment)
        assert frames is not None  # sealed once is sealed for good
        return frames.read(file.handle, number) or b""

    def _form_of(self, segment: int) -> "tuple[_File, Frames | None]":
        """The file of a segment, and its frames where it is sealed."""
        with self._changing:
            path = raw_path(self.folder, segment)
            if segment not in self._frames and segment not in self._files and not path.exists():
                # Another process has sealed it since we opened: places are the same in both forms.
                self._frames[segment] = self.load_sealed(segment).frames
            frames = self._frames.get(segment)
            if segment not in self._files:
                self._files[segment] = _File(path if frames is None else sealed_path(self.folder, segment))
            return self._files[segment], frames

    def close(self) -> None:
        """Close the segment files."""
        self._files.clear()
        self._frame.cache_clear()

    def possibly_paid(self) -> int:
        """Sends whose reply never came, over all sessions of this run."""
        return self.ledger.lost

    def summary(self) -> dict[str, JSONValue]:
        """Counts for people: replies, rows, damage."""
        from synthgen.journal.keys import distinct

        replies = distinct(self._replies, [contents.replies for contents in self._recent])
        rows = distinct(self._rows, [contents.rows for contents in self._recent])
        return {"replies": replies - len(self._forgotten), "rows": rows, "damaged": len(self.damaged)}


def _line_at(file: _File, offset: int) -> bytes:
    """The line that starts at `offset`."""
    size = 1 << 14
    while True:
        chunk = read_at(file.handle, size, offset)
        end = chunk.find(b"\n")
        if end >= 0 or len(chunk) < size:
            return chunk[: end + 1]
        size *= 4


def _find(tables: "tuple[KeyTable, ...]", key: bytes) -> int | None:
    for table in reversed(tables):
        if (place := table.find(key)) is not None:
            return place
    return None
