"""What a reply means: the words shared by wires, transports, the embedded teacher and the lanes.

In: nothing. Out: `HttpReply` (what a transport brings back), `Outcome` (what it means), and the two Protocols a
teacher is built from. A wire turns a `Request` into a body and a reply into an `Outcome`; it never sleeps, retries
or logs. The lane decides what to do.
"""

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

from synthgen.dataclasses import dataclass, inner
from synthgen.types import Completion, JSONValue, Request, Usage

__all__ = [
    "Answer",
    "Gate",
    "HttpReply",
    "LaneStop",
    "LimitKind",
    "NotAsked",
    "Outcome",
    "RefusedTogether",
    "Retry",
    "RowFailure",
    "SeenLimit",
    "Teacher",
    "Transport",
    "TransportFailure",
    "Wire",
]


@inner(frozen=True, slots=True)
class HttpReply:
    """Status, headers with lower-case names, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TransportFailure(Exception):
    """No whole reply came back. `maybe_paid`: the request may have reached the teacher before it broke.

    `auth`: nothing was sent, since the cloud's own credentials are gone. `compressed`: with what nobody asked for and
    nobody here reads. `body`: what had come of a 200, kept aside.
    """

    def __init__(
        self,
        reason: Literal["connect", "reset", "timeout", "body", "compressed", "auth"],
        message: str,
        *,
        maybe_paid: bool,
        body: bytes | None = None,
    ):
        super().__init__(message)
        self.reason = reason
        self.maybe_paid = maybe_paid
        self.body = body


class NotAsked(Exception):
    """The request was not sent, and is not answered: pending. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RefusedTogether(Exception):
    """A request for several samples was refused, by the server or the budget: perhaps one for a single one is not."""

    def __init__(self, *, by_server: bool) -> None:
        super().__init__()
        self.by_server = by_server


LimitKind: TypeAlias = Literal["requests", "tokens", "input_tokens", "output_tokens"]


@dataclass(frozen=True, slots=True)
class SeenLimit:
    """A limit of the server as a reply's headers name it: so many in `window_s` seconds, of which `remaining`."""

    kind: LimitKind
    limit: float
    remaining: float | None
    window_s: float


@inner(frozen=True, slots=True)
class Answer:
    """A paid and usable reply, possibly flagged by its finish reason. Journaled, final.

    `more` are the further samples of a request that asked for several; each completion has its share of the usage.
    """

    completion: Completion
    limits: tuple[SeenLimit, ...] = ()
    more: tuple[Completion, ...] = ()

    @property
    def completions(self) -> tuple[Completion, ...]:
        """All samples, in the order of the server's choices."""
        return (self.completion, *self.more)

    @property
    def usage(self) -> Usage | None:
        """What the whole reply used; None where the server does not say."""
        if not self.more:
            return self.completion.usage
        total = Usage()
        for completion in self.completions:
            if completion.usage is None:
                return None
            total += completion.usage
        return total


@dataclass(frozen=True, slots=True)
class Retry:
    """Ask the same again after a backoff; counts as an attempt.

    `maybe_paid` keeps the reservation of this attempt spent. `body` holds a paid but unusable reply, kept aside.
    """

    reason: str
    message: str = ""
    wait_s: float | None = None
    maybe_paid: bool = False
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The endpoint is busy (429 by rate, 503, 529): ask again later, not an attempt, nothing paid.

    `wait_s` is the time the server named. `exhausted`: its headers say nothing remains before then, so the whole
    lane waits.
    """

    reason: str
    wait_s: float | None = None
    exhausted: bool = False
    limits: tuple[SeenLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class RowFailure:
    """This request will never be answered (validation, context, policy). Journaled, final, nothing paid."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class LaneStop:
    """This endpoint answers nothing more (key, quota, credit, model): its rows stay pending."""

    reason: str
    message: str


Outcome: TypeAlias = Answer | Retry | Gate | RowFailure | LaneStop


class Transport(Protocol):
    """Carries one JSON body to one endpoint. The credential is the transport's business, not the wire's."""

    async def post(self, path: str, body: Mapping[str, JSONValue], *, timeout_s: float) -> HttpReply:
        """The whole reply, whatever its status.

        Raises:
            TransportFailure: no whole reply came back.
        """
        ...

    async def close(self) -> None:
        """Release sockets."""
        ...


class Wire(Protocol):
    """One vendor's dialect."""

    path: str

    def body(self, request: Request, samples: int = 1) -> dict[str, JSONValue]:
        """The JSON body of `request`; `samples` above 1 only where the dialect can ask for several."""
        ...

    def read(self, reply: HttpReply, request: Request | None = None) -> Outcome:
        """What the reply means; never raises, whatever the body holds.

        Without the request it answers, nothing is known of what was to be captured: then nothing is.
        """
        ...


class Teacher(Protocol):
    """Something that answers requests: a wire over a transport, or a model in this process."""

    async def answer(self, request: Request, samples: int = 1) -> Outcome:
        """One attempt at `request`, or at it and the samples that follow it; an answer may hold fewer of them.

        Never raises for anything a server or a model can do.
        """
        ...

    async def close(self) -> None:
        """Release sockets and memory."""
        ...
