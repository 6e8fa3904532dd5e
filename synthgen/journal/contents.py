"""What the lines of one segment say, and where its files are.

In: lines as they are read or written. Out: the last place of each key, the account after them, damage. Nothing here
needs arrays: a run that has no sealed segment does without numpy, a tenth of a second.
"""

from collections.abc import Iterable, Iterator
from dataclasses import field
from pathlib import Path

from synthgen.dataclasses import dataclass
from synthgen.journal.ledger import Account
from synthgen.journal.lines import Entry, scan
from synthgen.keymap import KeyMap

__all__ = [
    "SEGMENT_SHIFT",
    "Contents",
    "damage_at",
    "index_path",
    "place_of",
    "raw_path",
    "sealed_path",
]

# Bits of a place: the segment above, 40 bits of offset (1 TiB), one that says whether the entry is a failure.
SEGMENT_SHIFT = 41


def raw_path(folder: Path, number: int) -> Path:
    """A segment as it is written."""
    return folder / f"{number:06d}.jsonl"


def sealed_path(folder: Path, number: int) -> Path:
    """The compressed lines of a segment."""
    return folder / f"{number:06d}.jsonl.zst"


def index_path(folder: Path, number: int) -> Path:
    """The index of a sealed segment."""
    return folder / f"{number:06d}.idx"


def place_of(offset: int, *, failed: bool) -> int:
    """Where an entry stands in its segment, as one number."""
    return offset << 1 | failed


def damage_at(number: int, offset: int, length: int) -> str:
    """How damage is reported: offsets are those of the raw segment, also where it is sealed."""
    return f"{number:06d}.jsonl at byte {offset}: {length} damaged bytes skipped"


def _places() -> KeyMap:
    """Of a segment's hundred thousand keys: dicts took 40 MiB a segment, and three are held while one is sealed."""
    return KeyMap(number_bytes=6)


@dataclass(slots=True)
class Contents:
    """What the lines of a segment say: the last place of each key, the account after them, damage."""

    number: int
    account: Account
    replies: KeyMap = field(default_factory=_places)
    rows: KeyMap = field(default_factory=_places)
    damaged: list[str] = field(default_factory=list)
    end: int = 0

    def note(self, entry: Entry, offset: int) -> None:
        """Book an entry and remember where it stands."""
        key = bytes.fromhex(str(entry["k"]))
        kind = entry["t"]
        if kind == "S":
            self.rows.set(key, place_of(offset, failed=False))
            return
        self.account.note(key, entry)
        if kind in ("R", "F"):
            self.replies.set(key, place_of(offset, failed=kind == "F"))

    def read(self, lines: Iterable[bytes]) -> Iterator[int]:
        """Book all lines; yields the end of each, `end` says where the last whole one ended."""
        for offset, length, entry in scan(lines):
            self.end = offset + length
            if entry is None:
                self.damaged.append(damage_at(self.number, offset, length))
            else:
                self.note(entry, offset)
            yield self.end

    def note_tail(self, size: int) -> None:
        """Call what stands behind the last whole line damage: nobody is writing this segment."""
        if size > self.end:
            self.damaged.append(damage_at(self.number, self.end, size - self.end))
