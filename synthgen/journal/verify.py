"""Proving a journal: every line read, every index compared, every dollar added up again.

In: the journal folder of a run nobody works on. Out: `Verification`: damage, keys that were paid for twice, sends that
may have been paid without an answer, and the money of each. Writes nothing. Memory: 24 bytes a reply.
"""

from array import array
from collections.abc import Iterator
from dataclasses import asdict, field
from pathlib import Path
from typing import Literal, cast

import numpy as np

from synthgen.dataclasses import dataclass
from synthgen.errors import StorageError
from synthgen.journal.contents import Contents, damage_at, index_path, raw_path, sealed_path
from synthgen.journal.index import segment_numbers
from synthgen.journal.keys import SortedKeys
from synthgen.journal.ledger import Account
from synthgen.journal.lines import Entry, scan
from synthgen.journal.sealed import Frames, find_frames, read_index
from synthgen.keymap import KeyMap
from synthgen.types import JSONValue

__all__ = ["BatchUnderWay", "DoublePayment", "PossiblyPaid", "Segment", "Verification", "verify"]

# `no_reply`: an intent without an end (the run was killed); the others are reasons of attempts that ended without one.
_NO_REPLY = "no_reply"
_LOST_BATCH = "batch_lost"


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: its entries, its bytes before compression and on disk."""

    name: str
    form: Literal["raw", "sealed"]
    entries: int
    raw_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class DoublePayment:
    """A key with more than one answer. `extra_usd`: what all but the first cost."""

    key: str
    answers: int
    extra_usd: float


@dataclass(frozen=True, slots=True)
class PossiblyPaid:
    """A send whose reply never came. `usd` is its reservation; `answered`: whether the key has an answer by now."""

    key: str
    reason: str
    usd: float
    answered: bool


@dataclass(frozen=True, slots=True)
class BatchUnderWay:
    """A batch at a vendor whose end is not journaled; no double payment, no loss. `id` None: not yet known.

    `usd` is reserved for the `requests` that have no answer yet.
    """

    teacher: str
    id: str | None
    requests: int
    usd: float


@dataclass(slots=True)
class Verification:
    """What `verify` found. `torn_tail_bytes` at the end are no damage: the next session cuts them."""

    segments: list[Segment] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    torn_tail_bytes: int = 0
    double_payments: list[DoublePayment] = field(default_factory=list)
    possibly_paid: list[PossiblyPaid] = field(default_factory=list)
    batches_under_way: list[BatchUnderWay] = field(default_factory=list)
    paid_usd: float = 0.0
    unusable_usd: float = 0.0
    possibly_paid_usd: float = 0.0

    @property
    def extra_usd(self) -> float:
        """What was paid for keys that had an answer already."""
        return sum(payment.extra_usd for payment in self.double_payments)

    def as_json(self) -> dict[str, JSONValue]:
        """For `--json`."""
        found = cast(dict[str, JSONValue], asdict(self))
        return {"intact": not self.damaged, **found, "double_payments_usd": self.extra_usd}


class _Answers:
    """Every `R` entry as three numbers: finding those of equal keys needs no dict of all keys."""

    def __init__(self) -> None:
        self._high, self._low, self._usd = array("Q"), array("Q"), array("d")

    def add(self, key: bytes, usd: float) -> None:
        self._high.append(int.from_bytes(key[:8]))
        self._low.append(int.from_bytes(key[8:]))
        self._usd.append(usd)

    def repeated(self) -> Iterator[DoublePayment]:
        """Keys that were added more than once."""
        high, low, usd = np.array(self._high), np.array(self._low), np.array(self._usd)
        order = np.lexsort((low, high))  # stable: equal keys stay in the order they were bought
        high, low, usd = high[order], low[order], usd[order]
        same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        later = np.flatnonzero(same) + 1
        starts = later[~np.isin(later - 1, later)] - 1
        for start in starts.tolist():
            end = start + 1
            while end < len(high) and same[end - 1]:
                end += 1
            key = f"{int(high[start]):016x}{int(low[start]):016x}"
            yield DoublePayment(key, end - start, float(usd[start + 1 : end].sum()))

    def known(self, keys: set[str]) -> set[str]:
        """Those of `keys` that were added."""
        halves = np.array(sorted({int(key[:16], 16) for key in keys}), np.uint64)
        at = np.flatnonzero(np.isin(np.array(self._high), halves))
        return {f"{self._high[n]:016x}{self._low[n]:016x}" for n in at.tolist()} & keys


class _Reader:
    """One pass over a journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = Verification()
        self.answers = _Answers()
        self.account = Account()
        self.lost: list[tuple[str, str, float]] = []

    def segment(self, number: int, *, last: bool) -> None:
        raw = raw_path(self.folder, number)
        if raw.exists():
            contents, size = self._lines(number, raw, None)
            if last:
                self.found.torn_tail_bytes = size - contents.end
            else:
                contents.note_tail(size)
            self.found.damaged += contents.damaged
            return
        path = sealed_path(self.folder, number)
        if not path.exists():
            self.found.damaged.append(f"{path.name}: is missing")
            return
        index = read_index(index_path(self.folder, number), number)
        whole = index is not None and path.stat().st_size == index.frames.file_size
        frames = index.frames if index is not None and whole else find_frames(path)
        contents, size = self._lines(number, path, frames)
        contents.note_tail(size)
        name = index_path(self.folder, number).name
        if index is None:
            contents.damaged.append(f"{name}: is missing or damaged; the next run builds it again")
        elif not whole:
            contents.damaged.append(f"{path.name}: has not the size its index says")
        elif list(index.damaged) == contents.damaged and not (
            _same(index.replies, contents.replies)
            and _same(index.rows, contents.rows)
            and index.account == self.account
        ):
            contents.damaged.append(f"{name}: is not the index of its segment; remove it and run again")
        if index is not None:  # it knows the money of entries that are damaged by now
            self.account = index.account.copy()
        self.found.damaged += contents.damaged

    def _lines(self, number: int, path: Path, frames: Frames | None) -> tuple[Contents, int]:
        contents = Contents(number, self.account)
        count = 0
        with path.open("rb") as file:
            for offset, length, entry in scan(file if frames is None else frames.lines(file.fileno())):
                contents.end = offset + length
                if entry is None:
                    contents.damaged.append(damage_at(number, offset, length))
                    continue
                count += 1
                self._note(entry)  # before it is booked: that ends a lost batch
                contents.note(entry, offset)
        on_disk = path.stat().st_size
        size = on_disk if frames is None else frames.raw_size
        form: Literal["raw", "sealed"] = "raw" if frames is None else "sealed"
        self.found.segments.append(Segment(path.name, form, count, size, on_disk))
        return contents, size

    def _note(self, entry: Entry) -> None:
        kind, key = str(entry["t"]), str(entry["k"])
        self.found.entries[kind] = self.found.entries.get(kind, 0) + 1
        usd = cast(float, entry.get("usd") or 0.0)
        if kind == "R":
            self.answers.add(bytes.fromhex(key), usd)
        elif kind == "A" and entry.get("lost"):
            self.lost.append((key, str(entry["reason"]), usd))
        elif kind == "B" and entry["state"] == "lost" and key in self.account.batches:
            requests = self.account.batches[key].requests
            self.lost += ((request, _LOST_BATCH, usd) for request, (_, usd) in requests.items())

    def finish(self) -> Verification:
        """Add up."""
        found, ledger = self.found, self.account.ledger
        for key, reserved in self.account.open_sends.items():
            self.lost += ((key.hex(), _NO_REPLY, usd) for usd in reserved)
        answered = self.answers.known({key for key, _, _ in self.lost})
        found.possibly_paid = [
            PossiblyPaid(key, reason, usd, key in answered) for key, reason, usd in self.lost
        ]
        found.double_payments = list(self.answers.repeated())
        found.batches_under_way = [
            BatchUnderWay(batch.teacher, batch.id, len(batch.requests), batch.reserved_usd)
            for batch in self.account.batches.values()
        ]
        found.paid_usd = sum(tally.cost_usd for tally in ledger.tallies.values())
        found.unusable_usd = ledger.unusable_usd
        found.possibly_paid_usd = sum(usd for _, _, usd in self.lost)
        return found


def _same(stored: SortedKeys, places: KeyMap) -> bool:
    found = SortedKeys.of(places)
    columns = ((stored.high, found.high), (stored.low, found.low), (stored.place, found.place))
    return all(np.array_equal(one, other) for one, other in columns)


def verify(folder: Path) -> Verification:
    """Read a whole journal and say what it is worth. Hold `lock_run` around it.

    Raises:
        StorageError: it cannot be read at all.
    """
    reader = _Reader(folder)
    numbers = segment_numbers(folder)
    try:
        for number in numbers:
            reader.segment(number, last=number == numbers[-1])
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read: {error}") from error
    return reader.finish()
