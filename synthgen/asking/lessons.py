"""What the outcome of a send says of its lane, and how long the request behind it has to wait.

In: an attempt, its outcome, the lane and the place it had. Out: the lane has heard of it; the attempt knows when to come
back; a lane that answers nothing more (no key, no credit, an endpoint that refuses everything or too much, ignores its
schema, compresses what it was not asked to, or will not answer within anybody's patience) is stopped, and its rows stay
pending. A server that answers nobody makes no failures. Nothing is sent, stored or paid here.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from synthgen.asking.attempt import Attempt
from synthgen.asking.compression import COMPRESSED, CompressionWatch
from synthgen.asking.lanes import Lane, Place, Queue
from synthgen.asking.outcome import Answer, Gate, LaneStop, Outcome, Retry, RowFailure
from synthgen.asking.refusals import REFUSED, Refusals
from synthgen.asking.retry import MAX_WAIT_S, RetryPolicy
from synthgen.asking.spec import TeacherSpec
from synthgen.asking.structured import SchemaWatch
from synthgen.asking.unanswered import Unanswered
from synthgen.journal import latest_entries

__all__ = ["FIRST_REPLIES", "Lessons"]

# A lane whose first replies are all "bad request" has a recipe problem, not twenty row problems.
FIRST_REPLIES = 20


class Lessons:
    """What a session has learnt about its lanes, by name, beyond what they know themselves."""

    def __init__(self, lanes: Iterable[str], policy: RetryPolicy) -> None:
        self.policy = policy
        self.schemas = SchemaWatch()
        self.unanswered = Unanswered(policy)
        self.refusals = Refusals()
        self.compression = CompressionWatch()
        self._first_refusals = dict.fromkeys(lanes, 0)  # of lanes that have not answered yet

    def recall(self, journal: Path, specs: Mapping[str, TeacherSpec]) -> None:
        """What earlier sessions of this run have learnt that is still true: who was refused how often."""
        entries = latest_entries(journal, where=b'"reason":"%b"' % REFUSED.encode())
        hosts = ((alias, host) for alias, spec in specs.items() for host in spec.hosts)
        self.refusals.recall(entries, {(alias, host.endpoint): host.alias for alias, host in hosts})

    def learn(self, attempt: Attempt, outcome: Outcome, lane: Lane, place: Place) -> None:
        """What an outcome says of the lane, and how long this request has to wait."""
        match outcome:
            case Answer(limits=limits):
                usage = outcome.usage
                if limits:
                    lane.saw(place, limits)
                lane.succeeded(place, usage)
                lane.counts.output_tokens += usage.output_tokens if usage else 0
                if attempt.request.response_schema is not None:
                    self._watch_schema(attempt, outcome, lane)
                self._first_refusals.pop(lane.name, None)
                self.unanswered.answered(attempt)
                self.refusals.answered(lane.name)
            case RowFailure(reason, message):
                lane.refused(place)
                if reason == REFUSED:
                    self._note_flag(attempt, lane, message)
                else:
                    self.refusals.answered(lane.name)
                if len(attempt.keys) == 1:
                    self._note_refusal(attempt.queue, lane, message)
            case LaneStop(reason, message):
                attempt.wait_s = 0.0  # another lane may take it
                attempt.turn = "gated"
                attempt.queue.stop(lane, reason, message)
            case Gate(reason, wait_s, exhausted, limits):
                attempt.tries -= 1
                attempt.backoffs += 1
                lane_s = wait_s or (self.policy.flex_s(attempt.backoffs) if reason == "flex" else None)
                attempt.wait_s = self.policy.backoff_s(attempt.backoffs, lane_s, last_s=attempt.waited_s)
                if attempt.queue.has_other(lane):
                    attempt.wait_s = min(attempt.wait_s, self.policy.backoff_s(attempt.backoffs))
                attempt.with_lane = not wait_s
                attempt.turn = "gated"
                lane.saw(place, limits, refused=True)
                pause_s = min(lane_s, MAX_WAIT_S) if lane_s else None
                overloaded, ramp = reason == "overloaded", reason == "ramp"
                lane.was_limited(place, pause_s, exhausted=exhausted, overloaded=overloaded, ramp=ramp)
                self._give_up_if_dead(attempt, reason)
                self._give_up_if_far(attempt, lane, place, wait_s)
            case Retry(reason, message, wait_s):
                attempt.turn = "gated" if reason == "connect" else "retry"
                billed = outcome.maybe_paid or outcome.body is not None
                if reason == "connect":
                    attempt.tries -= 1  # nobody was reached: that says nothing about the request
                elif attempt.failing_since is None:
                    attempt.failing_since, attempt.failing_from = lane.clock(), place.sent_at
                attempt.backoffs += 1 + billed  # few such sends are left: they should not all meet one outage
                attempt.wait_s = self.policy.backoff_s(attempt.backoffs, wait_s, last_s=attempt.waited_s)
                attempt.with_lane = False
                lane.failed(place, f"{reason}: {message}", timed_out=reason == "timeout")
                if (said := self.compression.objection(lane.name, outcome)) is not None:
                    attempt.queue.stop(lane, COMPRESSED, said)
                if (said := self.unanswered.failed(attempt, outcome, billed=billed)) is not None:
                    attempt.queue.stop_all("unanswered", said)
                self._give_up_if_dead(attempt, f"{reason}: {message}")
                self._give_up_if_far(attempt, lane, place, wait_s)

    def _watch_schema(self, attempt: Attempt, answer: Answer, lane: Lane) -> None:
        for completion in answer.completions:
            said = self.schemas.objection(lane.name, attempt.request, completion, host=attempt.endpoint)
            if said is not None:
                attempt.queue.stop(lane, "schema_ignored", said)

    def _note_flag(self, attempt: Attempt, lane: Lane, message: str) -> None:
        said = self.refusals.refused(lane.name, attempt.spec.config.stop_at_refusal_rate, message)
        if said is not None:
            attempt.queue.stop(lane, "refused", said)

    def _note_refusal(self, queue: Queue, lane: Lane, message: str) -> None:
        if lane.name in self._first_refusals:
            self._first_refusals[lane.name] += 1
            if self._first_refusals[lane.name] >= FIRST_REPLIES:
                said = f"the first {FIRST_REPLIES} requests were all refused: {message}"
                queue.stop(lane, "bad_requests", said)

    @staticmethod
    def _give_up_if_dead(attempt: Attempt, what: str) -> None:
        queue, silent_s = attempt.queue, attempt.queue.silent_s
        if silent_s > attempt.spec.config.give_up_after_s:
            queue.stop_all("given_up", f"no success for {silent_s:.0f} s; last: {what}")

    @staticmethod
    def _give_up_if_far(attempt: Attempt, lane: Lane, place: Place, wait_s: float | None) -> None:
        """Stop a lane that names a time beyond its patience, once that is not about single requests.

        Some servers refuse a few and answer the rest: it counts where the whole lane waits or nobody else is to be asked.
        """
        patience_s = attempt.spec.config.give_up_after_s
        if wait_s is None or wait_s <= patience_s or lane.last_success > place.sent_at:
            return
        if not lane.probing and (attempt.queue.waiting or lane.counts.in_flight > 1):
            return
        attempt.wait_s = 0.0  # another lane may take it
        attempt.queue.stop(
            lane,
            "given_up",
            f"the server asks to come back {_when(wait_s)}, later than give_up_after_s ({patience_s:.0f} s) allows; "
            "run the same command then, or raise give_up_after_s",
        )


def _when(wait_s: float) -> str:
    try:
        return f"at {datetime.fromtimestamp(time.time() + wait_s).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # beyond the calendar
        return f"in {wait_s:.0f} s"
