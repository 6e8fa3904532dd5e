"""What came out of a batch: each result sorted into answers, failures, and requests without an answer.

In: outcomes of the wire, one a request, and the journal's view of the batch. Out: journal entries with their money, and for
every other request why it has none. Pure bookkeeping: `batches` stores, hands out and closes.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import field

from synthgen.asking.ask import KEPT_BODY_BYTES
from synthgen.asking.batch.calls import Unanswered
from synthgen.asking.batch.vendor import Problem, State
from synthgen.asking.lessons import FIRST_REPLIES
from synthgen.asking.outcome import Answer, Gate, LaneStop, Outcome, Retry, RowFailure
from synthgen.asking.prices import cost_usd
from synthgen.asking.refusals import too_many
from synthgen.dataclasses import dataclass
from synthgen.journal import Circumstances, Entry, OpenBatch, answer_entry, failure_entry
from synthgen.recipe.model import Price
from synthgen.types import Completion

__all__ = ["Harvest", "Missing", "Settled"]


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a request has no answer. `again`: it may go into another batch, after `wait_s`; `final`: it fails for good
    when that has been tried often enough; `billed`: it may have been."""

    reason: str
    message: str = ""
    again: bool = False
    final: bool = False
    billed: bool = False
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry to be stored, and what becomes of the money reserved for it."""

    entry: Entry
    reserved_usd: float
    usd: float


@dataclass(slots=True)
class Harvest:
    """One batch's results so far. `unknown` ones belong to no request of it that was still open.

    `ready` is what can be stored; `stop` ends the teacher in this session.
    """

    batch: OpenBatch
    answered: int = 0
    failed: int = 0
    unanswered: int = 0
    unusable: int = 0
    unknown: int = 0
    usd: float = 0.0
    ready: list[Settled] = field(default_factory=list)
    refused: dict[str, RowFailure] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    stop: LaneStop | None = None
    _seen: set[str] = field(default_factory=set)

    def add(self, key: str, outcome: Outcome | Unanswered, tries: int) -> None:
        """Sort one result; `tries` says how often its request was sent. A result that comes again is no news."""
        if key in self._seen:
            return
        self._seen.add(key)
        if key not in self.batch.requests:
            self.unknown += 1
            return
        reserved_usd = self.batch.requests[key][1]
        match outcome:
            case Answer(completion):
                cost = self._cost(completion, reserved_usd)
                entry = answer_entry(key, completion, cost, self._circumstances(key, tries))
                self.ready.append(Settled(entry, reserved_usd, cost or 0.0))
                self.answered += 1
            case RowFailure():
                self.refused[key] = outcome
            case LaneStop():
                self.stop = outcome
            case Gate(reason):
                self.missing[key] = Missing(reason, again=True)
            case Retry(reason, message, body=body, maybe_paid=maybe_paid):
                billed = maybe_paid or body is not None
                self.missing[key] = Missing(reason, message, again=True, final=True, billed=billed)
                if body is not None:
                    text = body[:KEPT_BODY_BYTES].decode(errors="replace")
                    at = self._circumstances(key, tries)
                    whose: Entry = {"step": at.step, "teacher": at.teacher}
                    entry = {"k": key, "t": "X", **whose, "reason": reason, "usd": reserved_usd, "body": text}
                    self.ready.append(Settled(entry, reserved_usd, reserved_usd))
                    self.unusable += 1
            case Unanswered("cancelled"):
                self.note_cancelled()
            case Unanswered():
                self.missing[key] = Missing(str(outcome), again=True)

    def add_refusal(self, problem: Problem, outcome: Outcome, order: Sequence[str]) -> None:
        """The vendor ran nothing of the batch: one line of it is wrong, or all of it."""
        at_fault = order[problem.line - 1 : problem.line] if problem.line else ()
        if at_fault and isinstance(outcome, RowFailure):
            self.refused[at_fault[0]] = outcome
        elif isinstance(outcome, LaneStop):
            self.stop = outcome
        else:
            message = outcome.message if isinstance(outcome, RowFailure) else problem.code
            self.stop = LaneStop("batch_failed", message)

    def note_cancelled(self) -> None:
        """Somebody cancelled the batch: what has no answer is not sent again by itself."""
        if self.stop is None:
            self.stop = LaneStop("cancelled", f"batch {self.batch.id} was cancelled at its vendor")

    def fail_refused(self, tries: Mapping[str, int], *, alive: bool, rate: float) -> None:
        """Make refused requests final; not if all were refused by a teacher that has not answered yet (`alive`).

        Nothing was paid then, and it is the recipe that has a problem, not every row of it. Where the content policy refused
        more than `rate` of them, the teacher stops.
        """
        flagged = [failure.message for failure in self.refused.values() if failure.reason == "policy"]
        said = too_many(len(flagged), len(self._seen), rate, flagged[-1]) if flagged else None
        if said is not None:
            self.stop = LaneStop("refused", said)
        if not (alive or self.answered) and len(self.refused) >= FIRST_REPLIES:
            message = next(iter(self.refused.values())).message
            self.stop = LaneStop("bad_requests", f"all {len(self.refused)} requests were refused: {message}")
            return
        for key, failure in self.refused.items():
            at = self._circumstances(key, tries.get(key, 1))
            entry = failure_entry(key, failure.reason, failure.message, at)
            self.ready.append(Settled(entry, self.batch.requests[key][1], 0.0))
        self.failed = len(self.refused)

    def left(self, key: str, state: State) -> Missing:
        """Why a request that is still open at the end has no answer."""
        if self.stop is not None:
            return Missing(self.stop.reason)
        return self.missing.get(key) or Missing(state.status, again=True)

    def counts(self) -> dict[str, int]:
        """For the journal."""
        names = ("answered", "failed", "unanswered", "unusable", "unknown")
        return {name: int(getattr(self, name)) for name in names}

    def _circumstances(self, key: str, tries: int) -> Circumstances:
        batch = self.batch
        sent_at = batch.submitted_at or batch.prepared_at
        step = batch.requests[key][0]
        latency_s = round(time.time() - sent_at, 4)
        return Circumstances(step, batch.teacher, batch.endpoint, tries, round(sent_at, 3), latency_s)

    def _cost(self, completion: Completion, reserved_usd: float) -> float | None:
        """At the price the batch was sent under; without reported usage the reservation, the upper bound."""
        if self.batch.price is None:
            return None
        usage = completion.usage
        return reserved_usd if usage is None else cost_usd(Price.model_validate(self.batch.price), usage)
