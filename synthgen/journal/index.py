"""Reading a journal: which keys are answered, at what offset, and what has been spent.

In: a run's `journal/` folder. Out: `JournalIndex`: point reads by key, the ledger of money and tokens, damage found.
Guarantees: memory is one small entry a key; a reply is only found once its line is whole; damage is reported and costs
only the entry it hit. Opening never writes: cutting a torn tail is the writer's business.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from synthgen.errors import StorageError
from synthgen.journal.lines import Entry, decode, scan
from synthgen.types import JSONValue

__all__ = ["JournalIndex", "Ledger", "Tally", "segment_paths"]

_SEGMENT_BITS = 40  # offsets below 1 TiB; the segment number sits above


@dataclass(slots=True)
class Tally:
    """Tokens and money of one (step, teacher): what the teacher reported for the replies we hold.

    `failed` counts final failures; a failed request that is asked again on request and fails again counts twice.
    """

    requests: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0


@dataclass(slots=True)
class Ledger:
    """What the journal says was spent. `lost_usd` keeps the reservation of sends whose reply never came."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    unusable_usd: float = 0.0
    unusable: int = 0
    lost: int = 0
    lost_usd: float = 0.0

    @property
    def spent_usd(self) -> float:
        """Everything that counts against the cap."""
        return sum(tally.cost_usd for tally in self.tallies.values()) + self.unusable_usd + self.lost_usd

    def tally(self, step: str, teacher: str) -> Tally:
        """The tally of one step and teacher, made on first use."""
        return self.tallies.setdefault((step, teacher), Tally())

    def add(self, entry: Entry) -> None:
        """Count an `R`, `F`, `A` or `X` entry."""
        kind = entry["t"]
        if kind in ("R", "F"):
            tally = self.tally(str(entry["step"]), str(entry["teacher"]))
            if kind == "F":
                tally.failed += 1
                return
            usage = cast(dict[str, int], entry.get("usage") or {})
            tally.requests += 1
            tally.input_tokens += usage.get("input_tokens", 0)
            tally.cached_input_tokens += usage.get("cached_input_tokens", 0)
            tally.output_tokens += usage.get("output_tokens", 0)
            tally.reasoning_tokens += usage.get("reasoning_tokens", 0)
            cost = cast(float | None, entry.get("usd"))
            tally.cost_usd += cost or 0.0
            tally.unpriced += cost is None
        elif kind == "A" and entry.get("lost"):
            self.lost += 1
            self.lost_usd += cast(float, entry.get("usd") or 0.0)
        elif kind == "X":
            self.unusable += 1
            self.unusable_usd += cast(float, entry.get("usd") or 0.0)


def segment_paths(folder: Path) -> list[Path]:
    """Journal segments in order."""
    return sorted(path for path in folder.glob("*.jsonl") if path.stem.isdecimal())


class JournalIndex:
    """Keys of a journal in memory, everything else on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger()
        self.damaged: list[str] = []
        self.good_end: dict[int, int] = {}
        self._replies: dict[bytes, int] = {}
        self._rows: dict[bytes, int] = {}
        self._failed: set[bytes] = set()
        self._open: dict[bytes, list[float]] = {}
        self._files: dict[int, int] = {}
        paths = segment_paths(folder)
        for path in paths:
            self._load(path, last=path == paths[-1])
        for reserved in self._open.values():
            self.ledger.lost += len(reserved)
            self.ledger.lost_usd += sum(reserved)

    def _load(self, path: Path, *, last: bool) -> None:
        number = int(path.stem)
        end = 0
        try:
            with path.open("rb") as file:
                for offset, length, entry in scan(file):
                    end = offset + length
                    if entry is None:
                        self._report_damage(path, offset, length)
                    else:
                        self.note(entry, number, offset)
                size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
        if size > end and not last:  # only the segment that was being written can be torn
            self._report_damage(path, end, size - end)
        self.good_end[number] = end

    def _report_damage(self, path: Path, offset: int, length: int) -> None:
        self.damaged.append(f"{path.name} at byte {offset}: {length} damaged bytes skipped")

    def note(self, entry: Entry, segment: int, offset: int) -> None:
        """Remember where an entry stands; called while loading and after every commit."""
        key = bytes.fromhex(str(entry["k"]))
        kind = entry["t"]
        position = segment << _SEGMENT_BITS | offset
        if kind == "S":
            self._rows[key] = position
            return
        if kind == "I":
            self._open.setdefault(key, []).append(cast(float, entry.get("usd") or 0.0))
            return
        self.ledger.add(entry)
        if kind in ("R", "A", "X") and (reserved := self._open.get(key)):
            reserved.pop()
            if not reserved:
                del self._open[key]
        if kind in ("R", "F"):
            self._replies[key] = position
            (self._failed.add if kind == "F" else self._failed.discard)(key)

    def begin_session(self) -> None:
        """Forget the sends that are open: nobody will close them, and the ledger has them as lost."""
        self._open.clear()

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._replies

    def has_row(self, row_id: str) -> bool:
        """Whether the fields of a root row are journaled."""
        return bytes.fromhex(row_id) in self._rows

    def reply(self, key: str) -> Entry | None:
        """The `R` or `F` entry of a request key."""
        position = self._replies.get(bytes.fromhex(key))
        return None if position is None else self._read(position)

    def row(self, row_id: str) -> Entry | None:
        """The `S` entry of a root row."""
        position = self._rows.get(bytes.fromhex(row_id))
        return None if position is None else self._read(position)

    def forget_failures(self) -> int:
        """Make failed requests askable again; returns how many."""
        count = len(self._failed)
        for key in self._failed:
            del self._replies[key]
        self._failed.clear()
        return count

    def entries(self) -> Iterator[Entry]:
        """Every good entry in the order it was written."""
        for path in segment_paths(self.folder):
            with path.open("rb") as file:
                for _, _, entry in scan(file):
                    if entry is not None:
                        yield entry

    def _read(self, position: int) -> Entry:
        segment, offset = position >> _SEGMENT_BITS, position & ((1 << _SEGMENT_BITS) - 1)
        file = self._file(segment)
        size = 1 << 14
        while True:
            chunk = os.pread(file, size, offset)
            end = chunk.find(b"\n")
            if end >= 0 or len(chunk) < size:
                break
            size *= 4
        entry = decode(chunk[: end + 1])
        if entry is None:
            raise StorageError(f"{self.folder}: entry at byte {offset} of segment {segment} is damaged")
        return entry

    def _file(self, segment: int) -> int:
        file = self._files.get(segment)
        if file is not None:
            return file
        path = self.folder / f"{segment:06d}.jsonl"
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
        kept = self._files.setdefault(segment, file)
        if kept != file:  # another thread was faster
            os.close(file)
        return kept

    def close(self) -> None:
        """Close the segment files."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def keys(self) -> Iterator[str]:
        """Keys that have a reply or a final failure."""
        return (key.hex() for key in self._replies)

    def possibly_paid(self) -> int:
        """Sends whose reply never came, over all sessions of this run."""
        return self.ledger.lost

    def summary(self) -> dict[str, JSONValue]:
        """Counts for people: replies, rows, damage."""
        return {"replies": len(self._replies), "rows": len(self._rows), "damaged": len(self.damaged)}
