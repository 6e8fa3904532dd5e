"""One endpoint, asked one question after the other, through the wire and the transport that a run would use.

In: a `Question` and fields to add to its body. Out: `Heard`: the reply as read by the wire, and its parsed body. Guarantees:
money is reserved before each send and never passes the budget; nothing is sent after the endpoint has said that it
answers nothing more (quota), hangs or is gone, or when the budget is reached; an attempt that may have been paid is not made again.
A busy server is waited for as long as it asks, within `PATIENCE_S` for the whole endpoint.
Rejected: the lanes of a run (a pace is pointless for one request at a time) and its journal (these answers are no
part of a dataset; what they cost is in the diagnosis).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field

from synthgen.asking.ask import TeacherSpec
from synthgen.asking.budget import Budget
from synthgen.asking.doctor.findings import Finding, Verdict
from synthgen.asking.doctor.questions import Question, request_for, worst_usd
from synthgen.asking.outcome import Answer, Gate, HttpReply, LaneStop, Outcome, Retry, RowFailure
from synthgen.asking.prices import cost_usd
from synthgen.asking.providers import RemoteTeacher
from synthgen.asking.transport.endpoint import Dialect
from synthgen.asking.wire.loose import as_list, as_object, parse_object, shorten
from synthgen.dataclasses import dataclass
from synthgen.errors import BudgetReached
from synthgen.types import Completion, JSONValue, Request

__all__ = ["Caller", "Heard"]

# A doctor is waited for by a person; a run has its own, longer patience.
PATIENCE_S = 60.0
ANSWER_TIMEOUT_S = 120.0
_FIRST_WAIT_S = 1.0
_TIMEOUTS = 2
_EVIDENCE_CHARS = 160


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back: `payload` is the parsed body, empty where there is none."""

    outcome: Outcome
    reply: HttpReply | None = None
    payload: dict[str, JSONValue] = field(default_factory=dict)

    @property
    def completion(self) -> Completion | None:
        """The answer, None where it is not one."""
        return self.outcome.completion if isinstance(self.outcome, Answer) else None

    @property
    def choices(self) -> list[dict[str, JSONValue]]:
        """The choices of a chat completions reply."""
        return [as_object(choice) for choice in as_list(self.payload.get("choices"))]

    def refusal(self, probe: str) -> Finding:
        """What a reply that is no answer says of the thing that was asked for.

        A refused key or model is about that thing as well: the plain question had its answer.
        """
        verdict, said = self._refusal()
        return Finding(probe, verdict, shorten(said, _EVIDENCE_CHARS))

    def _refusal(self) -> tuple[Verdict, str]:
        match self.outcome:
            case RowFailure("invalid" | "too_large", message) | LaneStop("auth" | "model", message):
                return "no", message
            case Gate(reason, wait_s):
                asks = f"; it asks to wait {wait_s:.0f} s" if wait_s else ""
                return "error", f"the server is busy ({reason}){asks}"
            case Retry(reason, message) | RowFailure(reason, message) | LaneStop(reason, message):
                return "error", f"{reason}: {message}"
            case Answer():
                raise AssertionError("an answer is no refusal")


class Caller:
    """`sent` attempts were made, and cost `cost_usd` so far (None: the price is unknown).

    `stopped` says why nothing more is sent, None as long as something is.
    """

    def __init__(
        self,
        spec: TeacherSpec,
        teacher: RemoteTeacher,
        budget: Budget,
        *,
        dialect: Dialect,
        timeout_s: float = ANSWER_TIMEOUT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.spec = spec
        self.dialect = dialect
        self.sent = 0
        self.cost_usd = None if spec.price is None else 0.0
        self._teacher = teacher
        self._budget = budget
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._patience_s = PATIENCE_S
        self._timeouts = 0
        self.stopped: LaneStop | None = None

    async def ask(
        self,
        question: Question,
        added: Mapping[str, JSONValue] | None = None,
        *,
        seed: int | None = None,
        top_logprobs: int | None = None,
        tool_choice: str | None = None,
    ) -> Heard:
        """Ask, waiting where the server is busy; `added` goes into the wire's body as it is."""
        request = request_for(
            self.spec, question, seed=seed, top_logprobs=top_logprobs, tool_choice=tool_choice
        )
        wait_s = _FIRST_WAIT_S
        while True:
            heard = await self._send(request, question, added or {})
            match heard.outcome:
                case Gate(wait_s=named) | Retry(maybe_paid=False, body=None, wait_s=named):
                    due_s = named or wait_s
                case _:
                    return heard
            if due_s > self._patience_s:
                if isinstance(heard.outcome, Retry) and heard.outcome.reason == "connect":
                    self.stopped = LaneStop("gone", heard.outcome.message)
                return heard
            self._patience_s -= due_s
            wait_s *= 2
            await self._sleep(due_s)

    async def _send(self, request: Request, question: Question, added: Mapping[str, JSONValue]) -> Heard:
        if self.stopped is not None:
            return Heard(self.stopped)
        worst = worst_usd(self.spec, question)
        try:
            await self._budget.reserve(worst)
        except BudgetReached as error:
            self.stopped = LaneStop("budget", str(error))
            return Heard(self.stopped)
        self.sent += 1
        cost = worst
        try:
            exchange = await self._teacher.exchange(
                request, question.choices, added=added, timeout_s=self._timeout_s
            )
            cost = self._cost(exchange.outcome, worst)
        finally:
            self._budget.settle(worst, cost)
            if self.cost_usd is not None:
                self.cost_usd += cost
        self._notice_end(exchange.outcome)
        reply = exchange.reply
        return Heard(exchange.outcome, reply, (parse_object(reply.body) if reply else None) or {})

    def _notice_end(self, outcome: Outcome) -> None:
        """Quota, or a server that hangs: whoever waits is not kept waiting by each further question."""
        match outcome:
            case LaneStop("quota"):
                self.stopped = outcome
            case Retry("timeout", message):
                self._timeouts += 1
                if self._timeouts == _TIMEOUTS:
                    self.stopped = LaneStop(
                        "timeout", f"{_TIMEOUTS} questions had no answer in time: {message}"
                    )

    def _cost(self, outcome: Outcome, worst: float) -> float:
        """Without usage an answer costs what it may cost at most, as in a run."""
        match outcome:
            case Answer():
                price, usage = self.spec.price, outcome.usage
                return worst if price is None or usage is None else cost_usd(price, usage)
            case Retry(maybe_paid=maybe_paid, body=body):
                return worst if maybe_paid or body is not None else 0.0
            case _:
                return 0.0
