"""Batches of requests at a vendor, as journal entries.

In: which requests go into a batch, and what becomes of it. Out: `B` entries and `OpenBatch`, what they leave open.
A batch is `prepared` (durable before anything is sent: the intent of all its requests, with their reservations),
then `submitted` (with the vendor's id), then `ended` (each of its requests has its own entry by then, or was not
answered and cost nothing) or `lost` (nobody can say any more what became of it: what has no entry may have been paid).
Rejected: an `I` entry a request (twice the bytes, and a killed run would count requests as lost that are only waiting).
"""

import time
from collections.abc import Mapping
from dataclasses import field
from typing import TypedDict, cast

from synthgen.dataclasses import dataclass
from synthgen.journal.lines import Entry
from synthgen.types import JSONValue

__all__ = [
    "Captured",
    "OpenBatch",
    "lost_entry",
    "over_entry",
    "prepared_entry",
    "read_batch",
    "submitted_entry",
]


# Both vendors give up on a batch a day after it was created.
_DAY_S = 86_400.0


class Captured(TypedDict):
    """What the replies of a step are read for; `constrained`: a schema or tools rule out some of their tokens."""

    capture: list[str]
    constrained: bool


@dataclass(slots=True)
class OpenBatch:
    """A batch whose end is not journaled. `requests`: key -> (step, reserved USD) of those without an entry of their own.

    `name` is ours, 32 hex digits, unique for ever; `id` the vendor's, None while it is not known whether there is one.
    `price` (USD per million tokens) is the one it was sent under, None where unknown. `captured`: step -> what its
    replies are read for besides the text, as in the requests; steps without any are left out. Times are Unix seconds.
    """

    name: str
    teacher: str
    provider: str
    endpoint: str
    content: str
    total: int
    price: Mapping[str, float | None] | None
    prepared_at: float
    requests: dict[str, tuple[str, float]]
    captured: Mapping[str, Captured] = field(default_factory=dict)
    id: str | None = None
    submitted_at: float | None = None

    @property
    def reserved_usd(self) -> float:
        """What its unanswered requests may cost at most."""
        return sum(usd for _, usd in self.requests.values())

    def said(self, *, done: int | None = None, until: float | None = None) -> str:
        """One line for people; `until` is the vendor's time limit, by default a day after it was sent."""
        until = until or (self.submitted_at or self.prepared_at) + _DAY_S
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(until))
        how_far = f"{self.total} requests" if done is None else f"{done} of {self.total} done"
        name = self.id or "(not yet confirmed by its vendor)"
        return f"batch {name} of teacher {self.teacher}: {how_far}, until {day} at the latest"

    def as_json(self) -> Entry:
        """What `read_batch` reads."""
        steps: dict[str, dict[str, float]] = {}
        for key, (step, usd) in self.requests.items():
            steps.setdefault(step, {})[key] = usd
        return {
            "k": self.name,
            "t": "B",
            "state": "prepared",
            "teacher": self.teacher,
            "provider": self.provider,
            "endpoint": self.endpoint,
            "content": self.content,
            "total": self.total,
            "price": cast(JSONValue, self.price),
            "at": self.prepared_at,
            "requests": cast(JSONValue, steps),
            **({"captured": cast(JSONValue, self.captured)} if self.captured else {}),
            **({} if self.id is None else {"id": self.id, "submitted_at": self.submitted_at}),
        }


def read_batch(entry: Entry) -> OpenBatch:
    """The batch of a `prepared` entry, or of `as_json`."""
    steps = cast(dict[str, dict[str, float]], entry["requests"])
    return OpenBatch(
        name=str(entry["k"]),
        teacher=str(entry["teacher"]),
        provider=str(entry["provider"]),
        endpoint=str(entry["endpoint"]),
        content=str(entry["content"]),
        total=cast(int, entry["total"]),
        price=cast(dict[str, float | None] | None, entry["price"]),
        prepared_at=cast(float, entry["at"]),
        requests={key: (step, usd) for step, keys in steps.items() for key, usd in keys.items()},
        captured=cast(dict[str, Captured], entry.get("captured") or {}),
        id=cast(str | None, entry.get("id")),
        submitted_at=cast(float | None, entry.get("submitted_at")),
    )


def prepared_entry(batch: OpenBatch) -> Entry:
    """Before anything of it is sent."""
    return batch.as_json()


def submitted_entry(name: str, vendor_id: str) -> Entry:
    """Once the vendor has named it."""
    return {"k": name, "t": "B", "state": "submitted", "id": vendor_id, "at": round(time.time(), 3)}


def over_entry(name: str, status: str, counts: Mapping[str, int]) -> Entry:
    """Once every answer of it is journaled, or it is known never to have been created; `counts` are for people."""
    return {"k": name, "t": "B", "state": "ended", "status": status, "counts": dict(counts)}


def lost_entry(name: str, status: str) -> Entry:
    """Where its answers can no longer be had: those without an entry may have been paid."""
    return {"k": name, "t": "B", "state": "lost", "status": status}
