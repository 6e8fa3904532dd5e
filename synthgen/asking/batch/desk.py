"""The desk of one teacher: requests collected until they make a batch.

In: requests as lines, with what each may cost. Out: as many of them as fit into one batch and under the cap, and the
journal's view of that batch. Nothing here waits or sends.
"""

import time
from collections.abc import Sequence
from dataclasses import field
from hashlib import blake2b
from typing import cast

from synthgen.asking.ask import TeacherSpec
from synthgen.asking.batch.calls import Calls
from synthgen.asking.batch.vendor import State, Ticket
from synthgen.asking.budget import Budget
from synthgen.dataclasses import dataclass
from synthgen.journal import Captured, OpenBatch
from synthgen.types import Request, Sampling, digest

__all__ = ["Collected", "Desk", "UnderWay", "prepared_batch"]

_FRAME_BYTES = 64  # what stands around the lines of a batch


@dataclass(frozen=True, slots=True)
class Collected:
    """One request as it will stand in a batch; `usd` is the most it can cost, `captured` what its reply is read for."""

    key: str
    step: str
    line: bytes
    usd: float
    captured: Captured | None


@dataclass(slots=True)
class Desk:
    """What is collected for one teacher. `most` shrinks where the vendor's queue is too short for its limit."""

    spec: TeacherSpec
    calls: Calls
    most: int
    collected: dict[str, Collected] = field(default_factory=dict)
    size_bytes: int = 0

    def collect(self, request: Request, key: str, step: str) -> None:
        """Add a request; in a batch it is one of its own."""
        line, usd = self.calls.line(key, request), self.spec.worst_usd(request)
        item = Collected(key, step, line, usd, _captured(request))
        self.collected[key] = item
        self.size_bytes += len(item.line) + 1

    def drop(self, key: str) -> None:
        """Take out a request, if it is there."""
        item = self.collected.pop(key, None)
        if item is not None:
            self.size_bytes -= len(item.line) + 1

    @property
    def is_full(self) -> bool:
        """Whether there is enough for the largest batch the vendor takes."""
        return len(self.collected) >= self.most or self.size_bytes >= self.calls.vendor.most_bytes

    def take(self, budget: Budget) -> list[Collected]:
        """Take out as much as fits into one batch and under the cap; its money is reserved."""
        taken: list[Collected] = []
        size_bytes = _FRAME_BYTES
        for item in self.collected.values():
            size_bytes += len(item.line) + 1
            if len(taken) == self.most or (taken and size_bytes > self.calls.vendor.most_bytes):
                break
            if not budget.try_reserve(item.usd):
                break
            taken.append(item)
        for item in taken:
            self.drop(item.key)
        return taken


@dataclass(slots=True)
class UnderWay:
    """A batch that is not over. `order`: its keys as sent, where this session sent them; `seen`: the vendor's last word."""

    batch: OpenBatch
    desk: Desk
    order: tuple[str, ...] = ()
    seen: State | None = None
    looked_at: bool = False

    @property
    def said(self) -> str:
        """One line for people."""
        if self.seen is None:
            return self.batch.said()
        return self.batch.said(done=self.seen.done, until=self.seen.expires_at)

    def question(self, key: str) -> Request | None:
        """As much of a request as its reply has to be read with; None where it is the text alone."""
        step, _ = self.batch.requests.get(key, ("", 0.0))
        captured = self.batch.captured.get(step)
        if captured is None:
            return None
        schema = "{}" if captured["constrained"] else None
        capture = tuple(captured["capture"])
        return Request((), self.desk.spec.identity, Sampling(), response_schema=schema, capture=capture)

    def ticket(self, run: str) -> Ticket:
        """What its vendor knows it by."""
        batch = self.batch
        return Ticket(batch.name, run, batch.content, frozenset(batch.requests), batch.prepared_at)


def prepared_batch(desk: Desk, taken: Sequence[Collected]) -> OpenBatch:
    """A batch of these requests, with a name no other has, also not one of the very same requests."""
    now, price = time.time(), desk.spec.price
    whole = blake2b(digest_size=16)
    for item in taken:
        whole.update(item.line + b"\n")
    content = whole.hexdigest()
    return OpenBatch(
        name=digest([content, desk.spec.alias, repr(now)]),
        teacher=desk.spec.alias,
        provider=desk.spec.config.provider,
        endpoint=desk.spec.endpoint,
        content=content,
        total=len(taken),
        price=None if price is None else cast(dict[str, float | None], price.model_dump()),
        prepared_at=round(now, 3),
        requests={item.key: (item.step, item.usd) for item in taken},
        captured={item.step: item.captured for item in taken if item.captured},
    )


def _captured(request: Request) -> Captured | None:
    constrained = request.response_schema is not None or request.tools is not None
    return {"capture": list(request.capture), "constrained": constrained} if request.capture else None
