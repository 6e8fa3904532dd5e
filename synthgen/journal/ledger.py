"""What a journal says was spent, and which sends are still without an end.

In: entries in the order they were written. Out: `Ledger`, sums per step and teacher; `Account`, the ledger with the open
sends, as JSON and back. Guarantee: an account stored after one segment and continued with the next gives the very sums
(to the last bit) of one pass over both, so that opening a journal need not read sealed segments.
Rejected: a sum per segment, added up when opening; floating-point sums would then depend on where segments end.
"""

from dataclasses import asdict, field
from typing import Self, cast

from synthgen.dataclasses import dataclass
from synthgen.journal.batches import OpenBatch, read_batch
from synthgen.journal.lines import Entry
from synthgen.types import JSONValue

__all__ = ["Account", "Ledger", "Tally"]


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
        found = self.tallies.get((step, teacher))
        if found is None:
            found = self.tallies[step, teacher] = Tally()
        return found

    def add(self, entry: Entry) -> None:
        """Count an `R`, `F`, `A` or `X` entry."""
        kind = entry["t"]
        if kind in ("R", "F"):
            tally = self.tally(str(entry["step"]), str(entry["teacher"]))
            if kind == "F":
                tally.failed += 1
                return
            tally.requests += 1
            if usage := cast("dict[str, int] | None", entry.get("usage")):
                tally.input_tokens += usage.get("input_tokens", 0)
                tally.cached_input_tokens += usage.get("cached_input_tokens", 0)
                tally.output_tokens += usage.get("output_tokens", 0)
                tally.reasoning_tokens += usage.get("reasoning_tokens", 0)
            cost = cast("float | None", entry.get("usd"))
            if cost is None:
                tally.unpriced += 1
            else:
                tally.cost_usd += cost
        elif kind == "A" and entry.get("lost"):
            self.lost += 1
            self.lost_usd += cast(float, entry.get("usd") or 0.0)
        elif kind == "X":
            self.unusable += 1
            self.unusable_usd += cast(float, entry.get("usd") or 0.0)


@dataclass(slots=True)
class Account:
    """The ledger up to some entry, the reservations of the sends that have no end yet, by key, and the open batches."""

    ledger: Ledger = field(default_factory=Ledger)
    open_sends: dict[bytes, list[float]] = field(default_factory=dict)
    batches: dict[str, OpenBatch] = field(default_factory=dict)

    def note(self, key: bytes, entry: Entry) -> None:
        """Book the next entry."""
        kind = entry["t"]
        if kind == "I":
            self.open_sends.setdefault(key, []).append(cast(float, entry.get("usd") or 0.0))
            return
        if kind == "B":
            self._note_batch(entry)
            return
        for batch in self.batches.values():
            batch.requests.pop(str(entry["k"]), None)
        self.ledger.add(entry)
        if kind in ("R", "A", "X") and (reserved := self.open_sends.get(key)):
            reserved.pop()
            if not reserved:
                del self.open_sends[key]

    def _note_batch(self, entry: Entry) -> None:
        name = str(entry["k"])
        match entry["state"]:
            case "prepared":
                self.batches[name] = read_batch(entry)
            case "submitted" if name in self.batches:
                self.batches[name].id = str(entry["id"])
                self.batches[name].submitted_at = cast(float, entry["at"])
            case "ended":
                self.batches.pop(name, None)
            case "lost" if name in self.batches:
                lost = self.batches.pop(name)
                self.ledger.lost += len(lost.requests)
                self.ledger.lost_usd += lost.reserved_usd

    def write_off(self) -> None:
        """Count every open send as lost; they stay open."""
        for reserved in self.open_sends.values():
            self.ledger.lost += len(reserved)
            self.ledger.lost_usd += sum(reserved)

    def copy(self) -> Self:
        """One that changes on its own."""
        return self.from_json(self.as_json())

    def as_json(self) -> dict[str, JSONValue]:
        """What `from_json` reads."""
        ledger = self.ledger
        batches = [batch.as_json() for batch in self.batches.values()]
        return {
            **({"batches": cast(JSONValue, batches)} if batches else {}),
            "tallies": [[step, teacher, asdict(tally)] for (step, teacher), tally in ledger.tallies.items()],
            "unusable_usd": ledger.unusable_usd,
            "unusable": ledger.unusable,
            "lost": ledger.lost,
            "lost_usd": ledger.lost_usd,
            "open_sends": {key.hex(): list(reserved) for key, reserved in self.open_sends.items()},
        }

    @classmethod
    def from_json(cls, stored: dict[str, JSONValue]) -> Self:
        """The account `as_json` stored."""
        tallies = cast(list[tuple[str, str, dict[str, int]]], stored["tallies"])
        ledger = Ledger(
            {(step, teacher): Tally(**tally) for step, teacher, tally in tallies},
            unusable_usd=cast(float, stored["unusable_usd"]),
            unusable=cast(int, stored["unusable"]),
            lost=cast(int, stored["lost"]),
            lost_usd=cast(float, stored["lost_usd"]),
        )
        sends = cast(dict[str, list[float]], stored["open_sends"])
        batches = map(read_batch, cast(list[Entry], stored.get("batches") or []))
        return cls(
            ledger,
            {bytes.fromhex(key): list(reserved) for key, reserved in sends.items()},
            {batch.name: batch for batch in batches},
        )
