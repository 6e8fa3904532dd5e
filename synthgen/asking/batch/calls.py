"""Patient calls to a vendor's batch API: what to do again, what ends a teacher, what nobody may guess.

In: a `Vendor`, the wire of its dialect, a `Pace`. Out: ids, states and outcomes, or `Stopped`. Guarantees: a batch is
created at most once: after a creation whose reply was lost, the vendor is asked for it by name before it is tried
again; a result is read by the very wire that reads live replies. tenacity states when to try again; a server's own
time is kept. Nothing here touches the journal.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    stop_never,
    wait_exponential,
)

from synthgen.asking.batch.vendor import Pace, Problem, Refused, State, Ticket, Undecided, Vendor
from synthgen.asking.outcome import Gate, LaneStop, Outcome, Retry, RowFailure, TransportFailure, Wire
from synthgen.asking.retry import MAX_WAIT_S
from synthgen.types import JSONValue, Request

__all__ = ["Calls", "Stopped", "Unanswered"]

T = TypeVar("T")
_NO_SUCH = (404, 405, 410)
# Refusals after which a batch may exist all the same: somebody between us and the vendor gave up waiting.
_UNCERTAIN = (408, 409, 499)


class Stopped(Exception):
    """This teacher's batches cannot go on in this session. `created` tells whether a batch may have been created."""

    def __init__(self, reason: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.created = False


class Unanswered(str):
    """Why a request of a batch was not answered: the vendor's word (expired, cancelled). It costs nothing."""

    __slots__ = ()


class _Temporary(Exception):
    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s or 0.0


class Calls:
    """See the module. `give_up_after_s`: how long one call is tried while it brings nothing."""

    def __init__(self, vendor: Vendor, wire: Wire, pace: Pace, give_up_after_s: float) -> None:
        self.vendor = vendor
        self._wire = wire
        self._pace = pace
        self._give_up_after_s = give_up_after_s
        self._growing = wait_exponential(multiplier=pace.poll_s, exp_base=1.5, max=pace.longest_poll_s)

    def line(self, key: str, request: Request) -> bytes:
        """A request as it stands in a batch: the body of a live one."""
        body: dict[str, JSONValue] = self._wire.body(request)
        return self.vendor.line(key, body)

    async def submit(self, ticket: Ticket, lines: Sequence[bytes]) -> str:
        """Upload and create; the vendor's id.

        Raises:
            Stopped: `created` is true where the batch may exist all the same.
        """
        uploaded = await self.patiently(lambda: self.vendor.upload(ticket, lines))
        uncertain = False

        async def create() -> str:
            nonlocal uncertain
            if uncertain and (found := await self.vendor.find(ticket)) is not None:
                return found
            uncertain = True
            try:
                return await self.vendor.create(ticket, uploaded)
            except Refused as refused:
                uncertain = refused.reply.status >= 500 or refused.reply.status in _UNCERTAIN
                # A file is now and then not found right after its upload (bespokelabsai/curator issue 116).
                if isinstance(uploaded, str) and uploaded.encode() in refused.reply.body:
                    raise _Temporary(f"HTTP {refused.reply.status}: the uploaded file is not found") from None
                raise

        try:
            return await self.patiently(create)
        except Stopped as stop:
            stop.created = uncertain
            raise

    async def recover(self, ticket: Ticket) -> str | None:
        """The id of a batch whose creation an earlier session did not see the end of; None: it was never created."""
        missing_s = self._pace.settle_s - (time.time() - ticket.prepared_at)
        if missing_s > 0:
            await self._pace.sleep(missing_s)
        return await self.patiently(lambda: self.vendor.find(ticket), for_ever=True)

    async def look(self, batch_id: str) -> State:
        """How far a batch is."""
        return await self.patiently(lambda: self.vendor.look(batch_id))

    async def until_over(self, batch_id: str, note: Callable[[State], None]) -> State:
        """Wait until a batch is over, looking less and less often; `note` gets every state."""

        async def look() -> State:
            state = await self.look(batch_id)
            note(state)
            return state

        looking = AsyncRetrying(
            retry=retry_if_result(lambda state: not state.over), wait=self._growing, sleep=self._pace.sleep
        )
        return await looking(look)

    async def cancel(self, batch_id: str) -> None:
        """Ask the vendor to stop. A batch that is over already stays as it is."""
        try:
            await self.patiently(lambda: self.vendor.cancel(batch_id))
        except Stopped as stop:
            if stop.status is None or not 400 <= stop.status < 500 or stop.reason in ("auth", "batch_api"):
                raise

    async def outcomes(
        self, state: State, question: Callable[[str], Request | None]
    ) -> AsyncGenerator[tuple[str, Outcome | Unanswered]]:
        """Custom id and outcome of every result, in the vendor's order. Raises what `Vendor.results` does.

        `question` tells what the reply to a custom id is read for.
        """
        async with aclosing(self.vendor.results(state)) as lines:
            async for line in lines:
                if line.reply is None:
                    yield line.custom_id, Unanswered(line.status)
                    continue
                outcome = self._wire.read(line.reply, question(line.custom_id))
                if not line.billed and isinstance(outcome, Retry):
                    outcome = replace(outcome, maybe_paid=False, body=None)
                yield line.custom_id, outcome

    def read(self, problem: Problem) -> Outcome:
        """What it means that a batch was refused as a whole."""
        return self._wire.read(problem.reply)

    async def patiently(self, call: Callable[[], Awaitable[T]], *, for_ever: bool = False) -> T:
        """The result of `call`, tried again after what may pass.

        Raises:
            Stopped: it will not pass, or has not for `give_up_after_s`.
        """
        trying = AsyncRetrying(
            retry=retry_if_exception_type(_Temporary),
            wait=self._wait_s,
            stop=stop_never if for_ever else stop_after_delay(self._give_up_after_s),
            sleep=self._pace.sleep,
            reraise=True,
        )
        try:
            return await trying(self._judged, call)
        except _Temporary as trouble:
            raise Stopped(
                "given_up", f"no success for {self._give_up_after_s:.0f} s; last: {trouble}"
            ) from None

    def _wait_s(self, state: RetryCallState) -> float:
        trouble = state.outcome.exception() if state.outcome else None
        named_s = trouble.wait_s if isinstance(trouble, _Temporary) else 0.0
        return max(min(named_s, MAX_WAIT_S), self._growing(state))

    async def _judged(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except TransportFailure as failure:
            raise _Temporary(f"{failure.reason}: {failure}") from None
        except Undecided:
            raise _Temporary("a batch that may be ours has to end first") from None
        except Refused as refused:
            outcome, status = self._wire.read(refused.reply), refused.reply.status
            match outcome:
                case LaneStop(_, message) if status in _NO_SUCH:
                    said = f"{message}; the server has no batch endpoints, or knows no such batch"
                    raise Stopped("batch_api", said, status=status) from None
                case LaneStop(reason, message):
                    raise Stopped(reason, message, status=status) from None
                case RowFailure(_, message):
                    raise Stopped("batch_refused", message, status=status) from None
                case Gate(reason, wait_s):
                    raise _Temporary(f"HTTP {status}: {reason}", wait_s) from None
                case Retry(_, message, wait_s):
                    raise _Temporary(message, wait_s) from None
            raise
