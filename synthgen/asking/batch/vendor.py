"""What a vendor's batch API is to us: the words shared by both vendors' modules and the desk.

In: nothing. Out: the `Vendor` protocol and the values it speaks in. A vendor module says what the vendor says; it never
waits, retries or journals. Errors leave it as `Refused` (a reply with an error status) or `TransportFailure` (no whole
reply), so that the wire's taxonomy decides what they mean, as it does for live requests.
Rejected: the SDKs' own retries and pollers (they know no gate, no journal, no signal).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from synthgen.asking.outcome import HttpReply
from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue

__all__ = [
    "Line",
    "Pace",
    "Problem",
    "Refused",
    "ResultsGone",
    "State",
    "Ticket",
    "Undecided",
    "Vendor",
    "split_lines",
]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait for what, in seconds.

    A batch is looked at after `poll_s`, then less and less often down to every `longest_poll_s` (both vendors promise
    24 hours, most batches end within one). Requests are submitted when for `linger_s` nothing has moved. A batch whose
    submission was cut off counts as never created only `settle_s` later, when the vendor's list must show it.
    """

    poll_s: float = 10.0
    longest_poll_s: float = 300.0
    linger_s: float = 1.0
    settle_s: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Ticket:
    """A batch to be created, or looked for. `keys` are its custom ids; `name` and `run` its metadata, where there is any."""

    name: str
    run: str
    content: str
    keys: frozenset[str]
    prepared_at: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a batch was refused as a whole, as a reply the wire can read; `line` (from 1) names the request at fault."""

    code: str
    reply: HttpReply
    line: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A batch as its vendor sees it. `status` is the vendor's word; `files` what its results stand in."""

    id: str
    status: str
    over: bool
    done: int
    total: int
    expires_at: float | None
    files: tuple[str, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One result. `reply` None: it was not answered and costs nothing, `status` says why (expired, cancelled).

    `billed` is false for errors inside a batch: the vendor charges only for answers.
    """

    custom_id: str
    reply: HttpReply | None
    status: str = ""
    billed: bool = True


class Refused(Exception):
    """The vendor answered with an error status."""

    def __init__(self, reply: HttpReply) -> None:
        super().__init__(f"HTTP {reply.status}")
        self.reply = reply


class Undecided(Exception):
    """Whether a batch was created cannot be told yet; look again later."""


class ResultsGone(Exception):
    """The vendor keeps the results of this batch no longer."""


class Vendor(Protocol):
    """One vendor's batches, for one endpoint and credential. Every call raises `Refused` or `TransportFailure`."""

    most_requests: int
    most_bytes: int

    def line(self, key: str, body: dict[str, JSONValue]) -> bytes:
        """One request as it stands in a batch."""
        ...

    async def upload(self, ticket: Ticket, lines: Sequence[bytes]) -> str | bytes:
        """Bring the requests to where `create` finds them. Costs nothing; may be repeated."""
        ...

    async def create(self, ticket: Ticket, uploaded: str | bytes) -> str:
        """Start the batch; its id."""
        ...

    async def find(self, ticket: Ticket) -> str | None:
        """The id of the batch of this ticket, if the vendor has one.

        Raises:
            Undecided: a batch that may be it must end first.
        """
        ...

    async def look(self, batch_id: str) -> State:
        """How far it is."""
        ...

    def results(self, state: State) -> AsyncGenerator[Line]:
        """Every result of a batch that is over, in any order.

        Raises:
            ResultsGone: the vendor has deleted them.
        """
        ...

    async def cancel(self, batch_id: str) -> None:
        """Ask the vendor to stop; what is answered until then is kept and paid."""
        ...

    async def close(self) -> None:
        """Release sockets."""
        ...


async def split_lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The lines of a stream, without blank ones. Only LF ends a line: JSON text may hold any other separator."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
    if rest.strip():
        yield rest
